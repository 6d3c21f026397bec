// Command example buys one share and watches the order until it ends.
//
// It reads TRADEMESH_ENDPOINT, TRADEMESH_CA_FILE, TRADEMESH_ISSUER, TRADEMESH_CLIENT_ID, TRADEMESH_CLIENT_SECRET and TRADEMESH_ACCOUNT.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"trademesh/clients/trademesh"

	omsv1 "trademesh/clients/build/trademesh/oms/v1"
	typev1 "trademesh/clients/build/trademesh/type/v1"
)

var errDone = errors.New("the order has ended")

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := trade(ctx, os.Getenv("TRADEMESH_ACCOUNT")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func trade(ctx context.Context, account string) error {
	tokens := trademesh.ClientCredentials(
		os.Getenv("TRADEMESH_ISSUER"), os.Getenv("TRADEMESH_CLIENT_ID"), os.Getenv("TRADEMESH_CLIENT_SECRET"))
	connection, err := trademesh.Connect(os.Getenv("TRADEMESH_ENDPOINT"), os.Getenv("TRADEMESH_CA_FILE"), tokens)
	if err != nil {
		return err
	}
	defer connection.Close()
	orders := omsv1.NewOrderServiceClient(connection)

	// The key is made once and kept, in a program that trades on disk: whatever happens, the order is asked for by it.
	key := fmt.Sprintf("example-go-%d", time.Now().UnixNano())
	order, err := trademesh.Place(ctx, orders, &omsv1.CreateOrderRequest{
		AccountId:     account,
		ClientOrderId: key,
		InstrumentId:  "AAPL",
		Side:          typev1.Side_SIDE_BUY,
		Type:          typev1.OrderType_ORDER_TYPE_MARKET,
		TimeInForce:   typev1.TimeInForce_TIME_IN_FORCE_DAY,
		Quantity:      "1",
	})
	if err != nil {
		return err
	}
	if order.State == omsv1.OrderState_ORDER_STATE_REJECTED {
		return fmt.Errorf("risk refused %s: %s", key, order.Reject.Text)
	}
	fmt.Println("placed", key)
	return watch(ctx, orders, account, key)
}

// watch prints what becomes of an order. It may have ended before the stream begins, and is in no snapshot then: the read that follows the
// snapshot sees that.
func watch(ctx context.Context, orders omsv1.OrderServiceClient, account, key string) error {
	show := func(order *omsv1.Order) error {
		fmt.Println(order.State, order.FilledQuantity, "at", order.GetAveragePrice())
		if order.TerminalTime != nil {
			return errDone
		}
		return nil
	}
	err := trademesh.Follow(ctx, orders, &omsv1.StreamOrderEventsRequest{AccountId: account}, func(message *omsv1.StreamOrderEventsResponse) error {
		if message.GetSnapshot().GetComplete() {
			answer, err := orders.LookupOrder(ctx, &omsv1.LookupOrderRequest{AccountId: account, ClientOrderId: key})
			if err != nil {
				return err
			}
			return show(answer.Order)
		}
		if order := message.GetEvent().GetOrder(); order.GetClientOrderId() == key {
			return show(order)
		}
		return nil
	})
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

package trademesh

import (
	"context"
	"errors"
	"fmt"
	"time"

	omsv1 "trademesh/clients/build/trademesh/oms/v1"
)

const (
	attemptTimeout = 3 * time.Second
	pauseFirst     = 50 * time.Millisecond
	pauseLongest   = 2 * time.Second
)

// ErrOutcomeOpen says that what became of an order is not known yet: call Place again with the same request, later or from another process.
var ErrOutcomeOpen = errors.New("the outcome is open")

// Place sends an order until it is known what became of it, always under the request's own client_order_id, so that it is placed once.
//
// An order that risk refused is returned like any other: look at its state. The error is ErrOutcomeOpen when ctx ends first, or when an
// attempt is refused that comes after one without an answer: such a refusal says nothing of the attempt before it, unless it Settles.
// Any other error means that this Place made no order; of an earlier one under the same key, which was left open, only a refusal that
// Settles says so too.
func Place(ctx context.Context, orders omsv1.OrderServiceClient, request *omsv1.CreateOrderRequest) (*omsv1.Order, error) {
	unanswered := false
	for pause := pauseFirst; ; pause = min(2*pause, pauseLongest) {
		order, err := create(ctx, orders, request)
		if err == nil {
			return order, nil
		}
		refusal := Refused(err)
		if refusal.Final() {
			if unanswered && !refusal.Settles() {
				return nil, fmt.Errorf("%w, of %s: %w", ErrOutcomeOpen, request.ClientOrderId, err)
			}
			return nil, err
		}
		if !refusal.NothingDone() {
			unanswered = true
			if order, found := lookup(ctx, orders, request); found {
				return order, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w, of %s: %w", ErrOutcomeOpen, request.ClientOrderId, err)
		case <-time.After(max(pause, refusal.RetryAfter)):
		}
	}
}

func create(ctx context.Context, orders omsv1.OrderServiceClient, request *omsv1.CreateOrderRequest) (*omsv1.Order, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	answer, err := orders.CreateOrder(ctx, request)
	return answer.GetOrder(), err
}

// lookup asks for the order by its key. Not found proves little while the first attempt may still be under way; sending it again does.
func lookup(ctx context.Context, orders omsv1.OrderServiceClient, request *omsv1.CreateOrderRequest) (*omsv1.Order, bool) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	answer, err := orders.LookupOrder(ctx, &omsv1.LookupOrderRequest{AccountId: request.AccountId, ClientOrderId: request.ClientOrderId})
	return answer.GetOrder(), err == nil
}

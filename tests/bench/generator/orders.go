package main

import (
	"encoding/binary"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"sync/atomic"
)

const ticksAround = 40

// orderSource makes CreateOrderRequest messages (trademesh.oms.v1), each with a client_order_id of its own.
type orderSource struct {
	run         string
	accounts    []string
	instruments []instrument
	next        atomic.Uint64
}

type instrument struct {
	id     string
	prices []string
}

func newOrderSource(run string, accounts, instruments []string) (*orderSource, error) {
	source := &orderSource{run: run, accounts: accounts}
	for _, text := range instruments {
		parts := strings.Split(text, ":")
		if len(parts) != 3 {
			return nil, fmt.Errorf("instrument %q: want id:price:tick", text)
		}
		price, okPrice := new(big.Rat).SetString(parts[1])
		tick, okTick := new(big.Rat).SetString(parts[2])
		if !okPrice || !okTick {
			return nil, fmt.Errorf("instrument %q: price and tick must be decimals", text)
		}
		source.instruments = append(source.instruments, instrument{parts[0], pricesAround(price, tick)})
	}
	return source, nil
}

func pricesAround(price, tick *big.Rat) []string {
	prices := make([]string, 0, 2*ticksAround)
	for step := -ticksAround; step < ticksAround; step++ {
		value := new(big.Rat).Add(price, new(big.Rat).Mul(tick, big.NewRat(int64(step), 1)))
		text := value.FloatString(8)
		prices = append(prices, strings.TrimRight(strings.TrimRight(text, "0"), "."))
	}
	return prices
}

// order is one limit DAY order.
type order struct {
	account, key, instrument, quantity, price string
	side                                      uint64
}

func (s *orderSource) nextOrder() order {
	n := s.next.Add(1)
	instrument := &s.instruments[(n/uint64(len(s.accounts)))%uint64(len(s.instruments))]
	return order{
		account: s.accounts[n%uint64(len(s.accounts))], key: s.run + "-" + strconv.FormatUint(n, 36), instrument: instrument.id,
		quantity: strconv.FormatUint(1+n%89, 10), price: instrument.prices[(n*7)%uint64(len(instrument.prices))], side: 1 + n%2,
	}
}

// appendOrder appends one serialized CreateOrderRequest.
func (s *orderSource) appendOrder(out []byte) []byte {
	o := s.nextOrder()
	out = appendString(out, 1, o.account)
	out = appendString(out, 2, o.key)
	out = appendString(out, 3, o.instrument)
	out = append(out, 4<<3, byte(o.side), 5<<3, 2, 6<<3, 1)
	out = appendString(out, 7, o.quantity)
	return appendString(out, 8, o.price)
}

var sides = map[uint64]string{1: "SIDE_BUY", 2: "SIDE_SELL"}

// appendJSON appends the body of one order, and returns the path that it is posted to. Nothing in it needs escaping.
func (s *orderSource) appendJSON(out []byte) (string, []byte) {
	o := s.nextOrder()
	out = fmt.Appendf(out, `{"client_order_id":"%s","instrument_id":"%s","side":"%s","type":"ORDER_TYPE_LIMIT",`+
		`"time_in_force":"TIME_IN_FORCE_DAY","quantity":"%s","limit_price":"%s"}`, o.key, o.instrument, sides[o.side], o.quantity, o.price)
	return "/v1/accounts/" + o.account + "/orders", out
}

func appendString(out []byte, field int, text string) []byte {
	out = append(out, byte(field<<3|2))
	out = binary.AppendUvarint(out, uint64(len(text)))
	return append(out, text...)
}

func appendMessage(out []byte, field int, message []byte) []byte {
	out = append(out, byte(field<<3|2))
	out = binary.AppendUvarint(out, uint64(len(message)))
	return append(out, message...)
}

// fieldOf walks a serialized message and calls visit for each length-delimited (bytes) or varint (number) field.
func fieldsOf(message []byte, visit func(field uint64, number uint64, bytes []byte)) error {
	for len(message) > 0 {
		key, size := binary.Uvarint(message)
		if size <= 0 {
			return fmt.Errorf("truncated field key")
		}
		message = message[size:]
		value, size := binary.Uvarint(message)
		if size <= 0 {
			return fmt.Errorf("truncated field %d", key>>3)
		}
		message = message[size:]
		switch key & 7 {
		case 0:
			visit(key>>3, value, nil)
		case 2:
			if uint64(len(message)) < value {
				return fmt.Errorf("truncated field %d", key>>3)
			}
			visit(key>>3, 0, message[:value])
			message = message[value:]
		default:
			return fmt.Errorf("field %d has wire type %d, which no answer uses", key>>3, key&7)
		}
	}
	return nil
}

const (
	orderStateField    = 11
	orderStatePending  = 1
	orderStateRejected = 8
)

// countOrder reads the state of a serialized trademesh.oms.v1.Order.
func (t *tally) countOrder(order []byte) error {
	state := uint64(0)
	err := fieldsOf(order, func(field, number uint64, _ []byte) {
		if field == orderStateField {
			state = number
		}
	})
	switch {
	case err != nil:
		return err
	case state == orderStatePending:
		t.accepted++
	case state == orderStateRejected:
		t.rejected++
	default:
		return fmt.Errorf("an order came back in state %d", state)
	}
	return nil
}

package main

import (
	"crypto/rand"
	"fmt"
)

const (
	orderIDField = 1
	accountField = 3
	resting      = 4096
)

// command is what a call asks for, as it is written into the journal.
type command struct {
	kind    string
	request []byte
}

// acknowledged is an order that may be canceled.
type acknowledged struct {
	account, orderID string
}

// remember keeps an order that was accepted for whoever cancels; when nobody does, the rest are dropped.
func (s *settings) remember(order []byte) {
	var found acknowledged
	var state uint64
	err := fieldsOf(order, func(field, number uint64, value []byte) {
		switch {
		case field == orderIDField && value != nil:
			found.orderID = string(value)
		case field == accountField && value != nil:
			found.account = string(value)
		case field == orderStateField:
			state = number
		}
	})
	if err != nil || state != orderStatePending {
		return
	}
	select {
	case s.accepted <- found:
	default:
	}
}

// appendCancel appends one serialized CancelOrderRequest; false while no order waits for one.
func (s *settings) appendCancel(out []byte) ([]byte, bool) {
	select {
	case order := <-s.accepted:
		out = appendString(out, 1, order.account)
		out = appendString(out, 2, order.orderID)
		return appendString(out, 3, newUUID()), true
	default:
		return nil, false
	}
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

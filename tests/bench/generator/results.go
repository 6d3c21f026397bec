package main

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Field numbers of trademesh.oms.v1 answers.
const (
	orderInResponse   = 1
	resultsInResponse = 1
	errorInResult     = 2
	orderInEntered    = 2
	errorInEntered    = 3
	noField           = 0
)

// finish settles a unary call and starts the next one, or notes that the stream is over.
func (d *driver) finish(c *call) error {
	delete(d.calls, c.id)
	if d.streaming {
		return fmt.Errorf("the stream ended with status %s %s", c.status, c.message)
	}
	now := time.Now()
	if d.settle != nil {
		d.settle(c, now)
		return nil
	}
	if now.After(d.measureFrom) && now.Before(d.stopAt) {
		d.settleUnary(c, now)
	}
	if now.Before(d.stopAt) {
		return d.startUnary()
	}
	return nil
}

func (d *driver) settleUnary(c *call, now time.Time) {
	if d.json {
		if d.settleJSON(c.httpStatus, c.output) {
			d.latencies = append(d.latencies, now.Sub(c.started).Nanoseconds())
		}
		return
	}
	if c.status != "0" || len(c.output) < prefixSize {
		d.fail(fmt.Sprintf("status %s: %s", c.status, c.message))
		return
	}
	d.tally.calls++
	d.latencies = append(d.latencies, now.Sub(c.started).Nanoseconds())
	message := c.output[prefixSize:]
	switch d.s.mode {
	case "order-unary":
		d.countResult(message, orderInResponse, noField)
	case "order-batch":
		err := fieldsOf(message, func(field, _ uint64, bytes []byte) {
			if field == resultsInResponse {
				d.countResult(bytes, orderInResponse, errorInResult)
			}
		})
		if err != nil {
			d.fail(err.Error())
		}
	}
}

// countResult reads a message that holds an order in one field and an error in another.
func (d *driver) countResult(message []byte, orderField, errorField uint64) {
	err := fieldsOf(message, func(field, _ uint64, bytes []byte) {
		switch {
		case field == orderField:
			if err := d.countOrder(bytes); err != nil {
				d.fail(err.Error())
			}
		case field == errorField:
			d.fail(fmt.Sprintf("an order failed: %q", bytes))
		}
	})
	if err != nil {
		d.fail(err.Error())
	}
}

// readMessages settles every whole message of the stream and sends one new message for each.
func (d *driver) readMessages(c *call) error {
	now := time.Now()
	for len(c.output) >= prefixSize {
		size := int(binary.BigEndian.Uint32(c.output[1:prefixSize]))
		if len(c.output) < prefixSize+size {
			break
		}
		if err := d.settleMessage(c.output[prefixSize:prefixSize+size], now); err != nil {
			return err
		}
		c.output = c.output[prefixSize+size:]
	}
	if len(c.output) == 0 {
		c.output = nil
	}
	return d.push(c)
}

func (d *driver) settleMessage(message []byte, now time.Time) error {
	var correlation uint64
	err := fieldsOf(message, func(field, number uint64, bytes []byte) {
		if field == 1 && bytes == nil {
			correlation = number
		}
	})
	if err != nil {
		return err
	}
	started, known := d.sent[correlation]
	if !known {
		return fmt.Errorf("a result for correlation_id %d, which is not in flight: %q", correlation, message)
	}
	delete(d.sent, correlation)
	d.unsettled--
	if now.After(d.measureFrom) && now.Before(d.stopAt) {
		d.tally.calls++
		d.latencies = append(d.latencies, now.Sub(started).Nanoseconds())
		if d.s.mode == "order-stream" {
			d.countResult(message, orderInEntered, errorInEntered)
		}
	}
	if now.Before(d.stopAt) {
		d.sendMessage()
	}
	return nil
}

package main

import (
	"fmt"
	"math/rand"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

const (
	arrivalStep   = time.Millisecond
	graceAfterEnd = time.Second
)

// arrivals begin calls on one connection at a rate that does not depend on answers: Poisson, in steps of a millisecond. A call that has no
// answer within the patience is given up; one for which the server leaves no stream free is held back, and counts as offered all the same.
type arrivals struct {
	d        *driver
	mutex    sync.Mutex
	random   *rand.Rand
	mean     time.Duration
	next     time.Time
	patience time.Duration
	streams  int
	queue    []*call
	counts   *outcomes
	failed   error
}

// driveArrivals offers a share of the rate to one target until stopAt, and waits for the answers that are due by then.
func driveArrivals(s *settings, mode, target string, rate float64, seed int64, measureFrom, stopAt time.Time) (*outcomes, error) {
	d, err := newDriver(s, mode, target, 0, measureFrom, stopAt)
	if err != nil {
		return nil, err
	}
	a := &arrivals{
		d: d, random: rand.New(rand.NewSource(seed)), mean: time.Duration(float64(time.Second) / rate), next: time.Now(),
		patience: s.patience, streams: 100, counts: newOutcomes(),
	}
	d.settle = a.count
	d.streamsMax = func(value uint32) { a.streams = int(min(value, 1<<20)) }
	if err := d.greet(); err != nil {
		return nil, err
	}
	if err := d.writer.Flush(); err != nil {
		return nil, err
	}
	broken := make(chan error, 1)
	go func() { broken <- a.read() }()
	ticker := time.NewTicker(arrivalStep)
	defer ticker.Stop()
	defer d.socket.Close()
	for now := range ticker.C {
		if err := a.step(now); err != nil {
			return nil, err
		}
		select {
		case err := <-broken:
			return nil, err
		default:
		}
		if now.After(stopAt) && (a.idle() || now.After(stopAt.Add(a.patience+graceAfterEnd))) {
			break
		}
	}
	return a.counts, nil
}

func (a *arrivals) idle() bool {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return len(a.d.calls) == 0
}

// read handles frames as they come, until the connection is closed.
func (a *arrivals) read() error {
	d := a.d
	for {
		frame, err := d.framer.ReadFrame()
		if err != nil {
			return fmt.Errorf("reading from the service: %w", err)
		}
		a.mutex.Lock()
		err = d.handle(frame)
		if err == nil && d.reader.Buffered() == 0 {
			err = d.writer.Flush()
		}
		a.mutex.Unlock()
		if err != nil {
			return err
		}
	}
}

// step begins what is due and gives up what has waited too long.
func (a *arrivals) step(now time.Time) error {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	d := a.d
	for !a.next.After(now) && a.next.Before(d.stopAt) {
		due := a.next
		a.next = due.Add(time.Duration(a.random.ExpFloat64() * float64(a.mean)))
		if err := a.begin(due); err != nil {
			return err
		}
	}
	for len(a.queue) > 0 && now.Sub(a.queue[0].started) > a.patience {
		c := a.queue[0]
		a.queue = a.queue[1:]
		if d.calls[c.id] == nil {
			continue
		}
		delete(d.calls, c.id)
		if err := d.framer.WriteRSTStream(c.id, http2.ErrCodeCancel); err != nil {
			return err
		}
		c.status, c.message = "client deadline", ""
		a.count(c, now)
	}
	return d.writer.Flush()
}

func (a *arrivals) begin(due time.Time) error {
	measured := due.After(a.d.measureFrom)
	if len(a.d.calls) >= a.streams {
		a.counts.offer(measured, true)
		return nil
	}
	id := a.d.nextID
	began, err := a.d.startCommand()
	if err != nil || !began {
		return err
	}
	a.counts.offer(measured, false)
	// From when it was due: what a late generator adds is a caller's wait as well.
	c := a.d.calls[id]
	c.started = due
	a.queue = append(a.queue, c)
	return nil
}

func (a *arrivals) count(c *call, now time.Time) {
	answer := a.d.read(c)
	measured := c.started.After(a.d.measureFrom)
	a.counts.add(answer, now.Sub(c.started), measured)
	if answer.ok && !a.d.cancels {
		a.d.s.remember(answer.order)
	}
	if a.d.s.journal != nil && c.command != nil {
		a.d.s.journal.write(c.command, answer)
	}
}

package main

import (
	"fmt"
	"sync"
	"time"
)

// offered is the report of a run at a given rate.
type offered struct {
	Mode       string    `json:"mode"`
	Rate       float64   `json:"rate"`
	Orders     *outcomes `json:"orders"`
	Cancels    *outcomes `json:"cancels"`
	CPUSeconds float64   `json:"generator_cpu_seconds"`
}

// offer sends orders at the rate, spread over all targets, and cancels at theirs on one more connection to the first of them.
func offer(s *settings) (*offered, error) {
	if s.mode != "order-unary" && s.mode != "rest-h2" {
		return nil, fmt.Errorf("-rate goes with order-unary and rest-h2, not with %s", s.mode)
	}
	start := time.Now()
	measureFrom, stopAt := start.Add(s.warmup), start.Add(s.warmup+s.duration)
	found := &offered{Mode: s.mode, Rate: s.rate, Orders: newOutcomes(), Cancels: newOutcomes()}
	var mutex sync.Mutex
	var group sync.WaitGroup
	var failed error
	drive := func(mode, target string, rate float64, seed int64, into *outcomes) {
		defer group.Done()
		counted, err := driveArrivals(s, mode, target, rate, seed, measureFrom, stopAt)
		mutex.Lock()
		defer mutex.Unlock()
		if err != nil {
			failed = fmt.Errorf("%s: %w", target, err)
			return
		}
		into.join(counted)
	}
	for index, target := range s.targets {
		group.Add(1)
		go drive(s.mode, target, s.rate/float64(len(s.targets)), int64(index), found.Orders)
	}
	if s.cancelRate > 0 {
		group.Add(1)
		go drive("cancel", s.targets[0], s.cancelRate, -1, found.Cancels)
	}
	group.Wait()
	if failed != nil {
		return nil, failed
	}
	if s.journal != nil {
		if err := s.journal.close(); err != nil {
			return nil, err
		}
	}
	found.Orders.finish(s.duration.Seconds())
	found.Cancels.finish(s.duration.Seconds())
	found.CPUSeconds = cpuSeconds()
	return found, nil
}

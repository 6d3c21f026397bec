// Command generator drives a service over UNIX sockets or TLS, by gRPC or as JSON, and prints one JSON object with what it measured.
//
// It speaks HTTP/2 frames directly, so that it costs a few microseconds a call: the service under test is the bottleneck, not the generator.
// The same code drives the bare echo and the orders. Every order is a new one: its client_order_id is never repeated.
package main

import (
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

type settings struct {
	targets     []string
	mode        string
	concurrency int
	batch       int
	warmup      time.Duration
	duration    time.Duration
	headers     map[string]map[string]string
	authorities *x509.CertPool
	orders      *orderSource

	rate, cancelRate float64
	patience         time.Duration
	accepted         chan acknowledged
	journal          *journal
}

type report struct {
	Mode       string  `json:"mode"`
	Calls      int     `json:"calls"`
	Orders     int     `json:"orders"`
	Accepted   int     `json:"accepted"`
	Rejected   int     `json:"rejected"`
	Errors     int     `json:"errors"`
	FirstError string  `json:"first_error,omitempty"`
	Seconds    float64 `json:"seconds"`
	CallsRate  float64 `json:"calls_per_second"`
	OrdersRate float64 `json:"orders_per_second"`
	P50Micros  float64 `json:"p50_us"`
	P99Micros  float64 `json:"p99_us"`
	CPUSeconds float64 `json:"generator_cpu_seconds"`
}

func main() {
	log.SetFlags(0)
	settings, err := parseFlags()
	if err != nil {
		log.Fatalf("generator: %v", err)
	}
	result, err := measured(settings)
	if err != nil {
		log.Fatalf("generator: %v", err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		log.Fatalf("generator: %v", err)
	}
}

func parseFlags() (*settings, error) {
	targets := flag.String("targets", "", "comma-separated UNIX socket paths or tls:host:port; connections are spread over them")
	mode := flag.String("mode", "order-unary", "echo-unary, echo-stream, order-unary, order-stream, order-batch, rest-h2 or rest-h1")
	concurrency := flag.Int("concurrency", 64, "calls (or stream messages) in flight over all targets")
	batch := flag.Int("batch", 100, "orders in one call of order-batch")
	warmup := flag.Duration("warmup", time.Second, "not measured")
	duration := flag.Duration("duration", 5*time.Second, "measured")
	headers := flag.String("headers", "", "JSON file: {target: {header: value}}")
	authority := flag.String("ca", "", "PEM file of the authority that signs the certificates of TLS targets")
	run := flag.String("run", "", "prefix of every client_order_id, unique to this run")
	accounts := flag.String("accounts", "", "comma-separated accounts")
	instruments := flag.String("instruments", "", "comma-separated instrument:price:tick")
	rate := flag.Float64("rate", 0, "calls a second over all targets, whatever comes back (order-unary, rest-h2); 0 keeps -concurrency in flight")
	cancelRate := flag.Float64("cancel-rate", 0, "with -rate: cancels a second of orders that were accepted, on a connection of their own")
	patience := flag.Duration("patience", 5*time.Second, "the deadline of a call")
	journal := flag.String("journal", "", "with -rate: a file that gets a line for each gRPC call that has ended")
	flag.Parse()
	if *targets == "" || *run == "" || *accounts == "" || *instruments == "" {
		return nil, fmt.Errorf("-targets, -run, -accounts and -instruments are required")
	}
	parsed := &settings{
		targets: strings.Split(*targets, ","), mode: *mode, concurrency: *concurrency, batch: *batch,
		warmup: *warmup, duration: *duration, headers: map[string]map[string]string{},
		rate: *rate, cancelRate: *cancelRate, patience: *patience, accepted: make(chan acknowledged, resting),
	}
	if *journal != "" {
		opened, err := newJournal(*journal)
		if err != nil {
			return nil, err
		}
		parsed.journal = opened
	}
	if *headers != "" {
		text, err := os.ReadFile(*headers)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, &parsed.headers); err != nil {
			return nil, fmt.Errorf("%s: %w", *headers, err)
		}
	}
	if *authority != "" {
		text, err := os.ReadFile(*authority)
		if err != nil {
			return nil, err
		}
		parsed.authorities = x509.NewCertPool()
		if !parsed.authorities.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate", *authority)
		}
	}
	source, err := newOrderSource(*run, strings.Split(*accounts, ","), strings.Split(*instruments, ","))
	if err != nil {
		return nil, err
	}
	parsed.orders = source
	return parsed, nil
}

func measured(s *settings) (any, error) {
	if s.rate > 0 {
		return offer(s)
	}
	return run(s)
}

func run(s *settings) (*report, error) {
	start := time.Now()
	measureFrom, stopAt := start.Add(s.warmup), start.Add(s.warmup+s.duration)
	results := make([]*tally, len(s.targets))
	errors := make([]error, len(s.targets))
	var group sync.WaitGroup
	for index, target := range s.targets {
		group.Add(1)
		go func() {
			defer group.Done()
			share := s.concurrency / len(s.targets)
			counted, err := drive(s, target, max(share, 1), measureFrom, stopAt)
			if err != nil {
				errors[index] = fmt.Errorf("%s: %w", target, err)
				return
			}
			results[index] = counted
		}()
	}
	group.Wait()
	for _, err := range errors {
		if err != nil {
			return nil, err
		}
	}
	return summarise(s, results), nil
}

func drive(s *settings, target string, share int, measureFrom, stopAt time.Time) (*tally, error) {
	if s.mode == "rest-h1" {
		return driveConnections(s, target, share, measureFrom, stopAt)
	}
	driver, err := newDriver(s, s.mode, target, share, measureFrom, stopAt)
	if err != nil {
		return nil, err
	}
	return &driver.tally, driver.run()
}

func summarise(s *settings, results []*tally) *report {
	total := &report{Mode: s.mode, Seconds: s.duration.Seconds()}
	var latencies []int64
	for _, t := range results {
		total.Calls += t.calls
		total.Accepted += t.accepted
		total.Rejected += t.rejected
		total.Errors += t.errors
		if total.FirstError == "" {
			total.FirstError = t.firstError
		}
		latencies = append(latencies, t.latencies...)
	}
	total.Orders = total.Accepted + total.Rejected
	total.CallsRate = float64(total.Calls) / total.Seconds
	total.OrdersRate = float64(total.Orders) / total.Seconds
	if len(latencies) > 0 {
		sort.Slice(latencies, func(i, j int) bool { return latencies[i] < latencies[j] })
		total.P50Micros = float64(latencies[len(latencies)/2]) / 1e3
		total.P99Micros = float64(latencies[len(latencies)*99/100]) / 1e3
	}
	total.CPUSeconds = cpuSeconds()
	return total
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

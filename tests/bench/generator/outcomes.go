package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"time"
)

const (
	statusOK        = "0"
	statusExhausted = "8"
	httpTooMany     = "429"
	detailsHeader   = "grpc-status-details-bin"
)

var retryInfo = []byte("google.rpc.RetryInfo")

// answer is what came back of one call: a gRPC status (an HTTP one of JSON calls), and of an order that was answered, the order.
type answer struct {
	status, message string
	order           []byte
	ok, shed        bool
	retryInfo       bool
}

// read makes an answer of a call that has ended.
func (d *driver) read(c *call) answer {
	found := answer{status: c.status, message: c.message}
	if d.json {
		if c.httpStatus != "" {
			found.status = "http " + c.httpStatus
		}
		found.ok, found.shed = c.httpStatus == "200", c.httpStatus == httpTooMany
		found.retryInfo = bytes.Contains(c.output, retryInfo) && c.retryAfter
		return found
	}
	found.ok, found.shed = c.status == statusOK && len(c.output) >= prefixSize, c.status == statusExhausted
	found.retryInfo = bytes.Contains(c.details, retryInfo)
	if found.ok {
		// Every answer to a command has its order in the first field.
		_ = fieldsOf(c.output[prefixSize:], func(field, _ uint64, value []byte) {
			if field == orderInResponse {
				found.order = value
			}
		})
	}
	return found
}

func detailsOf(value string) []byte {
	decoded, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
	if err != nil {
		return nil
	}
	return decoded
}

// outcomes count what was offered and what came of it after the warm-up.
type outcomes struct {
	Offered     int            `json:"offered"`
	HeldBack    int            `json:"held_back"`
	OK          int            `json:"ok"`
	Shed        int            `json:"shed"`
	ShedHinted  int            `json:"shed_with_retry_info"`
	Others      map[string]int `json:"others"`
	Seconds     float64        `json:"seconds"`
	P50Micros   float64        `json:"p50_us"`
	P99Micros   float64        `json:"p99_us"`
	ShedP50     float64        `json:"shed_p50_us"`
	ShedP99     float64        `json:"shed_p99_us"`
	latencies   []int64
	shedLatency []int64
}

func newOutcomes() *outcomes {
	return &outcomes{Others: map[string]int{}}
}

func (o *outcomes) offer(measured, heldBack bool) {
	if !measured {
		return
	}
	o.Offered++
	if heldBack {
		o.HeldBack++
	}
}

func (o *outcomes) add(a answer, took time.Duration, measured bool) {
	switch {
	case !measured:
	case a.ok:
		o.OK++
		o.latencies = append(o.latencies, took.Nanoseconds())
	case a.shed:
		o.Shed++
		if a.retryInfo {
			o.ShedHinted++
		}
		o.shedLatency = append(o.shedLatency, took.Nanoseconds())
	default:
		o.Others[fmt.Sprintf("%s %.80s", a.status, a.message)]++
	}
}

func (o *outcomes) join(other *outcomes) {
	o.Offered += other.Offered
	o.HeldBack += other.HeldBack
	o.OK += other.OK
	o.Shed += other.Shed
	o.ShedHinted += other.ShedHinted
	for key, count := range other.Others {
		o.Others[key] += count
	}
	o.latencies = append(o.latencies, other.latencies...)
	o.shedLatency = append(o.shedLatency, other.shedLatency...)
}

func (o *outcomes) finish(seconds float64) {
	o.Seconds = seconds
	o.P50Micros, o.P99Micros = quantiles(o.latencies)
	o.ShedP50, o.ShedP99 = quantiles(o.shedLatency)
}

func quantiles(nanoseconds []int64) (float64, float64) {
	if len(nanoseconds) == 0 {
		return 0, 0
	}
	sort.Slice(nanoseconds, func(i, j int) bool { return nanoseconds[i] < nanoseconds[j] })
	return float64(nanoseconds[len(nanoseconds)/2]) / 1e3, float64(nanoseconds[len(nanoseconds)*99/100]) / 1e3
}

// journal is a file with one line for each call that has ended: kind, status, message, request and order in hexadecimal, with tabs between.
type journal struct {
	mutex  sync.Mutex
	file   *os.File
	writer *bufio.Writer
}

func newJournal(path string) (*journal, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &journal{file: file, writer: bufio.NewWriterSize(file, 1<<20)}, nil
}

func (j *journal) write(sent *command, got answer) {
	message := strings.NewReplacer("\t", " ", "\n", " ").Replace(got.message)
	j.mutex.Lock()
	defer j.mutex.Unlock()
	fmt.Fprintf(j.writer, "%s\t%s\t%s\t%s\t%s\n", sent.kind, got.status, message, hex.EncodeToString(sent.request), hex.EncodeToString(got.order))
}

func (j *journal) close() error {
	if err := j.writer.Flush(); err != nil {
		return err
	}
	return j.file.Close()
}

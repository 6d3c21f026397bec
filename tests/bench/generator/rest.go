package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// settleJSON counts the answer to an order that was posted as JSON; false where it was an error.
func (t *tally) settleJSON(status string, body []byte) bool {
	if status != "200" {
		t.fail(fmt.Sprintf("status %s: %.300s", status, body))
		return false
	}
	var answer struct {
		Order struct{ State string }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.fail(err.Error())
		return false
	}
	switch answer.Order.State {
	case "ORDER_STATE_PENDING_NEW":
		t.accepted++
	case "ORDER_STATE_REJECTED":
		t.rejected++
	default:
		t.fail(fmt.Sprintf("an order came back in state %q", answer.Order.State))
		return false
	}
	t.calls++
	return true
}

// driveConnections keeps one HTTP/1.1 request in flight on each of share connections to one target.
func driveConnections(s *settings, target string, share int, measureFrom, stopAt time.Time) (*tally, error) {
	counted := make([]tally, share)
	failures := make([]error, share)
	var group sync.WaitGroup
	for index := range share {
		group.Add(1)
		go func() {
			defer group.Done()
			failures[index] = counted[index].post(s, target, measureFrom, stopAt)
		}()
	}
	group.Wait()
	total := &tally{}
	for index := range counted {
		if failures[index] != nil {
			return nil, failures[index]
		}
		total.add(&counted[index])
	}
	return total, nil
}

func (t *tally) add(other *tally) {
	t.calls += other.calls
	t.accepted += other.accepted
	t.rejected += other.rejected
	t.errors += other.errors
	if t.firstError == "" {
		t.firstError = other.firstError
	}
	t.latencies = append(t.latencies, other.latencies...)
}

func (t *tally) post(s *settings, target string, measureFrom, stopAt time.Time) error {
	connection, err := dial(s, target, "http/1.1")
	if err != nil {
		return err
	}
	defer connection.Close()
	reader, fixed := bufio.NewReader(connection), fixedLines(s, target)
	var request bytes.Buffer
	for time.Now().Before(stopAt) {
		path, body := s.orders.appendJSON(nil)
		request.Reset()
		request.WriteString("POST " + path + " HTTP/1.1\r\n" + fixed + "content-length: " + strconv.Itoa(len(body)) + "\r\n\r\n")
		request.Write(body)
		started := time.Now()
		if _, err := connection.Write(request.Bytes()); err != nil {
			return err
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return fmt.Errorf("reading from the service: %w", err)
		}
		answer, err := io.ReadAll(response.Body)
		if err != nil {
			return fmt.Errorf("reading from the service: %w", err)
		}
		now := time.Now()
		if now.After(measureFrom) && now.Before(stopAt) && t.settleJSON(strconv.Itoa(response.StatusCode), answer) {
			t.latencies = append(t.latencies, now.Sub(started).Nanoseconds())
		}
	}
	return nil
}

func fixedLines(s *settings, target string) string {
	lines := []string{"content-type: application/json\r\n"}
	host := strings.TrimPrefix(target, tlsPrefix)
	for name, value := range s.headers[target] {
		if name == ":authority" {
			host = value
			continue
		}
		lines = append(lines, name+": "+value+"\r\n")
	}
	sort.Strings(lines)
	return "host: " + host + "\r\n" + strings.Join(lines, "")
}

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	window        = 1 << 30
	windowRefresh = 1 << 24
	frameSizeMax  = 16384
	prefixSize    = 5
)

var paths = map[string]string{
	"echo-unary":   "/trademesh.bench.Echo/Unary",
	"echo-stream":  "/trademesh.bench.Echo/Stream",
	"order-unary":  "/trademesh.oms.v1.OrderService/CreateOrder",
	"order-stream": "/trademesh.oms.v1.OrderService/EnterOrders",
	"order-batch":  "/trademesh.oms.v1.OrderService/BatchCreateOrders",
	"cancel":       "/trademesh.oms.v1.OrderService/CancelOrder",
	"rest-h2":      "",
}

// tally is what one connection counted after the warm-up.
type tally struct {
	calls, accepted, rejected, errors int
	firstError                        string
	latencies                         []int64
}

func (t *tally) fail(text string) {
	t.errors++
	if t.firstError == "" {
		t.firstError = text
	}
}

type call struct {
	id         uint32
	started    time.Time
	window     int64
	input      []byte
	output     []byte
	status     string
	httpStatus string
	message    string
	details    []byte
	retryAfter bool
	command    *command
	done       bool
}

// driver keeps a fixed number of calls, or of messages on one bidirectional stream, in flight on one connection. One goroutine reads, and
// answers every result with the next request; what it wrote is flushed when nothing more waits to be read.
type driver struct {
	tally
	s           *settings
	target      string
	share       int
	measureFrom time.Time
	stopAt      time.Time
	streaming   bool
	json        bool
	cancels     bool
	// Where calls arrive by themselves: takes every call that has ended, and hears how many streams the server allows.
	settle     func(*call, time.Time)
	streamsMax func(uint32)

	socket    net.Conn
	writer    *bufio.Writer
	reader    *bufio.Reader
	framer    *http2.Framer
	block     bytes.Buffer
	encoder   *hpack.Encoder
	headers   []hpack.HeaderField
	calls     map[uint32]*call
	nextID    uint32
	conn      int64
	initial   int64
	consumed  uint32
	blocked   []*call
	sent      map[uint64]time.Time
	nextSent  uint64
	stream    *call
	unsettled int
}

func newDriver(s *settings, mode, target string, share int, measureFrom, stopAt time.Time) (*driver, error) {
	path, known := paths[mode]
	if !known {
		return nil, fmt.Errorf("no mode %q", mode)
	}
	socket, err := dial(s, target, "h2")
	if err != nil {
		return nil, err
	}
	d := &driver{
		s: s, target: target, share: share, measureFrom: measureFrom, stopAt: stopAt,
		streaming: mode == "echo-stream" || mode == "order-stream", json: mode == "rest-h2", cancels: mode == "cancel",
		socket: socket, writer: bufio.NewWriterSize(socket, 1<<18), reader: bufio.NewReaderSize(socket, 1<<18),
		calls: map[uint32]*call{}, nextID: 1, conn: 65535, initial: 65535, sent: map[uint64]time.Time{},
	}
	d.framer = http2.NewFramer(d.writer, d.reader)
	d.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	d.framer.SetReuseFrames()
	d.encoder = hpack.NewEncoder(&d.block)
	d.headers = d.fixedHeaders(path)
	return d, nil
}

// fixedHeaders are those of every call. Pseudo-header fields come first (RFC 9113 §8.3); a target's own headers may set the authority.
func (d *driver) fixedHeaders(path string) []hpack.HeaderField {
	own := d.s.headers[d.target]
	scheme, authority := "http", "localhost"
	if isTLS(d.target) {
		scheme, authority = "https", strings.TrimPrefix(d.target, tlsPrefix)
	}
	if named, present := own[":authority"]; present {
		authority = named
	}
	fields := []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: scheme}, {Name: ":authority", Value: authority},
	}
	if d.json {
		fields = append(fields, hpack.HeaderField{Name: ":path"}, hpack.HeaderField{Name: "content-type", Value: "application/json"})
	} else {
		fields = append(fields, hpack.HeaderField{Name: ":path", Value: path},
			hpack.HeaderField{Name: "te", Value: "trailers"}, hpack.HeaderField{Name: "content-type", Value: "application/grpc"})
		if !d.streaming {
			fields = append(fields, hpack.HeaderField{Name: "grpc-timeout", Value: fmt.Sprintf("%dm", d.s.patience.Milliseconds())})
		}
	}
	for name, value := range own {
		if name != ":authority" {
			fields = append(fields, hpack.HeaderField{Name: name, Value: value})
		}
	}
	return fields
}

// greet begins the connection, with windows that never hold an answer back.
func (d *driver) greet() error {
	if _, err := d.writer.WriteString(http2.ClientPreface); err != nil {
		return err
	}
	if err := d.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}); err != nil {
		return err
	}
	return d.framer.WriteWindowUpdate(0, window)
}

func (d *driver) run() error {
	if err := d.greet(); err != nil {
		return err
	}
	if err := d.begin(); err != nil {
		return err
	}
	for d.inFlight() > 0 {
		if d.reader.Buffered() == 0 {
			if err := d.writer.Flush(); err != nil {
				return err
			}
		}
		frame, err := d.framer.ReadFrame()
		if err != nil {
			return fmt.Errorf("reading from the service: %w", err)
		}
		if err := d.handle(frame); err != nil {
			return err
		}
	}
	return nil
}

func (d *driver) begin() error {
	if !d.streaming {
		for range d.share {
			if err := d.startUnary(); err != nil {
				return err
			}
		}
		return nil
	}
	if err := d.open(""); err != nil {
		return err
	}
	d.stream = d.calls[1]
	for range d.share {
		d.sendMessage()
	}
	return d.push(d.stream)
}

func (d *driver) inFlight() int {
	if d.streaming {
		return d.unsettled
	}
	return len(d.calls)
}

// open begins a call; a path replaces the fixed one.
func (d *driver) open(path string) error {
	d.block.Reset()
	for _, field := range d.headers {
		if field.Name == ":path" && path != "" {
			field.Value = path
		}
		if err := d.encoder.WriteField(field); err != nil {
			return err
		}
	}
	id := d.nextID
	d.nextID += 2
	d.calls[id] = &call{id: id, started: time.Now(), window: d.initial}
	return d.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: d.block.Bytes(), EndHeaders: true})
}

func (d *driver) startUnary() error {
	id, path := d.nextID, ""
	var input []byte
	switch {
	case d.json:
		path, input = d.s.orders.appendJSON(nil)
	case d.s.mode == "order-batch":
		var message []byte
		for range d.s.batch {
			message = appendMessage(message, 1, d.s.orders.appendOrder(nil))
		}
		input = appendPrefixed(nil, message)
	default:
		input = appendPrefixed(nil, d.s.orders.appendOrder(nil))
	}
	return d.send(id, path, input)
}

// startCommand begins one call that is written into the journal; false where there is nothing to ask for.
func (d *driver) startCommand() (bool, error) {
	id := d.nextID
	if d.json {
		path, input := d.s.orders.appendJSON(nil)
		return true, d.send(id, path, input)
	}
	sent := &command{kind: d.s.mode}
	if d.cancels {
		found, any := d.s.appendCancel(nil)
		if !any {
			return false, nil
		}
		sent.kind, sent.request = "cancel", found
	} else {
		sent.request = d.s.orders.appendOrder(nil)
	}
	if err := d.send(id, "", appendPrefixed(nil, sent.request)); err != nil {
		return false, err
	}
	d.calls[id].command = sent
	return true, nil
}

func (d *driver) send(id uint32, path string, input []byte) error {
	if err := d.open(path); err != nil {
		return err
	}
	c := d.calls[id]
	c.done, c.input = true, input
	return d.push(c)
}

func (d *driver) sendMessage() {
	d.nextSent++
	message := binary.AppendUvarint([]byte{1 << 3}, d.nextSent)
	message = appendMessage(message, 2, d.s.orders.appendOrder(nil))
	d.sent[d.nextSent] = time.Now()
	d.stream.input = appendPrefixed(d.stream.input, message)
	d.unsettled++
}

func appendPrefixed(out, message []byte) []byte {
	out = append(out, 0)
	out = binary.BigEndian.AppendUint32(out, uint32(len(message)))
	return append(out, message...)
}

// push writes as much of the call's input as both flow-control windows allow; the rest waits for WINDOW_UPDATE.
func (d *driver) push(c *call) error {
	for len(c.input) > 0 {
		size := min(int64(len(c.input)), c.window, d.conn, frameSizeMax)
		if size <= 0 {
			d.blocked = append(d.blocked, c)
			return nil
		}
		end := c.done && int(size) == len(c.input)
		if err := d.framer.WriteData(c.id, end, c.input[:size]); err != nil {
			return err
		}
		c.input = c.input[size:]
		c.window -= size
		d.conn -= size
	}
	return nil
}

func (d *driver) handle(frame http2.Frame) error {
	switch f := frame.(type) {
	case *http2.DataFrame:
		return d.handleData(f)
	case *http2.MetaHeadersFrame:
		return d.handleHeaders(f)
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			d.conn += int64(f.Increment)
		} else if c := d.calls[f.StreamID]; c != nil {
			c.window += int64(f.Increment)
		}
		return d.unblock()
	case *http2.SettingsFrame:
		return d.handleSettings(f)
	case *http2.PingFrame:
		if f.IsAck() {
			return nil
		}
		return d.framer.WritePing(true, f.Data)
	case *http2.RSTStreamFrame:
		if c := d.calls[f.StreamID]; c != nil {
			c.status, c.message = "RST_STREAM", f.ErrCode.String()
			return d.finish(c)
		}
	case *http2.GoAwayFrame:
		if d.settle != nil && f.ErrCode == http2.ErrCodeNo {
			return nil
		}
		return fmt.Errorf("the service sent GOAWAY (%s)", f.ErrCode)
	}
	return nil
}

func (d *driver) handleSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if value, present := f.Value(http2.SettingMaxConcurrentStreams); present && d.streamsMax != nil {
		d.streamsMax(value)
	}
	if value, present := f.Value(http2.SettingInitialWindowSize); present {
		change := int64(value) - d.initial
		d.initial = int64(value)
		for _, c := range d.calls {
			c.window += change
		}
	}
	if err := d.framer.WriteSettingsAck(); err != nil {
		return err
	}
	return d.unblock()
}

func (d *driver) unblock() error {
	waiting := d.blocked
	d.blocked = nil
	for _, c := range waiting {
		if err := d.push(c); err != nil {
			return err
		}
	}
	return nil
}

func (d *driver) handleData(f *http2.DataFrame) error {
	size := uint32(len(f.Data()))
	d.consumed += size
	if d.consumed > windowRefresh {
		if err := d.framer.WriteWindowUpdate(0, d.consumed); err != nil {
			return err
		}
		if d.streaming {
			if err := d.framer.WriteWindowUpdate(d.stream.id, d.consumed); err != nil {
				return err
			}
		}
		d.consumed = 0
	}
	c := d.calls[f.StreamID]
	if c == nil {
		return nil
	}
	c.output = append(c.output, f.Data()...)
	if d.streaming {
		return d.readMessages(c)
	}
	if f.StreamEnded() {
		// A JSON answer has no trailers.
		return d.finish(c)
	}
	return nil
}

func (d *driver) handleHeaders(f *http2.MetaHeadersFrame) error {
	c := d.calls[f.StreamID]
	if c == nil {
		return nil
	}
	for _, field := range f.Fields {
		switch field.Name {
		case "grpc-status":
			c.status = field.Value
		case ":status":
			c.httpStatus = field.Value
		case "grpc-message":
			c.message = field.Value
		case detailsHeader:
			if d.settle != nil {
				c.details = detailsOf(field.Value)
			}
		case "retry-after":
			c.retryAfter = true
		}
	}
	if f.StreamEnded() {
		return d.finish(c)
	}
	return nil
}

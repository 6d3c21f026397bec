package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"trademesh/clients/trademesh"

	omsv1 "trademesh/clients/build/trademesh/oms/v1"
)

const (
	replayedHeader = "idempotency-replayed"
	callTimeout    = 30 * time.Second
	withinDefault  = 15 * time.Second
	repeatPause    = 20 * time.Millisecond
	pagesMax       = 100
)

// step is one row's step; which fields count depends on the verb.
type step struct {
	Verb      string          `json:"verb"`
	Method    string          `json:"method"`
	User      string          `json:"user"`
	Door      string          `json:"door"`
	Stream    string          `json:"stream"`
	Request   json.RawMessage `json:"request"`
	TimeoutMs int             `json:"timeout_ms"`
	WithinMs  int             `json:"within_ms"`
	Until     map[string]any  `json:"until"`
	Save      string          `json:"save"`
}

func (s step) within() time.Duration {
	if s.WithinMs == 0 {
		return withinDefault
	}
	return time.Duration(s.WithinMs) * time.Millisecond
}

// stage is one scenario under way.
type stage struct {
	*runner
	saved   map[string]any
	streams map[string]*trademesh.Subscription
}

type unary func(ctx context.Context, orders omsv1.OrderServiceClient, request []byte, header *metadata.MD) (proto.Message, error)

var methods = map[string]unary{
	"CreateOrder":     method(omsv1.OrderServiceClient.CreateOrder),
	"GetOrder":        method(omsv1.OrderServiceClient.GetOrder),
	"LookupOrder":     method(omsv1.OrderServiceClient.LookupOrder),
	"ListOrders":      method(omsv1.OrderServiceClient.ListOrders),
	"ReplaceOrder":    method(omsv1.OrderServiceClient.ReplaceOrder),
	"CancelOrder":     method(omsv1.OrderServiceClient.CancelOrder),
	"CancelAllOrders": method(omsv1.OrderServiceClient.CancelAllOrders),
	"ListExecutions":  method(omsv1.OrderServiceClient.ListExecutions),
}

func method[Q any, A proto.Message, P interface {
	*Q
	proto.Message
}](call func(omsv1.OrderServiceClient, context.Context, P, ...grpc.CallOption) (A, error)) unary {
	return func(ctx context.Context, orders omsv1.OrderServiceClient, text []byte, header *metadata.MD) (proto.Message, error) {
		request := P(new(Q))
		if err := protojson.Unmarshal(text, request); err != nil {
			return nil, fmt.Errorf("%w: %w", errTable, err)
		}
		return call(orders, ctx, request, grpc.Header(header))
	}
}

type verb func(s *stage, ctx context.Context, step step) (map[string]any, error)

var verbs = map[string]verb{
	"call": (*stage).call, "place": (*stage).place, "pages": (*stage).pages, "read": (*stage).read, "break": (*stage).cut, "follow": (*stage).follow,
}

func (s *stage) perform(ctx context.Context, step step) (map[string]any, error) {
	perform, present := verbs[step.Verb]
	if !present {
		return nil, fmt.Errorf("%w: no verb %q", errTable, step.Verb)
	}
	text, err := s.fill(step.Request)
	if err != nil {
		return nil, err
	}
	step.Request = text
	seen, err := perform(s, ctx, step)
	if err == nil && step.Save != "" {
		s.saved[step.Save] = seen
	}
	return seen, err
}

func (s *stage) orders(step step) (omsv1.OrderServiceClient, error) {
	connection, err := s.connection(step.User, step.Door)
	if err != nil {
		return nil, err
	}
	return omsv1.NewOrderServiceClient(connection), nil
}

// call makes one call, or the same until its answer is as the table wants it.
func (s *stage) call(ctx context.Context, step step) (map[string]any, error) {
	orders, err := s.orders(step)
	if err != nil {
		return nil, err
	}
	perform, present := methods[step.Method]
	if !present {
		return nil, fmt.Errorf("%w: no method %q", errTable, step.Method)
	}
	ctx, cancel := context.WithTimeout(ctx, step.within())
	defer cancel()
	for {
		seen, err := once(ctx, orders, perform, step)
		if err != nil || len(step.Until) == 0 || matches(seen, step.Until) {
			return seen, err
		}
		select {
		case <-ctx.Done():
			return seen, nil
		case <-time.After(repeatPause):
		}
	}
}

func once(ctx context.Context, orders omsv1.OrderServiceClient, perform unary, step step) (map[string]any, error) {
	timeout := callTimeout
	if step.TimeoutMs > 0 {
		timeout = time.Duration(step.TimeoutMs) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var header metadata.MD
	answer, err := perform(ctx, orders, step.Request, &header)
	if err != nil {
		return refusal(err)
	}
	response, err := plain(answer)
	if err != nil {
		return nil, err
	}
	replayed := len(header.Get(replayedHeader)) == 1 && header.Get(replayedHeader)[0] == "true"
	return map[string]any{"code": codeName(codes.OK), "replayed": replayed, "response": response}, nil
}

// asked returns whom a step calls, and reads its request.
func (s *stage) asked(step step, request proto.Message) (omsv1.OrderServiceClient, error) {
	orders, err := s.orders(step)
	if err != nil {
		return nil, err
	}
	if err := protojson.Unmarshal(step.Request, request); err != nil {
		return nil, fmt.Errorf("%w: %w", errTable, err)
	}
	return orders, nil
}

// place sends an order the way a program should: until its outcome is known.
func (s *stage) place(ctx context.Context, step step) (map[string]any, error) {
	request := &omsv1.CreateOrderRequest{}
	orders, err := s.asked(step, request)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, step.within())
	defer cancel()
	order, err := trademesh.Place(ctx, orders, request)
	if err != nil {
		seen, wrong := refusal(err)
		if wrong == nil {
			seen["open"] = errors.Is(err, trademesh.ErrOutcomeOpen)
		}
		return seen, wrong
	}
	shown, err := plain(order)
	return map[string]any{"code": codeName(codes.OK), "response": map[string]any{"order": shown}}, err
}

// pages walks a list to its end.
func (s *stage) pages(ctx context.Context, step step) (map[string]any, error) {
	request := &omsv1.ListOrdersRequest{}
	orders, err := s.asked(step, request)
	if err != nil {
		return nil, err
	}
	sizes, keys := []int{}, []string{}
	for len(sizes) < pagesMax {
		page, err := orders.ListOrders(ctx, request)
		if err != nil {
			return refusal(err)
		}
		sizes = append(sizes, len(page.Orders))
		for _, order := range page.Orders {
			keys = append(keys, order.ClientOrderId)
		}
		if page.NextPageToken == "" {
			break
		}
		request.PageToken = page.NextPageToken
	}
	return map[string]any{"code": codeName(codes.OK), "sizes": sizes, "client_order_ids": keys}, nil
}

// read takes messages of a stream until one is as the table wants it, opening or resuming the stream where it is not open.
func (s *stage) read(ctx context.Context, step step) (map[string]any, error) {
	if s.streams[step.Stream] == nil {
		request := &omsv1.StreamOrderEventsRequest{}
		orders, err := s.asked(step, request)
		if err != nil {
			return nil, err
		}
		s.streams[step.Stream] = trademesh.Subscribe(orders, request)
	}
	messages := []map[string]any{}
	for {
		message, err := s.streams[step.Stream].Next(ctx)
		if err != nil {
			seen, err := refusal(err)
			if err == nil {
				seen["messages"] = messages
			}
			return seen, err
		}
		shown := brief(message)
		messages = append(messages, shown)
		if matches(shown, step.Until) {
			return map[string]any{"code": codeName(codes.OK), "messages": messages}, nil
		}
	}
}

// follow takes what Follow hands on, over all connections, until a message is as the table wants it.
func (s *stage) follow(ctx context.Context, step step) (map[string]any, error) {
	request := &omsv1.StreamOrderEventsRequest{}
	orders, err := s.asked(step, request)
	if err != nil {
		return nil, err
	}
	messages := []map[string]any{}
	err = trademesh.Follow(ctx, orders, request, func(message *omsv1.StreamOrderEventsResponse) error {
		shown := brief(message)
		messages = append(messages, shown)
		if matches(shown, step.Until) {
			return errFound
		}
		return nil
	})
	if err == nil {
		return nil, errors.New("the stream ended")
	}
	if !errors.Is(err, errFound) {
		return refusal(err)
	}
	return map[string]any{"code": codeName(codes.OK), "messages": messages}, nil
}

// cut ends a stream's call, as a client does that goes away.
func (s *stage) cut(_ context.Context, step step) (map[string]any, error) {
	s.streams[step.Stream].Close()
	return map[string]any{}, nil
}

func (s *stage) close() {
	for _, stream := range s.streams {
		stream.Close()
	}
}

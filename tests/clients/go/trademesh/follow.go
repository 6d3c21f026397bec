package trademesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	omsv1 "trademesh/clients/build/trademesh/oms/v1"
)

const (
	heartbeatDefault  = 5 * time.Second
	heartbeatsMissing = 3
	tokenExpired      = "TOKEN_EXPIRED"
)

var (
	errGap     = errors.New("the stream has a gap")
	errHandled = errors.New("the handler ended the stream")
)

// Subscription is one view of an account's orders that outlives its connections. Not safe for concurrent use.
type Subscription struct {
	orders   omsv1.OrderServiceClient
	request  *omsv1.StreamOrderEventsRequest
	stream   omsv1.OrderService_StreamOrderEventsClient
	cancel   context.CancelFunc
	watchdog *time.Timer
	silence  time.Duration
	sequence uint64
}

// Subscribe prepares a subscription; the first Next opens it.
func Subscribe(orders omsv1.OrderServiceClient, request *omsv1.StreamOrderEventsRequest) *Subscription {
	heartbeat := heartbeatDefault
	if request.HeartbeatInterval != nil {
		heartbeat = request.HeartbeatInterval.AsDuration()
	}
	own := proto.Clone(request).(*omsv1.StreamOrderEventsRequest)
	return &Subscription{orders: orders, request: own, silence: heartbeatsMissing * heartbeat}
}

// Next returns the next message, each sequence once. After an error the next call goes on behind the last message that was returned.
func (s *Subscription) Next(ctx context.Context) (*omsv1.StreamOrderEventsResponse, error) {
	if s.stream == nil {
		if err := s.open(ctx); err != nil {
			return nil, err
		}
	}
	for {
		message, err := s.receive()
		if err != nil {
			s.Close()
			return nil, err
		}
		if message != nil {
			return message, nil
		}
	}
}

// Close ends the connection's stream; Next opens another one, which goes on where this one ended.
func (s *Subscription) Close() {
	if s.stream != nil {
		s.watchdog.Stop()
		s.cancel()
		s.stream = nil
	}
}

func (s *Subscription) open(ctx context.Context) error {
	ctx, s.cancel = context.WithCancel(ctx)
	stream, err := s.orders.StreamOrderEvents(ctx, s.request)
	if err != nil {
		s.cancel()
		return err
	}
	// A peer that is gone may leave a connection that stays silent for minutes; a live one sends heartbeats.
	s.watchdog = time.AfterFunc(s.silence, s.cancel)
	s.stream = stream
	return nil
}

// receive returns nil for a message that was seen before, which at-least-once delivery allows after a resume.
func (s *Subscription) receive() (*omsv1.StreamOrderEventsResponse, error) {
	message, err := s.stream.Recv()
	if errors.Is(err, io.EOF) {
		return nil, status.Error(codes.Unavailable, "the stream was cut: it ended without its last message")
	}
	if err != nil {
		return nil, err
	}
	s.watchdog.Reset(s.silence)
	if beat := message.GetHeartbeat(); beat != nil {
		if beat.LastSequence > s.sequence {
			return nil, fmt.Errorf("%w: %d was sent, %d has come", errGap, beat.LastSequence, s.sequence)
		}
		return message, nil
	}
	if message.Sequence <= s.sequence {
		return nil, nil
	}
	if message.Sequence > s.sequence+1 {
		return nil, fmt.Errorf("%w: %d came after %d", errGap, message.Sequence, s.sequence)
	}
	s.sequence = message.Sequence
	if message.ResumeToken != "" {
		s.request.ResumeToken = message.ResumeToken
	}
	return message, nil
}

// Follow hands every message but heartbeats to handle, in order, and resumes the stream when it breaks. Each change of an order comes once:
// what a snapshot has shown may come again where the stream is resumed right behind it, and is left out.
//
// A snapshot comes first, and again after a resync, which says that the view before it is void. Follow returns when ctx ends, when handle
// returns an error, or when the service refuses the subscription for good.
func Follow(
	ctx context.Context, orders omsv1.OrderServiceClient, request *omsv1.StreamOrderEventsRequest,
	handle func(*omsv1.StreamOrderEventsResponse) error,
) error {
	subscription := Subscribe(orders, request)
	defer subscription.Close()
	shown := map[string]int64{}
	for pause := pauseFirst; ; pause = min(2*pause, pauseLongest) {
		heard := func() { pause = pauseFirst }
		err := deliver(ctx, subscription, heard, func(message *omsv1.StreamOrderEventsResponse) error {
			if order := message.GetEvent().GetOrder(); order != nil && order.Version <= shown[order.OrderId] {
				return nil
			}
			if message.GetResync() != nil {
				clear(shown)
			}
			for _, order := range message.GetSnapshot().GetOrders() {
				shown[order.OrderId] = order.Version
			}
			return handle(message)
		})
		if err == nil || ctx.Err() != nil || errors.Is(err, errHandled) || Refused(err).Final() {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// deliver hands on what comes until the stream breaks or ends; nil when it is over in good order. A stream that tells more than its end
// is heard.
func deliver(
	ctx context.Context, subscription *Subscription, heard func(), handle func(*omsv1.StreamOrderEventsResponse) error,
) error {
	defer subscription.Close()
	for {
		message, err := subscription.Next(ctx)
		if err == nil && message.GetEnd() == nil {
			heard()
		}
		switch {
		case err != nil:
			return err
		case message.GetEnd() != nil:
			err := status.ErrorProto(message.GetEnd().Status)
			if Refused(err).Reason == tokenExpired {
				// The token ended while the stream ran; the next call brings a new one.
				return status.Error(codes.Unavailable, err.Error())
			}
			return err
		case message.GetHeartbeat() == nil:
			if err := handle(message); err != nil {
				return fmt.Errorf("%w: %w", errHandled, err)
			}
		}
	}
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"unicode"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"trademesh/clients/trademesh"

	omsv1 "trademesh/clients/build/trademesh/oms/v1"
)

var (
	errTable  = errors.New("the table asks for what this runner does not know")
	errFound  = errors.New("what the table waits for has come")
	reference = regexp.MustCompile(`\$\{([a-z0-9_.]+)\}`)
	names     = protojson.MarshalOptions{UseProtoNames: true}
)

// refusal is what the table can expect of an error of a call.
func refusal(err error) (map[string]any, error) {
	if errors.Is(err, errTable) {
		return nil, err
	}
	told := trademesh.Refused(err)
	violations := []map[string]any{}
	for _, violation := range told.Violations {
		violations = append(violations, map[string]any{"field": violation.Field, "rule": violation.Reason})
	}
	return map[string]any{"code": codeName(told.Code), "reason": told.Reason, "violations": violations, "message": told.Message}, nil
}

// codeName spells a code as the specification does: NOT_FOUND, not NotFound.
func codeName(code codes.Code) string {
	if code == codes.OK {
		return "OK"
	}
	var name strings.Builder
	for index, letter := range code.String() {
		if index > 0 && unicode.IsUpper(letter) {
			name.WriteByte('_')
		}
		name.WriteRune(unicode.ToUpper(letter))
	}
	return name.String()
}

// plain is a message as JSON values, under the contract's names.
func plain(message proto.Message) (map[string]any, error) {
	text, err := names.Marshal(message)
	if err != nil {
		return nil, err
	}
	var values map[string]any
	return values, json.Unmarshal(text, &values)
}

// brief is what the table can expect of a stream's message.
func brief(message *omsv1.StreamOrderEventsResponse) map[string]any {
	versions := map[string]int64{}
	shown := map[string]any{"sequence": message.Sequence, "versions": versions}
	switch payload := message.Payload.(type) {
	case *omsv1.StreamOrderEventsResponse_Snapshot:
		shown["kind"], shown["complete"] = "snapshot", payload.Snapshot.Complete
		for _, order := range payload.Snapshot.Orders {
			versions[order.ClientOrderId] = order.Version
		}
	case *omsv1.StreamOrderEventsResponse_Event:
		order := payload.Event.Order
		shown["kind"], shown["client_order_id"], shown["state"] = "event", order.GetClientOrderId(), order.GetState().String()
		versions[order.GetClientOrderId()] = order.GetVersion()
	case *omsv1.StreamOrderEventsResponse_Heartbeat:
		shown["kind"], shown["last_sequence"] = "heartbeat", payload.Heartbeat.LastSequence
	case *omsv1.StreamOrderEventsResponse_Resync:
		shown["kind"] = "resync"
	case *omsv1.StreamOrderEventsResponse_End:
		shown["kind"], shown["end"] = "end", codeName(codes.Code(payload.End.Status.GetCode()))
	}
	return shown
}

// fill puts what earlier steps saw in the place of ${name.path}.
func (s *stage) fill(request json.RawMessage) (json.RawMessage, error) {
	var unknown error
	filled := reference.ReplaceAllStringFunc(string(request), func(found string) string {
		value, present := at(s.saved, found[2:len(found)-1])
		if !present {
			unknown = fmt.Errorf("%w: nothing is saved as %s", errTable, found)
		}
		return fmt.Sprint(value)
	})
	return json.RawMessage(filled), unknown
}

func matches(seen, wanted map[string]any) bool {
	for path, value := range wanted {
		if found, present := at(seen, path); !present || !reflect.DeepEqual(found, value) {
			return false
		}
	}
	return len(wanted) > 0
}

func at(values map[string]any, path string) (any, bool) {
	first, rest, deeper := strings.Cut(path, ".")
	value, present := values[first]
	if !deeper || !present {
		return value, present
	}
	inner, isObject := value.(map[string]any)
	if !isObject {
		return nil, false
	}
	return at(inner, rest)
}

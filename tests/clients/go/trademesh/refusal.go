package trademesh

import (
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const domain = "trademesh"

// Refusal is what an error of a call says, with its details decoded.
type Refusal struct {
	Code    codes.Code
	Message string
	// Reason is a value's name of trademesh.error.v1.ErrorReason; empty where the error did not come from Trademesh.
	Reason     string
	Metadata   map[string]string
	Violations []*errdetails.BadRequest_FieldViolation
	RetryAfter time.Duration
}

// Refused decodes the error of a call, or of Place; of an outcome that is open it is Unknown, whatever the last attempt said.
func Refused(err error) Refusal {
	if errors.Is(err, errGap) {
		return Refusal{Code: codes.DataLoss, Message: err.Error()}
	}
	if errors.Is(err, ErrOutcomeOpen) {
		return Refusal{Code: codes.Unknown, Message: err.Error()}
	}
	told := status.Convert(err)
	refusal := Refusal{Code: told.Code(), Message: told.Message()}
	for _, detail := range told.Details() {
		switch found := detail.(type) {
		case *errdetails.ErrorInfo:
			if found.Domain == domain {
				refusal.Reason, refusal.Metadata = found.Reason, found.Metadata
			}
		case *errdetails.BadRequest:
			refusal.Violations = found.FieldViolations
		case *errdetails.RetryInfo:
			refusal.RetryAfter = found.RetryDelay.AsDuration()
		}
	}
	return refusal
}

// NothingDone says that Trademesh itself could not take the request: it may be sent again as it is.
func (r Refusal) NothingDone() bool {
	return r.Reason != "" && (r.Code == codes.Unavailable || r.Code == codes.ResourceExhausted)
}

// Settles says that a key was looked at and that there is no order of this command under it, nor will there be: another command has the
// key, or its order was given up. What else refuses an order is decided without the key, or before an earlier attempt has come to its end.
func (r Refusal) Settles() bool {
	return r.Reason != "" && (r.Code == codes.AlreadyExists || r.Code == codes.FailedPrecondition)
}

// Final says that the request was refused for what it is, and would be again.
func (r Refusal) Final() bool {
	switch r.Code {
	case codes.InvalidArgument, codes.FailedPrecondition, codes.PermissionDenied, codes.Unauthenticated, codes.NotFound,
		codes.AlreadyExists, codes.Aborted, codes.OutOfRange, codes.Unimplemented:
		return true
	default:
		return false
	}
}

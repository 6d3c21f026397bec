package trademesh.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.List;
import java.util.Map;

/**
 * What an error of a call says, with its details decoded.
 *
 * @param reason a value's name of trademesh.error.v1.ErrorReason; empty where the error did not come from Trademesh
 * @param retryAfter how long to wait before the next attempt; zero where nothing is said
 */
public record Refusal(
    Status.Code code, String message, String reason, Map<String, String> metadata, List<BadRequest.FieldViolation> violations,
    Duration retryAfter) {
  private static final String DOMAIN = "trademesh";

  /** Decodes the error of a call. */
  public static Refusal of(StatusRuntimeException error) {
    return of(StatusProto.fromThrowable(error));
  }

  /** Decodes the status in the last message of a stream. */
  public static Refusal of(com.google.rpc.Status status) {
    var reason = "";
    Map<String, String> metadata = Map.of();
    List<BadRequest.FieldViolation> violations = List.of();
    var retryAfter = Duration.ZERO;
    try {
      for (Any detail : status.getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          var info = detail.unpack(ErrorInfo.class);
          if (info.getDomain().equals(DOMAIN)) {
            reason = info.getReason();
            metadata = info.getMetadataMap();
          }
        } else if (detail.is(BadRequest.class)) {
          violations = detail.unpack(BadRequest.class).getFieldViolationsList();
        } else if (detail.is(RetryInfo.class)) {
          var delay = detail.unpack(RetryInfo.class).getRetryDelay();
          retryAfter = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
        }
      }
    } catch (InvalidProtocolBufferException damaged) {
      reason = "";
    }
    var code = Status.fromCodeValue(status.getCode()).getCode();
    return new Refusal(code, status.getMessage(), reason, metadata, violations, retryAfter);
  }

  /** Trademesh itself could not take the request: it may be sent again as it is. */
  public boolean nothingDone() {
    return !reason.isEmpty() && (code == Status.Code.UNAVAILABLE || code == Status.Code.RESOURCE_EXHAUSTED);
  }

  /**
   * A key was looked at and there is no order of this command under it, nor will there be: another command has the key, or its order was
   * given up. What else refuses an order is decided without the key, or before an earlier attempt has come to its end.
   */
  public boolean settles() {
    return !reason.isEmpty() && (code == Status.Code.ALREADY_EXISTS || code == Status.Code.FAILED_PRECONDITION);
  }

  /** The request was refused for what it is, and would be again. */
  public boolean isFinal() {
    return switch (code) {
      case INVALID_ARGUMENT, FAILED_PRECONDITION, PERMISSION_DENIED, UNAUTHENTICATED, NOT_FOUND, ALREADY_EXISTS, ABORTED, OUT_OF_RANGE,
          UNIMPLEMENTED -> true;
      default -> false;
    };
  }
}

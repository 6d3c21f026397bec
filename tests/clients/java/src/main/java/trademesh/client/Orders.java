package trademesh.client;

import io.grpc.Deadline;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import trademesh.oms.v1.OrderOuterClass.Order;
import trademesh.oms.v1.OrderServiceGrpc.OrderServiceBlockingStub;
import trademesh.oms.v1.OrderServiceOuterClass.CreateOrderRequest;
import trademesh.oms.v1.OrderServiceOuterClass.LookupOrderRequest;

/** Orders that are placed once. */
public final class Orders {
  private static final long ATTEMPT_SECONDS = 3;
  private static final Duration PAUSE_FIRST = Duration.ofMillis(50);
  private static final Duration PAUSE_LONGEST = Duration.ofSeconds(2);

  private Orders() {}

  /** What became of an order is not known yet: call {@link #place} again with the same request, later or from another process. */
  public static final class OutcomeOpenException extends Exception {
    private static final long serialVersionUID = 1;

    OutcomeOpenException(String key, Throwable cause) {
      super("the outcome of " + key + " is open", cause);
    }
  }

  /**
   * Sends an order until it is known what became of it, always under the request's own client_order_id, so that it is placed once.
   *
   * <p>An order that risk refused is returned like any other: look at its state.
   *
   * @throws StatusRuntimeException with a final {@link Refusal}: this call made no order; of an earlier one under the same key, which was
   *     left open, only a refusal that settles says so too
   * @throws OutcomeOpenException the deadline came first, or an attempt was refused that came after one without an answer: such a refusal
   *     says nothing of the attempt before it, unless it settles
   */
  public static Order place(OrderServiceBlockingStub orders, CreateOrderRequest request, Deadline deadline)
      throws OutcomeOpenException, InterruptedException {
    var unanswered = false;
    for (var pause = PAUSE_FIRST; ; pause = shorter(pause.multipliedBy(2), PAUSE_LONGEST)) {
      try {
        return attempt(orders, deadline).createOrder(request).getOrder();
      } catch (StatusRuntimeException error) {
        var refusal = Refusal.of(error);
        if (refusal.isFinal() && unanswered && !refusal.settles()) {
          throw new OutcomeOpenException(request.getClientOrderId(), error);
        }
        if (refusal.isFinal()) {
          throw error;
        }
        if (!refusal.nothingDone()) {
          unanswered = true;
          var found = lookup(orders, request, deadline);
          if (found.isPresent()) {
            return found.get();
          }
        }
        var wait = pause.compareTo(refusal.retryAfter()) > 0 ? pause : refusal.retryAfter();
        if (deadline.timeRemaining(TimeUnit.MILLISECONDS) <= wait.toMillis()) {
          throw new OutcomeOpenException(request.getClientOrderId(), error);
        }
        Thread.sleep(wait.toMillis());
      }
    }
  }

  /** Asks for the order by its key. Not found proves little while the first attempt may still be under way; sending it again does. */
  private static Optional<Order> lookup(OrderServiceBlockingStub orders, CreateOrderRequest request, Deadline deadline) {
    var wanted = LookupOrderRequest.newBuilder().setAccountId(request.getAccountId()).setClientOrderId(request.getClientOrderId()).build();
    try {
      return Optional.of(attempt(orders, deadline).lookupOrder(wanted).getOrder());
    } catch (StatusRuntimeException error) {
      return Optional.empty();
    }
  }

  private static OrderServiceBlockingStub attempt(OrderServiceBlockingStub orders, Deadline deadline) {
    return orders.withDeadline(deadline.minimum(Deadline.after(ATTEMPT_SECONDS, TimeUnit.SECONDS)));
  }

  private static Duration shorter(Duration one, Duration other) {
    return one.compareTo(other) < 0 ? one : other;
  }
}

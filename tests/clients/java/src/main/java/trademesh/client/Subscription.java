package trademesh.client;

import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.BlockingClientCall;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Predicate;
import trademesh.oms.v1.OrderServiceGrpc.OrderServiceBlockingV2Stub;
import trademesh.oms.v1.OrderServiceOuterClass.OrderEvent;
import trademesh.oms.v1.OrderServiceOuterClass.OrderSnapshot;
import trademesh.oms.v1.OrderServiceOuterClass.StreamOrderEventsRequest;
import trademesh.oms.v1.OrderServiceOuterClass.StreamOrderEventsResponse;

/** One view of an account's orders that outlives its connections. For one thread. */
public final class Subscription implements AutoCloseable {
  private static final Duration HEARTBEAT_DEFAULT = Duration.ofSeconds(5);
  private static final int HEARTBEATS_MISSING = 3;
  private static final Duration PAUSE_FIRST = Duration.ofMillis(50);
  private static final Duration PAUSE_LONGEST = Duration.ofSeconds(2);

  private final OrderServiceBlockingV2Stub orders;
  private final Duration silence;
  private StreamOrderEventsRequest request;
  private BlockingClientCall<?, StreamOrderEventsResponse> stream;
  private long sequence;
  /** The connection has told more than its end. */
  private boolean heard;

  /** Prepares a subscription; the first {@link #next} opens it. */
  public Subscription(OrderServiceBlockingV2Stub orders, StreamOrderEventsRequest request) {
    this.orders = orders;
    this.request = request;
    var interval = request.getHeartbeatInterval();
    var heartbeat = request.hasHeartbeatInterval() ? Duration.ofSeconds(interval.getSeconds(), interval.getNanos()) : HEARTBEAT_DEFAULT;
    this.silence = heartbeat.multipliedBy(HEARTBEATS_MISSING);
  }

  /**
   * Returns the next message, each sequence once. After an error the next call goes on behind the last message that was returned.
   *
   * @throws StatusRuntimeException the stream was refused or has broken
   */
  public StreamOrderEventsResponse next() throws InterruptedException {
    try {
      if (stream == null) {
        stream = orders.streamOrderEvents(request);
      }
      while (true) {
        // A peer that is gone may leave a connection that stays silent for minutes; a live one sends heartbeats.
        var message = stream.read(silence.toMillis(), TimeUnit.MILLISECONDS);
        if (message == null) {
          throw Status.UNAVAILABLE.withDescription("the stream was cut: it ended without its last message").asRuntimeException();
        }
        if (isNew(message)) {
          return message;
        }
      }
    } catch (StatusException error) {
      close();
      throw new StatusRuntimeException(error.getStatus(), error.getTrailers());
    } catch (TimeoutException error) {
      close();
      throw Status.UNAVAILABLE.withDescription("the stream is silent").withCause(error).asRuntimeException();
    } catch (StatusRuntimeException error) {
      close();
      throw error;
    }
  }

  /** Ends the connection's stream; {@link #next} opens another one, which goes on where this one ended. */
  @Override
  public void close() {
    if (stream != null) {
      stream.cancel("the client is done", null);
      stream = null;
    }
  }

  /** False for a message that was seen before, which at-least-once delivery allows after a resume. */
  private boolean isNew(StreamOrderEventsResponse message) {
    if (message.hasHeartbeat()) {
      if (message.getHeartbeat().getLastSequence() > sequence) {
        throw gap(message.getHeartbeat().getLastSequence());
      }
      return true;
    }
    if (message.getSequence() <= sequence) {
      return false;
    }
    if (message.getSequence() > sequence + 1) {
      throw gap(message.getSequence());
    }
    sequence = message.getSequence();
    if (!message.getResumeToken().isEmpty()) {
      request = request.toBuilder().setResumeToken(message.getResumeToken()).build();
    }
    return true;
  }

  private StatusRuntimeException gap(long sent) {
    return Status.DATA_LOSS.withDescription("the stream has a gap: " + sent + " was sent, " + sequence + " has come").asRuntimeException();
  }

  /** What {@link #follow} tells; each method returns whether to go on. */
  public interface Handler {
    /** A part of a snapshot, which comes first and after {@link #resync}. */
    boolean snapshot(OrderSnapshot snapshot);

    /** A change of one order, each once. */
    boolean event(OrderEvent event);

    /** The view so far is void; a snapshot follows. */
    default boolean resync() {
      return true;
    }
  }

  /**
   * Tells a handler what happens, in order, and resumes the stream when it breaks, until the handler ends it.
   *
   * @throws StatusRuntimeException the service refuses the subscription for good
   */
  public void follow(Handler handler) throws InterruptedException {
    var told = new Told(handler);
    for (var pause = PAUSE_FIRST; ; pause = pause.multipliedBy(2).compareTo(PAUSE_LONGEST) < 0 ? pause.multipliedBy(2) : PAUSE_LONGEST) {
      heard = false;
      try {
        if (!deliver(told)) {
          return;
        }
      } catch (StatusRuntimeException error) {
        if (Refusal.of(error).isFinal()) {
          throw error;
        }
      } finally {
        close();
      }
      if (heard) {
        pause = PAUSE_FIRST;
      }
      Thread.sleep(pause.toMillis());
    }
  }

  /** Hands on what comes until the stream ends; false when it is over for good. */
  private boolean deliver(Predicate<StreamOrderEventsResponse> handler) throws InterruptedException {
    while (true) {
      var message = next();
      if (message.hasEnd()) {
        var refusal = Refusal.of(message.getEnd().getStatus());
        // A token that ended while the stream ran is replaced by the next call's.
        if (refusal.isFinal() && !refusal.reason().equals("TOKEN_EXPIRED")) {
          throw Status.fromCode(refusal.code()).withDescription(refusal.message()).asRuntimeException();
        }
        return refusal.code() != Status.Code.OK;
      }
      heard = true;
      if (!message.hasHeartbeat() && !handler.test(message)) {
        return false;
      }
    }
  }

  /** Leaves out events that the snapshot has shown: they may come again where a stream is resumed right behind it. */
  private static final class Told implements Predicate<StreamOrderEventsResponse> {
    private final Handler handler;
    private final Map<String, Long> shown = new HashMap<>();

    Told(Handler handler) {
      this.handler = handler;
    }

    @Override
    public boolean test(StreamOrderEventsResponse message) {
      switch (message.getPayloadCase()) {
        case SNAPSHOT -> {
          message.getSnapshot().getOrdersList().forEach(order -> shown.put(order.getOrderId(), order.getVersion()));
          return handler.snapshot(message.getSnapshot());
        }
        case EVENT -> {
          var order = message.getEvent().getOrder();
          return shown.getOrDefault(order.getOrderId(), 0L) >= order.getVersion() || handler.event(message.getEvent());
        }
        case RESYNC -> {
          shown.clear();
          return handler.resync();
        }
        default -> {
          return true;
        }
      }
    }
  }
}

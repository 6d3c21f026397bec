package trademesh.conformance;

import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import io.grpc.Deadline;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.MetadataUtils;
import java.io.IOException;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.BiFunction;
import java.util.function.Supplier;
import trademesh.client.Orders;
import trademesh.client.Subscription;
import trademesh.oms.v1.OrderServiceGrpc.OrderServiceBlockingStub;
import trademesh.oms.v1.OrderServiceOuterClass.CancelAllOrdersRequest;
import trademesh.oms.v1.OrderServiceOuterClass.CancelOrderRequest;
import trademesh.oms.v1.OrderServiceOuterClass.CreateOrderRequest;
import trademesh.oms.v1.OrderServiceOuterClass.GetOrderRequest;
import trademesh.oms.v1.OrderServiceOuterClass.ListExecutionsRequest;
import trademesh.oms.v1.OrderServiceOuterClass.ListOrdersRequest;
import trademesh.oms.v1.OrderServiceOuterClass.LookupOrderRequest;
import trademesh.oms.v1.OrderServiceOuterClass.OrderEvent;
import trademesh.oms.v1.OrderServiceOuterClass.OrderSnapshot;
import trademesh.oms.v1.OrderServiceOuterClass.ReplaceOrderRequest;
import trademesh.oms.v1.OrderServiceOuterClass.StreamOrderEventsRequest;
import trademesh.oms.v1.OrderServiceOuterClass.StreamOrderEventsResponse;

/** One scenario under way: performs its steps by their verbs. */
final class Stage implements AutoCloseable {
  private static final Metadata.Key<String> REPLAYED = Metadata.Key.of("idempotency-replayed", Metadata.ASCII_STRING_MARSHALLER);
  private static final int CALL_MS = 30_000;
  private static final int WITHIN_MS = 15_000;
  private static final int REPEAT_MS = 20;
  private static final int PAGES_MAX = 100;

  /** A unary method of the order service: its request's builder, and its call. */
  private record Method<Q extends Message>(Supplier<Message.Builder> request, BiFunction<OrderServiceBlockingStub, Q, Message> call) {
    @SuppressWarnings("unchecked")
    Message invoke(OrderServiceBlockingStub orders, String json) throws IOException {
      return call.apply(orders, (Q) parse(json, request.get()));
    }
  }

  private static final Map<String, Method<?>> METHODS = Map.of(
      "CreateOrder", new Method<CreateOrderRequest>(CreateOrderRequest::newBuilder, OrderServiceBlockingStub::createOrder),
      "GetOrder", new Method<GetOrderRequest>(GetOrderRequest::newBuilder, OrderServiceBlockingStub::getOrder),
      "LookupOrder", new Method<LookupOrderRequest>(LookupOrderRequest::newBuilder, OrderServiceBlockingStub::lookupOrder),
      "ListOrders", new Method<ListOrdersRequest>(ListOrdersRequest::newBuilder, OrderServiceBlockingStub::listOrders),
      "ReplaceOrder", new Method<ReplaceOrderRequest>(ReplaceOrderRequest::newBuilder, OrderServiceBlockingStub::replaceOrder),
      "CancelOrder", new Method<CancelOrderRequest>(CancelOrderRequest::newBuilder, OrderServiceBlockingStub::cancelOrder),
      "CancelAllOrders", new Method<CancelAllOrdersRequest>(CancelAllOrdersRequest::newBuilder, OrderServiceBlockingStub::cancelAllOrders),
      "ListExecutions", new Method<ListExecutionsRequest>(ListExecutionsRequest::newBuilder, OrderServiceBlockingStub::listExecutions));

  private final Conformance runner;
  private final JsonObject saved = new JsonObject();
  private final Map<String, Subscription> streams = new HashMap<>();

  Stage(Conformance runner) {
    this.runner = runner;
  }

  JsonObject perform(JsonObject step) throws Exception {
    var request = Shown.fill(step.getAsJsonObject("request").toString(), saved);
    var verb = step.get("verb").getAsString();
    var seen = switch (verb) {
      case "call" -> call(step, request);
      case "place" -> place(step, request);
      case "pages" -> pages(step, request);
      case "read" -> read(step, request);
      case "break" -> cut(step);
      case "follow" -> follow(step, request);
      default -> throw new IllegalArgumentException("no verb " + verb);
    };
    if (step.has("save")) {
      saved.add(step.get("save").getAsString(), seen);
    }
    return seen;
  }

  /** Makes one call, or the same until its answer is as the table wants it. */
  private JsonObject call(JsonObject step, String request) throws Exception {
    var method = METHODS.get(step.get("method").getAsString());
    var orders = runner.orders(step);
    var until = step.has("until") ? step.getAsJsonObject("until") : null;
    var end = System.nanoTime() + Duration.ofMillis(number(step, "within_ms", WITHIN_MS)).toNanos();
    while (true) {
      var seen = once(orders, method, request, number(step, "timeout_ms", CALL_MS));
      if (until == null || Shown.matches(seen, until) || System.nanoTime() > end) {
        return seen;
      }
      Thread.sleep(REPEAT_MS);
    }
  }

  private static JsonObject once(OrderServiceBlockingStub orders, Method<?> method, String request, int timeoutMs) throws IOException {
    var headers = new AtomicReference<Metadata>();
    var listening = orders.withDeadlineAfter(timeoutMs, TimeUnit.MILLISECONDS)
        .withInterceptors(MetadataUtils.newCaptureMetadataInterceptor(headers, new AtomicReference<>()));
    try {
      var answer = method.invoke(listening, request);
      var seen = ok();
      seen.addProperty("replayed", "true".equals(headers.get().get(REPLAYED)));
      seen.add("response", Shown.plain(answer));
      return seen;
    } catch (StatusRuntimeException error) {
      return Shown.refusal(error);
    }
  }

  /** Sends an order the way a program should: until its outcome is known. */
  private JsonObject place(JsonObject step, String request) throws Exception {
    var wanted = (CreateOrderRequest) parse(request, CreateOrderRequest.newBuilder());
    var deadline = Deadline.after(number(step, "within_ms", WITHIN_MS), TimeUnit.MILLISECONDS);
    try {
      var response = new JsonObject();
      response.add("order", Shown.plain(Orders.place(runner.orders(step), wanted, deadline)));
      var seen = ok();
      seen.add("response", response);
      return seen;
    } catch (Orders.OutcomeOpenException error) {
      return refused((StatusRuntimeException) error.getCause(), true);
    } catch (StatusRuntimeException error) {
      return refused(error, false);
    }
  }

  private static JsonObject refused(StatusRuntimeException error, boolean open) {
    var seen = Shown.refusal(error);
    seen.addProperty("open", open);
    return seen;
  }

  /** Walks a list to its end. */
  private JsonObject pages(JsonObject step, String request) throws IOException {
    var wanted = (ListOrdersRequest) parse(request, ListOrdersRequest.newBuilder());
    var sizes = new JsonArray();
    var keys = new JsonArray();
    try {
      while (sizes.size() < PAGES_MAX) {
        var page = runner.orders(step).withDeadlineAfter(CALL_MS, TimeUnit.MILLISECONDS).listOrders(wanted);
        sizes.add(page.getOrdersCount());
        page.getOrdersList().forEach(order -> keys.add(order.getClientOrderId()));
        if (page.getNextPageToken().isEmpty()) {
          break;
        }
        wanted = wanted.toBuilder().setPageToken(page.getNextPageToken()).build();
      }
    } catch (StatusRuntimeException error) {
      return Shown.refusal(error);
    }
    var seen = ok();
    seen.add("sizes", sizes);
    seen.add("client_order_ids", keys);
    return seen;
  }

  /** Takes messages of a stream until one is as the table wants it, opening or resuming the stream where it is not open. */
  private JsonObject read(JsonObject step, String request) throws Exception {
    var name = step.get("stream").getAsString();
    if (!streams.containsKey(name)) {
      var wanted = (StreamOrderEventsRequest) parse(request, StreamOrderEventsRequest.newBuilder());
      streams.put(name, new Subscription(runner.streams(step), wanted));
    }
    var messages = new JsonArray();
    var seen = ok();
    try {
      while (true) {
        var message = Shown.brief(streams.get(name).next());
        messages.add(message);
        if (Shown.matches(message, step.getAsJsonObject("until"))) {
          break;
        }
      }
    } catch (StatusRuntimeException error) {
      seen = Shown.refusal(error);
    }
    seen.add("messages", messages);
    return seen;
  }

  /** Takes what {@code follow} tells, over all connections, until a message is as the table wants it. */
  private JsonObject follow(JsonObject step, String request) throws Exception {
    var wanted = (StreamOrderEventsRequest) parse(request, StreamOrderEventsRequest.newBuilder());
    var messages = new JsonArray();
    var seen = ok();
    try (var subscription = new Subscription(runner.streams(step), wanted)) {
      subscription.follow(new Subscription.Handler() {
        @Override
        public boolean snapshot(OrderSnapshot snapshot) {
          return show(StreamOrderEventsResponse.newBuilder().setSnapshot(snapshot).build());
        }

        @Override
        public boolean event(OrderEvent event) {
          return show(StreamOrderEventsResponse.newBuilder().setEvent(event).build());
        }

        private boolean show(StreamOrderEventsResponse message) {
          var shown = Shown.brief(message);
          messages.add(shown);
          return !Shown.matches(shown, step.getAsJsonObject("until"));
        }
      });
      if (messages.isEmpty() || !Shown.matches(messages.get(messages.size() - 1).getAsJsonObject(), step.getAsJsonObject("until"))) {
        throw new IllegalStateException("the stream ended");
      }
    } catch (StatusRuntimeException error) {
      seen = Shown.refusal(error);
    }
    seen.add("messages", messages);
    return seen;
  }

  /** Ends a stream's call, as a client does that goes away. */
  private JsonObject cut(JsonObject step) {
    streams.get(step.get("stream").getAsString()).close();
    return new JsonObject();
  }

  @Override
  public void close() {
    streams.values().forEach(Subscription::close);
  }

  private static Message parse(String json, Message.Builder builder) throws IOException {
    JsonFormat.parser().merge(JsonParser.parseString(json).toString(), builder);
    return builder.build();
  }

  private static JsonObject ok() {
    var seen = new JsonObject();
    seen.addProperty("code", Status.Code.OK.name());
    return seen;
  }

  private static int number(JsonObject step, String name, int otherwise) {
    return step.has(name) ? step.get(name).getAsInt() : otherwise;
  }
}

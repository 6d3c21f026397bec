package trademesh.example;

import io.grpc.Deadline;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import trademesh.client.Connection;
import trademesh.client.Orders;
import trademesh.client.Subscription;
import trademesh.client.Tokens;
import trademesh.oms.v1.OrderOuterClass.Order;
import trademesh.oms.v1.OrderOuterClass.OrderState;
import trademesh.oms.v1.OrderServiceGrpc;
import trademesh.oms.v1.OrderServiceOuterClass.CreateOrderRequest;
import trademesh.oms.v1.OrderServiceOuterClass.ListOrdersRequest;
import trademesh.oms.v1.OrderServiceOuterClass.LookupOrderRequest;
import trademesh.oms.v1.OrderServiceOuterClass.OrderEvent;
import trademesh.oms.v1.OrderServiceOuterClass.OrderSnapshot;
import trademesh.oms.v1.OrderServiceOuterClass.StreamOrderEventsRequest;
import trademesh.type.v1.OrderTerms.OrderType;
import trademesh.type.v1.OrderTerms.Side;
import trademesh.type.v1.OrderTerms.TimeInForce;

/**
 * Buys one share and watches the order until it ends.
 *
 * <p>Reads TRADEMESH_ENDPOINT, TRADEMESH_CA_FILE, TRADEMESH_ISSUER, TRADEMESH_CLIENT_ID, TRADEMESH_CLIENT_SECRET and TRADEMESH_ACCOUNT.
 */
public final class Example {
  private static final int START_SECONDS_MAX = 60;
  private static final int TRADE_SECONDS_MAX = 30;
  private static final int CALL_SECONDS_MAX = 5;

  private Example() {}

  /** Entry point; ends with 1 when risk refuses the order. */
  public static void main(String[] arguments) throws Exception {
    var account = System.getenv("TRADEMESH_ACCOUNT");
    var tokens = Tokens.ofClient(
        System.getenv("TRADEMESH_ISSUER"), System.getenv("TRADEMESH_CLIENT_ID"), System.getenv("TRADEMESH_CLIENT_SECRET"));
    var channel = Connection.open(System.getenv("TRADEMESH_ENDPOINT"), System.getenv("TRADEMESH_CA_FILE"));
    try {
      var orders = OrderServiceGrpc.newBlockingStub(channel).withCallCredentials(tokens);
      Connection.warm(
          orders,
          stub -> stub.listOrders(ListOrdersRequest.newBuilder().setAccountId(account).setPageSize(1).build()),
          Deadline.after(START_SECONDS_MAX, TimeUnit.SECONDS));
      // The key is made once and kept, in a program that trades on disk: whatever happens, the order is asked for by it.
      var key = "example-java-" + UUID.randomUUID();
      var order = Orders.place(orders, CreateOrderRequest.newBuilder()
          .setAccountId(account)
          .setClientOrderId(key)
          .setInstrumentId("AAPL")
          .setSide(Side.SIDE_BUY)
          .setType(OrderType.ORDER_TYPE_MARKET)
          .setTimeInForce(TimeInForce.TIME_IN_FORCE_DAY)
          .setQuantity("1")
          .build(), Deadline.after(TRADE_SECONDS_MAX, TimeUnit.SECONDS));
      if (order.getState() == OrderState.ORDER_STATE_REJECTED) {
        System.err.println("risk refused " + key + ": " + order.getReject().getText());
        System.exit(1);
      }
      System.out.println("placed " + key);

      var streams = OrderServiceGrpc.newBlockingV2Stub(channel).withCallCredentials(tokens);
      try (var subscription = new Subscription(streams, StreamOrderEventsRequest.newBuilder().setAccountId(account).build())) {
        subscription.follow(new Subscription.Handler() {
          /** The order may have ended before the stream began, and is in no snapshot then: the read that follows it sees that. */
          @Override
          public boolean snapshot(OrderSnapshot snapshot) {
            return !snapshot.getComplete() || show(orders.withDeadlineAfter(CALL_SECONDS_MAX, TimeUnit.SECONDS)
                .lookupOrder(LookupOrderRequest.newBuilder().setAccountId(account).setClientOrderId(key).build()).getOrder());
          }

          @Override
          public boolean event(OrderEvent event) {
            return !event.getOrder().getClientOrderId().equals(key) || show(event.getOrder());
          }
        });
      }
    } finally {
      channel.shutdownNow().awaitTermination(CALL_SECONDS_MAX, TimeUnit.SECONDS);
    }
  }

  /** Prints where the order stands, and returns whether it may still change. */
  private static boolean show(Order order) {
    System.out.println(order.getState() + " " + order.getFilledQuantity() + " at " + order.getAveragePrice());
    return !order.hasTerminalTime();
  }
}

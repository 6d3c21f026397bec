package trademesh.client;

import io.grpc.Deadline;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import java.io.File;
import java.io.IOException;
import java.util.function.Consumer;
import trademesh.oms.v1.OrderServiceGrpc.OrderServiceBlockingStub;

/** Channels to the edge of a mesh. */
public final class Connection {
  private static final int PAUSE_MS = 100;

  private Connection() {}

  /**
   * Makes a call, any that changes nothing, until it is answered, with a refusal too. A JVM pays once for its classes, TLS, the connection and
   * the first token, which takes a second where nobody else wants the processor and ten where many do; a program that trades pays at its
   * start, not within the deadline of its first order.
   *
   * @throws StatusRuntimeException the deadline came first
   */
  public static void warm(OrderServiceBlockingStub orders, Consumer<OrderServiceBlockingStub> call, Deadline deadline)
      throws InterruptedException {
    while (true) {
      try {
        call.accept(orders.withWaitForReady().withDeadline(deadline));
        return;
      } catch (StatusRuntimeException error) {
        if (Refusal.of(error).isFinal()) {
          return;
        }
        if (deadline.isExpired()) {
          throw error;
        }
      }
      Thread.sleep(PAUSE_MS);
    }
  }

  /**
   * Returns a channel to {@code host:port}. It connects with the first call, and again whenever the connection is lost.
   *
   * @param authorityFile PEM of the authority that signs the edge's certificate; the platform's authorities where null
   */
  public static ManagedChannel open(String endpoint, String authorityFile) throws IOException {
    var tls = TlsChannelCredentials.newBuilder();
    if (authorityFile != null) {
      tls.trustManager(new File(authorityFile));
    }
    // The service says which calls may be repeated, call by call; no policy of the channel knows it.
    return NettyChannelBuilder.forTarget(endpoint, tls.build()).disableRetry().build();
  }
}

package trademesh.client;

import io.grpc.ManagedChannel;
import io.grpc.TlsChannelCredentials;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import java.io.File;
import java.io.IOException;

/** Channels to the edge of a mesh. */
public final class Connection {
  private Connection() {}

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

package trademesh.client;

import com.nimbusds.oauth2.sdk.AccessTokenResponse;
import com.nimbusds.oauth2.sdk.ClientCredentialsGrant;
import com.nimbusds.oauth2.sdk.GeneralException;
import com.nimbusds.oauth2.sdk.TokenRequest;
import com.nimbusds.oauth2.sdk.auth.ClientSecretBasic;
import com.nimbusds.oauth2.sdk.auth.Secret;
import com.nimbusds.oauth2.sdk.id.ClientID;
import com.nimbusds.oauth2.sdk.id.Issuer;
import com.nimbusds.openid.connect.sdk.op.OIDCProviderMetadata;
import io.grpc.CallCredentials;
import io.grpc.Metadata;
import io.grpc.Status;
import java.io.IOException;
import java.net.URI;
import java.time.Duration;
import java.time.Instant;
import java.util.Set;
import java.util.concurrent.Executor;

/**
 * Access tokens for calls, by client credentials (RFC 6749 §4.4); each is used until shortly before its end. Safe for threads.
 *
 * <p>An issuer that cannot be reached is UNAVAILABLE, since it may come back; UNAUTHENTICATED is one that refuses the client.
 */
public final class Tokens extends CallCredentials {
  private static final Metadata.Key<String> AUTHORIZATION = Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
  private static final Duration MARGIN = Duration.ofSeconds(30);
  private static final int TIMEOUT_MS = 10_000;
  /** With these an issuer refuses the client (RFC 6749 §5.2); what else goes wrong may be over soon. */
  private static final Set<Integer> REFUSALS = Set.of(400, 401, 403);

  /** The issuer refuses the client. */
  private static final class RefusedException extends GeneralException {
    private static final long serialVersionUID = 1;

    RefusedException(String message) {
      super(message);
    }
  }

  /** Asks an issuer for a token. */
  private interface Source {
    AccessTokenResponse fetch() throws IOException, GeneralException;
  }

  private final Source source;
  private String token;
  private Instant renewAt;

  private Tokens(Source source, String token, Instant renewAt) {
    this.source = source;
    this.token = token;
    this.renewAt = renewAt;
  }

  /** Returns tokens of a client at an OpenID Connect issuer, whose endpoint is discovered with the first one. */
  public static Tokens ofClient(String issuer, String clientId, String clientSecret) {
    var client = new ClientSecretBasic(new ClientID(clientId), new Secret(clientSecret));
    var endpoint = new URI[1];
    return new Tokens(() -> {
      if (endpoint[0] == null) {
        endpoint[0] = OIDCProviderMetadata.resolve(new Issuer(issuer), TIMEOUT_MS, TIMEOUT_MS).getTokenEndpointURI();
      }
      var request = new TokenRequest.Builder(endpoint[0], client, new ClientCredentialsGrant()).build().toHTTPRequest();
      request.setConnectTimeout(TIMEOUT_MS);
      request.setReadTimeout(TIMEOUT_MS);
      var answer = request.send();
      if (REFUSALS.contains(answer.getStatusCode())) {
        throw new RefusedException("the issuer gave no token: " + answer.getBody());
      }
      return AccessTokenResponse.parse(answer);
    }, null, Instant.MIN);
  }

  /** Returns one token that somebody else renews. */
  public static Tokens fixed(String token) {
    return new Tokens(null, token, Instant.MAX);
  }

  @Override
  public void applyRequestMetadata(RequestInfo call, Executor executor, MetadataApplier applier) {
    executor.execute(() -> {
      try {
        var headers = new Metadata();
        headers.put(AUTHORIZATION, "Bearer " + current());
        applier.apply(headers);
      } catch (RefusedException error) {
        applier.fail(Status.UNAUTHENTICATED.withDescription(error.getMessage()));
      } catch (IOException | GeneralException error) {
        applier.fail(Status.UNAVAILABLE.withDescription("the issuer cannot be reached").withCause(error));
      }
    });
  }

  private synchronized String current() throws IOException, GeneralException {
    var now = Instant.now();
    if (!now.isBefore(renewAt)) {
      var answer = source.fetch().getTokens().getAccessToken();
      var life = Duration.ofSeconds(answer.getLifetime());
      renewAt = now.plus(life.minus(MARGIN).compareTo(life.dividedBy(2)) > 0 ? life.minus(MARGIN) : life.dividedBy(2));
      token = answer.getValue();
    }
    return token;
  }
}

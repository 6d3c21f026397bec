/** Access tokens, by client credentials (RFC 6749 §4.4). */

import { Code, ConnectError } from "@connectrpc/connect";
import * as oauth from "openid-client";

const TOKEN_MARGIN_SECONDS = 30;
const TIMEOUT_SECONDS = 10;
/** With these an issuer refuses the client (RFC 6749 §5.2); what else goes wrong may be over soon. */
const REFUSALS: ReadonlySet<number> = new Set([400, 401, 403]);

/** Returns an access token that is good for a while. */
export type Tokens = () => Promise<string>;

export interface Issued {
  token: string;
  /** On the clock of `Date.now`. */
  renewAt: number;
}

/**
 * Tokens of a client at an OpenID Connect issuer, each used until shortly before its end. An issuer that cannot be reached is Unavailable,
 * since it may come back; Unauthenticated is one that refuses the client.
 *
 * An issuer without TLS is taken on this machine only, which is what the sandbox's is.
 */
export function clientCredentials(issuer: string, clientId: string, clientSecret: string): Tokens {
  const url = new URL(issuer);
  const local = url.protocol === "http:" && url.hostname === "127.0.0.1";
  const options = { timeout: TIMEOUT_SECONDS, ...(local ? { execute: [oauth.allowInsecureRequests] } : {}) };
  let configuration: oauth.Configuration | undefined;

  return shared(async () => {
    try {
      configuration ??= await oauth.discovery(url, clientId, undefined, oauth.ClientSecretBasic(clientSecret), options);
      const answer = await oauth.clientCredentialsGrant(configuration);
      const life = answer.expires_in ?? 0;
      return { token: answer.access_token, renewAt: Date.now() + 1000 * Math.max(life - TOKEN_MARGIN_SECONDS, life / 2) };
    } catch (error) {
      const answered = error instanceof oauth.ResponseBodyError || error instanceof oauth.WWWAuthenticateChallengeError;
      throw answered && REFUSALS.has(error.status)
        ? new ConnectError("the issuer gave no token", Code.Unauthenticated, undefined, undefined, error)
        : new ConnectError("the issuer cannot be reached", Code.Unavailable, undefined, undefined, error);
    }
  });
}

/** Tokens that callers share: one request at a time, and none while the last token is good. A request that failed is made again. */
export function shared(fetchToken: () => Promise<Issued>): Tokens {
  let current: Promise<Issued> | undefined;
  let renewAt = 0;

  return async () => {
    // Nothing is awaited between the look at the request and the next one: who comes meanwhile finds that one.
    if (current === undefined || Date.now() >= renewAt) {
      const asked = fetchToken();
      current = asked;
      renewAt = Infinity;
      asked.then(
        (issued) => {
          renewAt = issued.renewAt;
        },
        () => {
          current = undefined;
        },
      );
    }
    return (await current).token;
  };
}

/** One token that somebody else renews. */
export function fixedToken(token: string): Tokens {
  return async () => token;
}

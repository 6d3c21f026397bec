/** A connection to the edge of a mesh, with tokens. */

import { readFileSync } from "node:fs";
import type { Interceptor, Transport } from "@connectrpc/connect";
import { Code, ConnectError } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import * as oauth from "openid-client";

const TOKEN_MARGIN_SECONDS = 30;

/** Returns an access token that is good for a while. */
export type Tokens = () => Promise<string>;

/**
 * Tokens of a client at an OpenID Connect issuer (RFC 6749 §4.4), each used until shortly before its end.
 * An issuer without TLS is taken on this machine only, which is what the sandbox's is.
 */
export function clientCredentials(issuer: string, clientId: string, clientSecret: string): Tokens {
  const url = new URL(issuer);
  const local = url.protocol === "http:" && url.hostname === "127.0.0.1";
  const options = local ? { execute: [oauth.allowInsecureRequests] } : {};
  let configuration: oauth.Configuration | undefined;
  let current: Promise<{ token: string; renewAt: number }> | undefined;

  async function fetchToken() {
    configuration ??= await oauth.discovery(url, clientId, undefined, oauth.ClientSecretBasic(clientSecret), options);
    const answer = await oauth.clientCredentialsGrant(configuration);
    const life = answer.expires_in ?? 0;
    return { token: answer.access_token, renewAt: Date.now() + 1000 * Math.max(life - TOKEN_MARGIN_SECONDS, life / 2) };
  }

  return async () => {
    // Callers at the same time share one request.
    const known = await current?.catch(() => undefined);
    if (known === undefined || Date.now() >= known.renewAt) {
      current = fetchToken();
    }
    try {
      return (await current!).token;
    } catch (error) {
      throw new ConnectError("the issuer gave no token", Code.Unauthenticated, undefined, undefined, error);
    }
  };
}

/** One token that somebody else renews. */
export function fixedToken(token: string): Tokens {
  return async () => token;
}

/**
 * Returns a transport to `host:port`. It connects with the first call, and again whenever the connection is lost.
 *
 * @param authorityFile PEM of the authority that signs the edge's certificate; Node's own authorities where undefined.
 */
export function connect(endpoint: string, authorityFile: string | undefined, tokens: Tokens): Transport {
  const authorize: Interceptor = (next) => async (request) => {
    request.header.set("Authorization", `Bearer ${await tokens()}`);
    return next(request);
  };
  const nodeOptions = authorityFile === undefined ? {} : { ca: readFileSync(authorityFile) };
  return createGrpcTransport({ baseUrl: `https://${endpoint}`, nodeOptions, interceptors: [authorize] });
}

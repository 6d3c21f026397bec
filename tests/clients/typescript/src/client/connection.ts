/** A connection to the edge of a mesh, with tokens. */

import { readFileSync } from "node:fs";
import type { Interceptor, Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import type { Tokens } from "./tokens.js";

/**
 * Returns a transport to `host:port`. It connects with the first call, and again whenever the connection is lost.
 *
 * @param authorityFile PEM of the authority that signs the edge's certificate; Node's own authorities where undefined.
 */
export function connect(endpoint: string, authorityFile: string | undefined, tokens: Tokens): Transport {
  const nodeOptions = authorityFile === undefined ? {} : { ca: readFileSync(authorityFile) };
  return createGrpcTransport({ baseUrl: `https://${endpoint}`, nodeOptions, interceptors: [authorized(tokens)] });
}

/** Puts a token on every call, and waits for it no longer than the call's own deadline. */
export function authorized(tokens: Tokens): Interceptor {
  return (next) => async (request) => {
    request.header.set("Authorization", `Bearer ${await before(request.signal, tokens())}`);
    return next(request);
  };
}

async function before<T>(end: AbortSignal, promise: Promise<T>): Promise<T> {
  let stop = () => {};
  const ended = new Promise<never>((_, reject) => {
    stop = () => reject(end.reason);
  });
  end.addEventListener("abort", stop);
  try {
    end.throwIfAborted();
    return await Promise.race([promise, ended]);
  } finally {
    end.removeEventListener("abort", stop);
  }
}

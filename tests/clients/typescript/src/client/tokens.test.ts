import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { Code, ConnectError, createClient, createRouterTransport } from "@connectrpc/connect";
import { OrderService } from "../../build/gen/trademesh/oms/v1/order_service_pb.js";
import { authorized } from "./connection.js";
import { clientCredentials, type Issued, shared } from "./tokens.js";

function failsWith(code: Code) {
  return (error: unknown) => ConnectError.from(error).code === code;
}

/** Serves discovery, and a token endpoint that answers as it is told. */
async function withIssuer(status: number, body: string, use: (url: string) => Promise<void>): Promise<void> {
  const server = createServer((request, response) => {
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const found = request.url === "/token" ? { status, body } : { status: 200, body: JSON.stringify({ issuer: url, token_endpoint: `${url}/token` }) };
    response.writeHead(found.status, { "Content-Type": "application/json" }).end(found.body);
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  try {
    await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

test("callers at the same time share one request, and a failed one is repeated", async () => {
  const answers: { resolve(issued: Issued): void; reject(error: Error): void }[] = [];
  const tokens = shared(() => new Promise((resolve, reject) => answers.push({ resolve, reject })));
  const callers = () => Promise.allSettled([tokens(), tokens(), tokens()]);

  const failing = callers();
  answers[0]!.reject(new Error("away"));
  assert.deepEqual((await failing).map((each) => each.status), ["rejected", "rejected", "rejected"]);

  const served = callers();
  answers[1]!.resolve({ token: "short", renewAt: Date.now() - 1 });
  assert.deepEqual((await served).map((each) => each.status === "fulfilled" && each.value), ["short", "short", "short"]);

  const renewed = callers();
  answers[2]!.resolve({ token: "long", renewAt: Date.now() + 60_000 });
  assert.deepEqual((await renewed).map((each) => each.status === "fulfilled" && each.value), ["long", "long", "long"]);
  assert.equal(await tokens(), "long");
  assert.equal(answers.length, 3);
});

for (const [status, body, code] of [
  [401, '{"error": "invalid_client"}', Code.Unauthenticated],
  [400, '{"error": "invalid_scope"}', Code.Unauthenticated],
  [429, '{"error": "slow_down"}', Code.Unavailable],
  [503, "out of order", Code.Unavailable],
  [200, "no JSON", Code.Unavailable],
] as const) {
  test(`an issuer that answers ${status} ${body} is ${Code[code]}`, async () => {
    await withIssuer(status, body, async (url) => {
      await assert.rejects(clientCredentials(url, "id", "secret")(), failsWith(code));
    });
  });
}

test("an issuer that is not there is Unavailable", async () => {
  await assert.rejects(clientCredentials("http://127.0.0.1:1", "id", "secret")(), failsWith(Code.Unavailable));
});

test("a call waits for a token no longer than its deadline", async () => {
  const never = new Promise<string>(() => {});
  const transport = createRouterTransport(({ service }) => service(OrderService, {}), {
    transport: { interceptors: [authorized(() => never)] },
  });
  const called = createClient(OrderService, transport).listOrders({ accountId: "ACC-1" }, { timeoutMs: 20 });
  await assert.rejects(called, failsWith(Code.DeadlineExceeded));
});

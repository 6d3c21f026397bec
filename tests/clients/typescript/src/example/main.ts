/**
 * Buys one share and watches the order until it ends.
 *
 * Reads TRADEMESH_ENDPOINT, TRADEMESH_CA_FILE, TRADEMESH_ISSUER, TRADEMESH_CLIENT_ID, TRADEMESH_CLIENT_SECRET and TRADEMESH_ACCOUNT.
 */

import { randomUUID } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { type Order, OrderState } from "../../build/gen/trademesh/oms/v1/order_pb.js";
import { CreateOrderRequestSchema, OrderService } from "../../build/gen/trademesh/oms/v1/order_service_pb.js";
import { OrderType, Side, TimeInForce } from "../../build/gen/trademesh/type/v1/order_terms_pb.js";
import { connect } from "../client/connection.js";
import { place } from "../client/orders.js";
import { follow } from "../client/subscription.js";
import { clientCredentials } from "../client/tokens.js";

const TRADE_MS = 30_000;
const CALL_MS = 5_000;

function setting(name: string): string {
  const value = process.env[`TRADEMESH_${name}`];
  if (value === undefined) {
    throw new Error(`TRADEMESH_${name} is not set`);
  }
  return value;
}

/** Prints where the order stands, and returns whether it has ended. */
function show(order: Order): boolean {
  console.log(`ORDER_STATE_${OrderState[order.state]} ${order.filledQuantity} at ${order.averagePrice ?? ""}`);
  return order.terminalTime !== undefined;
}

const accountId = setting("ACCOUNT");
const tokens = clientCredentials(setting("ISSUER"), setting("CLIENT_ID"), setting("CLIENT_SECRET"));
const orders = createClient(OrderService, connect(setting("ENDPOINT"), process.env["TRADEMESH_CA_FILE"], tokens));

// The key is made once and kept, in a program that trades on disk: whatever happens, the order is asked for by it.
const clientOrderId = `example-typescript-${randomUUID()}`;
const placed = await place(
  orders,
  create(CreateOrderRequestSchema, {
    accountId,
    clientOrderId,
    instrumentId: "AAPL",
    side: Side.BUY,
    type: OrderType.MARKET,
    timeInForce: TimeInForce.DAY,
    quantity: "1",
  }),
  TRADE_MS,
);
if (placed.state === OrderState.REJECTED) {
  throw new Error(`risk refused ${clientOrderId}: ${placed.reject?.text}`);
}
console.log(`placed ${clientOrderId}`);

for await (const { payload } of follow(orders, { accountId })) {
  if (payload.case === "snapshot" && payload.value.complete) {
    // The order may have ended before the stream began, and is in no snapshot then: the read that follows it sees that.
    const found = await orders.lookupOrder({ accountId, clientOrderId }, { timeoutMs: CALL_MS });
    if (show(found.order!)) {
      break;
    }
  }
  if (payload.case === "event" && payload.value.order?.clientOrderId === clientOrderId && show(payload.value.order)) {
    break;
  }
}
process.exit(0);

/** Orders that are placed once. */

import { setTimeout } from "node:timers/promises";
import type { Client } from "@connectrpc/connect";
import type { Order } from "../../build/gen/trademesh/oms/v1/order_pb.js";
import type { CreateOrderRequest, OrderService } from "../../build/gen/trademesh/oms/v1/order_service_pb.js";
import { refusal } from "./refusal.js";

const ATTEMPT_MS = 3_000;
const PAUSE_FIRST_MS = 50;
const PAUSE_LONGEST_MS = 2_000;

/** What became of an order is not known yet: call `place` again with the same request, later or from another process. */
export class OutcomeOpenError extends Error {}

/**
 * Sends an order until it is known what became of it, always under the request's own clientOrderId, so that it is placed once.
 *
 * An order that risk refused is returned like any other: look at its state.
 *
 * @throws OutcomeOpenError `withinMs` passed first, or an attempt was refused that came after one without an answer: such a refusal says
 *   nothing of the attempt before it, unless it settles.
 * @throws ConnectError with a final refusal: this call made no order. Of an earlier one under the same key, which was left open, only a
 *   refusal that settles says so too.
 */
export async function place(orders: Client<typeof OrderService>, request: CreateOrderRequest, withinMs: number): Promise<Order> {
  const end = Date.now() + withinMs;
  const left = () => Math.max(1, Math.min(ATTEMPT_MS, end - Date.now()));
  let unanswered = false;
  for (let pause = PAUSE_FIRST_MS; ; pause = Math.min(2 * pause, PAUSE_LONGEST_MS)) {
    try {
      return (await orders.createOrder(request, { timeoutMs: left() })).order!;
    } catch (error) {
      const refused = refusal(error);
      const open = () => new OutcomeOpenError(`the outcome of ${request.clientOrderId} is open`, { cause: error });
      if (refused.final) {
        throw unanswered && !refused.settles ? open() : error;
      }
      if (!refused.nothingDone) {
        unanswered = true;
        const found = await lookup(orders, request, left());
        if (found !== undefined) {
          return found;
        }
      }
      const wait = Math.max(pause, refused.retryAfterMs);
      if (Date.now() + wait >= end) {
        throw open();
      }
      await setTimeout(wait);
    }
  }
}

/** Asks for the order by its key. Not found proves little while the first attempt may still be under way; sending it again does. */
async function lookup(orders: Client<typeof OrderService>, request: CreateOrderRequest, timeoutMs: number): Promise<Order | undefined> {
  try {
    return (await orders.lookupOrder({ accountId: request.accountId, clientOrderId: request.clientOrderId }, { timeoutMs })).order;
  } catch {
    return undefined;
  }
}

/** What the steps of a scenario do, by their verbs. */

import { setTimeout } from "node:timers/promises";
import { type DescMethodUnary, fromJsonString, toJson } from "@bufbuild/protobuf";
import { type CallOptions, type Client, ConnectError } from "@connectrpc/connect";
import { OrderSchema } from "../../build/gen/trademesh/oms/v1/order_pb.js";
import {
  CreateOrderRequestSchema, ListOrdersRequestSchema, OrderService, StreamOrderEventsRequestSchema,
} from "../../build/gen/trademesh/oms/v1/order_service_pb.js";
import { OutcomeOpenError, place } from "../client/orders.js";
import { follow, Subscription } from "../client/subscription.js";
import { brief, fill, matches, refused, type Values } from "./shown.js";

const CALL_MS = 30_000;
const WITHIN_MS = 15_000;
const REPEAT_MS = 20;
const PAGES_MAX = 100;
const NAMES = { useProtoFieldName: true };

/** Which fields count depends on the verb. */
export interface Step {
  verb: string;
  method?: string;
  user?: string;
  door?: string;
  stream?: string;
  request: unknown;
  timeout_ms?: number;
  within_ms?: number;
  until?: Values;
  save?: string;
}

type Orders = Client<typeof OrderService>;

/** One scenario under way; `end` is its bound: streams break then, and no further step begins. */
export class Stage {
  private readonly saved: Values = {};
  private readonly streams = new Map<string, Subscription>();

  constructor(private readonly orders: (step: Step) => Orders, private readonly end: AbortSignal) {
    end.addEventListener("abort", () => this.close());
  }

  async perform(step: Step): Promise<Values> {
    this.end.throwIfAborted();
    const request = fill(step.request, this.saved);
    const verbs: Record<string, () => Promise<Values>> = {
      call: () => this.call(step, request),
      place: () => this.place(step, request),
      pages: () => this.pages(step, request),
      read: () => this.read(step, request),
      break: () => this.cut(step),
      follow: () => this.follow(step, request),
    };
    const verb = verbs[step.verb];
    if (verb === undefined) {
      throw new Error(`no verb ${step.verb}`);
    }
    const seen = await verb();
    if (step.save !== undefined) {
      this.saved[step.save] = seen;
    }
    return seen;
  }

  close(): void {
    this.streams.forEach((stream) => stream.close());
  }

  /** Makes one call, or the same until its answer is as the table wants it. */
  private async call(step: Step, request: string): Promise<Values> {
    const end = Date.now() + (step.within_ms ?? WITHIN_MS);
    for (;;) {
      const seen = await once(this.orders(step), step.method!, request, step.timeout_ms ?? CALL_MS);
      if (step.until === undefined || matches(seen, step.until) || Date.now() > end || this.end.aborted) {
        return seen;
      }
      await setTimeout(REPEAT_MS);
    }
  }

  /** Sends an order the way a program should: until its outcome is known. */
  private async place(step: Step, request: string): Promise<Values> {
    try {
      const order = await place(this.orders(step), fromJsonString(CreateOrderRequestSchema, request), step.within_ms ?? WITHIN_MS);
      return { code: "OK", response: { order: toJson(OrderSchema, order, NAMES) } };
    } catch (error) {
      const open = error instanceof OutcomeOpenError;
      return { ...refusedOrThrown(open ? error.cause : error), open };
    }
  }

  /** Walks a list to its end. */
  private async pages(step: Step, request: string): Promise<Values> {
    const wanted = fromJsonString(ListOrdersRequestSchema, request);
    const sizes: number[] = [];
    const keys: string[] = [];
    try {
      do {
        const page = await this.orders(step).listOrders(wanted, { timeoutMs: CALL_MS });
        sizes.push(page.orders.length);
        keys.push(...page.orders.map((order) => order.clientOrderId));
        wanted.pageToken = page.nextPageToken;
      } while (wanted.pageToken !== "" && sizes.length < PAGES_MAX);
    } catch (error) {
      return refusedOrThrown(error);
    }
    return { code: "OK", sizes, client_order_ids: keys };
  }

  /** Takes messages of a stream until one is as the table wants it, opening or resuming the stream where it is not open. */
  private async read(step: Step, request: string): Promise<Values> {
    const name = step.stream!;
    const stream = this.streams.get(name) ?? new Subscription(this.orders(step), fromJsonString(StreamOrderEventsRequestSchema, request));
    this.streams.set(name, stream);
    const messages: Values[] = [];
    try {
      for (;;) {
        const shown = brief(await stream.next());
        messages.push(shown);
        if (matches(shown, step.until!)) {
          return { code: "OK", messages };
        }
      }
    } catch (error) {
      return { ...refusedOrThrown(error), messages };
    }
  }

  /** Takes what `follow` yields, over all connections, until a message is as the table wants it. */
  private async follow(step: Step, request: string): Promise<Values> {
    const messages: Values[] = [];
    try {
      for await (const message of follow(this.orders(step), fromJsonString(StreamOrderEventsRequestSchema, request), this.end)) {
        const shown = brief(message);
        messages.push(shown);
        if (matches(shown, step.until!)) {
          return { code: "OK", messages };
        }
      }
    } catch (error) {
      return { ...refusedOrThrown(error), messages };
    }
    throw new Error("the stream ended");
  }

  /** Ends a stream's call, as a client does that goes away. */
  private async cut(step: Step): Promise<Values> {
    this.streams.get(step.stream!)!.close();
    return {};
  }
}

async function once(orders: Orders, name: string, request: string, timeoutMs: number): Promise<Values> {
  const method = OrderService.methods.find((found) => found.name === name) as DescMethodUnary;
  const call = orders[method.localName as keyof Orders] as unknown as (request: object, options: CallOptions) => Promise<object>;
  let replayed = false;
  const onHeader = (headers: Headers) => {
    replayed = headers.get("idempotency-replayed") === "true";
  };
  try {
    const answer = await call(fromJsonString(method.input, request), { timeoutMs, onHeader });
    return { code: "OK", replayed, response: toJson(method.output, answer as Parameters<typeof toJson>[1], NAMES) };
  } catch (error) {
    return refusedOrThrown(error);
  }
}

function refusedOrThrown(error: unknown): Values {
  if (error instanceof ConnectError) {
    return refused(error);
  }
  throw error;
}

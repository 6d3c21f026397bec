/** Streams of order events that outlive their connections. */

import { setTimeout as pass } from "node:timers/promises";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, type Client, ConnectError } from "@connectrpc/connect";
import {
  type OrderService, type StreamOrderEventsRequest, StreamOrderEventsRequestSchema, type StreamOrderEventsResponse,
} from "../../build/gen/trademesh/oms/v1/order_service_pb.js";
import { errorOf, refusal } from "./refusal.js";

const HEARTBEAT_DEFAULT_MS = 5_000;
const HEARTBEATS_MISSING = 3;
const PAUSE_FIRST_MS = 50;
const PAUSE_LONGEST_MS = 2_000;

/** One view of an account's orders. */
export class Subscription {
  private readonly request: StreamOrderEventsRequest;
  private readonly silenceMs: number;
  private stream: AsyncIterator<StreamOrderEventsResponse> | undefined;
  private abort = new AbortController();
  private sequence = 0n;

  /** Prepares a subscription; the first `next` opens it. */
  constructor(private readonly orders: Client<typeof OrderService>, request: MessageInitShape<typeof StreamOrderEventsRequestSchema>) {
    this.request = create(StreamOrderEventsRequestSchema, request);
    const interval = this.request.heartbeatInterval;
    const heartbeatMs = interval === undefined ? HEARTBEAT_DEFAULT_MS : Number(interval.seconds) * 1000 + interval.nanos / 1e6;
    this.silenceMs = HEARTBEATS_MISSING * heartbeatMs;
  }

  /** Returns the next message, each sequence once. After an error the next call goes on behind the last message that was returned. */
  async next(): Promise<StreamOrderEventsResponse> {
    if (this.stream === undefined) {
      this.abort = new AbortController();
      this.stream = this.orders.streamOrderEvents(this.request, { signal: this.abort.signal })[Symbol.asyncIterator]();
    }
    try {
      for (;;) {
        const message = await this.receive(this.stream);
        if (this.isNew(message)) {
          return message;
        }
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Ends the connection's stream; `next` opens another one, which goes on where this one ended. */
  close(): void {
    this.stream = undefined;
    this.abort.abort();
  }

  private async receive(stream: AsyncIterator<StreamOrderEventsResponse>): Promise<StreamOrderEventsResponse> {
    // A peer that is gone may leave a connection that stays silent for minutes; a live one sends heartbeats.
    const watchdog = setTimeout(() => this.abort.abort(), this.silenceMs);
    try {
      const result = await stream.next();
      if (result.done === true) {
        throw new ConnectError("the stream was cut: it ended without its last message", Code.Unavailable);
      }
      return result.value;
    } finally {
      clearTimeout(watchdog);
    }
  }

  /** False for a message that was seen before, which at-least-once delivery allows after a resume. */
  private isNew(message: StreamOrderEventsResponse): boolean {
    if (message.payload.case === "heartbeat") {
      this.expect(message.payload.value.lastSequence <= this.sequence, message.payload.value.lastSequence);
      return true;
    }
    if (message.sequence <= this.sequence) {
      return false;
    }
    this.expect(message.sequence === this.sequence + 1n, message.sequence);
    this.sequence = message.sequence;
    this.request.resumeToken = message.resumeToken || this.request.resumeToken;
    return true;
  }

  private expect(contiguous: boolean, sent: bigint): void {
    if (!contiguous) {
      throw new ConnectError(`the stream has a gap: ${sent} was sent, ${this.sequence} has come`, Code.DataLoss);
    }
  }
}

/**
 * Yields every message but heartbeats, in order, and resumes the stream when it breaks. Each change of an order comes once: what a snapshot
 * has shown may come again where the stream is resumed right behind it, and is left out.
 *
 * A snapshot comes first, and again after a resync, which says that the view before it is void. Ends when the caller breaks out of the loop.
 *
 * @param end ends it while the caller waits for a message; what is thrown then is the signal's reason.
 * @throws ConnectError the service refuses the subscription for good.
 */
export async function* follow(
  orders: Client<typeof OrderService>, request: MessageInitShape<typeof StreamOrderEventsRequestSchema>, end?: AbortSignal,
): AsyncGenerator<StreamOrderEventsResponse> {
  const subscription = new Subscription(orders, request);
  const shown = new Map<string, bigint>();
  const stop = () => subscription.close();
  end?.addEventListener("abort", stop);
  let pause = PAUSE_FIRST_MS;
  try {
    for (;;) {
      end?.throwIfAborted();
      try {
        const message = await subscription.next();
        if (message.payload.case === "end") {
          subscription.close();
          const error = errorOf(message.payload.value.status);
          if (error === undefined) {
            return;
          }
          // A token that ended while the stream ran is replaced by the next call's.
          throw refusal(error).reason === "TOKEN_EXPIRED" ? new ConnectError(error.rawMessage, Code.Unavailable) : error;
        }
        if (message.payload.case !== "heartbeat" && isUntold(message, shown)) {
          yield message;
        }
        pause = PAUSE_FIRST_MS;
      } catch (error) {
        if (!(error instanceof ConnectError) || refusal(error).final) {
          throw error;
        }
        await pass(pause);
        pause = Math.min(2 * pause, PAUSE_LONGEST_MS);
      }
    }
  } finally {
    end?.removeEventListener("abort", stop);
    subscription.close();
  }
}

function isUntold(message: StreamOrderEventsResponse, shown: Map<string, bigint>): boolean {
  switch (message.payload.case) {
    case "resync":
      shown.clear();
      return true;
    case "snapshot":
      message.payload.value.orders.forEach((order) => shown.set(order.orderId, order.version));
      return true;
    case "event": {
      const order = message.payload.value.order;
      return order === undefined || order.version > (shown.get(order.orderId) ?? 0n);
    }
    default:
      return true;
  }
}

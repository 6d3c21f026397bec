/** What the table can expect and name: answers, errors and messages as JSON values. */

import { Code } from "@connectrpc/connect";
import { OrderState } from "../../build/gen/trademesh/oms/v1/order_pb.js";
import type { StreamOrderEventsResponse } from "../../build/gen/trademesh/oms/v1/order_service_pb.js";
import { refusal } from "../client/refusal.js";

export type Values = Record<string, unknown>;

/** Spells a code as the specification does: NOT_FOUND, CANCELLED. */
export function codeName(code: Code | 0): string {
  if (code === 0) {
    return "OK";
  }
  return code === Code.Canceled ? "CANCELLED" : Code[code].replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
}

export function refused(error: unknown): Values {
  const told = refusal(error);
  const violations = told.violations.map((violation) => ({ field: violation.field, rule: violation.reason }));
  return { code: codeName(told.code), reason: told.reason, violations, message: told.message };
}

export function brief({ sequence, payload }: StreamOrderEventsResponse): Values {
  const shown = { kind: payload.case, sequence: Number(sequence) };
  switch (payload.case) {
    case "snapshot": {
      const versions = Object.fromEntries(payload.value.orders.map((order) => [order.clientOrderId, Number(order.version)]));
      return { ...shown, complete: payload.value.complete, versions };
    }
    case "event": {
      const order = payload.value.order!;
      const versions = { [order.clientOrderId]: Number(order.version) };
      return { ...shown, client_order_id: order.clientOrderId, state: `ORDER_STATE_${OrderState[order.state]}`, versions };
    }
    case "heartbeat":
      return { ...shown, last_sequence: Number(payload.value.lastSequence) };
    case "end":
      return { ...shown, end: codeName((payload.value.status?.code ?? 0) as Code | 0) };
    default:
      return shown;
  }
}

/** Puts what earlier steps saw in the place of ${name.path}. */
export function fill(request: unknown, saved: Values): string {
  return JSON.stringify(request).replace(/\$\{([a-z0-9_.]+)\}/g, (found, path: string) => {
    const value = at(saved, path);
    if (value === undefined) {
      throw new Error(`nothing is saved as ${found}`);
    }
    return String(value);
  });
}

export function matches(seen: Values, wanted: Values): boolean {
  return Object.entries(wanted).every(([path, value]) => at(seen, path) === value);
}

function at(values: unknown, path: string): unknown {
  return path.split(".").reduce<unknown>((value, name) => (value as Values | undefined)?.[name], values);
}

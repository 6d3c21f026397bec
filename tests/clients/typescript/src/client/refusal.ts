/** What an error of a call says, with its details decoded. */

import { Code, ConnectError } from "@connectrpc/connect";
import { type BadRequest_FieldViolation, BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../../build/gen/google/rpc/error_details_pb.js";
import type { Status } from "../../build/gen/google/rpc/status_pb.js";

const DOMAIN = "trademesh";
const FINAL: ReadonlySet<Code> = new Set([
  Code.InvalidArgument, Code.FailedPrecondition, Code.PermissionDenied, Code.Unauthenticated, Code.NotFound, Code.AlreadyExists, Code.Aborted,
  Code.OutOfRange, Code.Unimplemented,
]);

export interface Refusal {
  code: Code;
  message: string;
  /** A value's name of trademesh.error.v1.ErrorReason; empty where the error did not come from Trademesh. */
  reason: string;
  metadata: Record<string, string>;
  violations: BadRequest_FieldViolation[];
  retryAfterMs: number;
  /** Trademesh itself could not take the request: it may be sent again as it is. */
  nothingDone: boolean;
  /** The request was refused for what it is, and would be again. */
  final: boolean;
  /**
   * A key was looked at and there is no order of this command under it, nor will there be: another command has the key, or its order was
   * given up. What else refuses an order is decided without the key, or before an earlier attempt has come to its end.
   */
  settles: boolean;
}

/** Decodes the error of a call. */
export function refusal(error: unknown): Refusal {
  const told = ConnectError.from(error);
  const info = told.findDetails(ErrorInfoSchema).find((detail) => detail.domain === DOMAIN);
  const delay = told.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const reason = info?.reason ?? "";
  return {
    code: told.code,
    message: told.rawMessage,
    reason,
    metadata: info?.metadata ?? {},
    violations: told.findDetails(BadRequestSchema).flatMap((detail) => detail.fieldViolations),
    retryAfterMs: delay === undefined ? 0 : Number(delay.seconds) * 1000 + delay.nanos / 1e6,
    nothingDone: reason !== "" && (told.code === Code.Unavailable || told.code === Code.ResourceExhausted),
    final: FINAL.has(told.code),
    settles: reason !== "" && (told.code === Code.AlreadyExists || told.code === Code.FailedPrecondition),
  };
}

/** Returns the status in the last message of a stream as an error; undefined where all is well. */
export function errorOf(status: Status | undefined): ConnectError | undefined {
  if (status === undefined || status.code === 0) {
    return undefined;
  }
  const error = new ConnectError(status.message, status.code as Code);
  error.details = status.details.map((detail) => ({ type: detail.typeUrl.replace(/^.*\//, ""), value: detail.value }));
  return error;
}

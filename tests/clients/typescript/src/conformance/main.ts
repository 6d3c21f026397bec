/** Runs the scenario table and prints what it saw, one JSON line per scenario. It judges nothing: the driver does. */

import { readFileSync } from "node:fs";
import { type Client, createClient } from "@connectrpc/connect";
import { OrderService } from "../../build/gen/trademesh/oms/v1/order_service_pb.js";
import { connect } from "../client/connection.js";
import { clientCredentials, fixedToken, type Tokens } from "../client/tokens.js";
import type { Values } from "./shown.js";
import { Stage, type Step } from "./verbs.js";

interface User {
  client_id: string;
  client_secret: string;
  issuer: string;
  token?: string;
}

/** The runner's input: where the mesh is, who calls, and what to do. */
interface Task {
  doors: Record<string, string>;
  authority_file: string;
  users: Record<string, User>;
  scenarios: { name: string; steps: Step[] }[];
}

const SCENARIO_MS = 60_000;

const task = JSON.parse(readFileSync(process.argv[2]!, "utf8")) as Task;
const clients = new Map<string, Client<typeof OrderService>>();
const tokens = new Map<string, Tokens>();

function tokensOf(name: string): Tokens {
  const user = task.users[name]!;
  const known = tokens.get(name) ?? (user.token !== undefined ? fixedToken(user.token) : clientCredentials(user.issuer, user.client_id, user.client_secret));
  tokens.set(name, known);
  return known;
}

function orders(step: Step): Client<typeof OrderService> {
  const key = `${step.user} ${step.door}`;
  const known = clients.get(key) ?? createClient(OrderService, connect(task.doors[step.door!]!, task.authority_file, tokensOf(step.user!)));
  clients.set(key, known);
  return known;
}

for (const scenario of task.scenarios) {
  const began = performance.now();
  const stage = new Stage(orders, AbortSignal.timeout(SCENARIO_MS));
  const report: Values = { scenario: scenario.name };
  const steps: Values[] = [];
  try {
    for (const step of scenario.steps) {
      steps.push(await stage.perform(step));
    }
  } catch (error) {
    report["error"] = `step ${steps.length + 1}: ${String(error)}`;
  } finally {
    stage.close();
  }
  console.log(JSON.stringify({ ...report, steps, seconds: (performance.now() - began) / 1000 }));
}
process.exit(0);

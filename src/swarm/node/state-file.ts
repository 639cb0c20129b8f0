/** What a node keeps of its membership besides certificates and tasks: `<stateDir>/state.json`. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import * as z from "zod";
import { readFileIfAny, writeFileAtomic } from "../../base/file.ts";

const schema = z.object({
  /** "ip:port" on which the manager listens, or would. */
  listenAddr: z.string(),
  /** "host:port" told to others. */
  advertiseAddr: z.string(),
  /** "" = as advertiseAddr. */
  dataPathAddr: z.string(),
  /** Whether this host runs a manager. A promoted node's certificate says so before it is true. */
  manager: z.boolean(),
  /** Managers to come back to. */
  remotes: z.array(z.object({ nodeId: z.string(), addr: z.string() })),
  /** A join that has not yet led to a certificate; gone as soon as it has. */
  join: z.object({ remoteAddrs: z.array(z.string()), token: z.string(), availability: z.number() }).optional(),
});

export type NodeState = z.infer<typeof schema>;

const path = (stateDir: string) => join(stateDir, "state.json");

/** Undefined when this host is in no swarm. Throws when the file cannot be understood. */
export function readState(stateDir: string): NodeState | undefined {
  const text = readFileIfAny(path(stateDir));
  return text === undefined ? undefined : schema.parse(JSON.parse(text));
}

export function writeState(stateDir: string, state: NodeState): void {
  writeFileAtomic(path(stateDir), `${JSON.stringify(state, null, 2)}\n`);
}

/** Forgets everything that this host knew of its swarm. */
export function clearState(stateDir: string): void {
  // The state file first: what is left of the rest without it means nothing.
  rmSync(path(stateDir), { force: true });
  rmSync(stateDir, { recursive: true, force: true });
}

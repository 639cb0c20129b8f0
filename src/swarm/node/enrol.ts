/** From a join token to a certificate: the part of joining that needs patience. */
import { type Clock, sleep } from "../../base/clock.ts";
import { SkeinError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { anonymousConnection } from "../ca/transport.ts";
import { downloadRoot, requestCertificate } from "./certificate-client.ts";
import { NodeIdentity } from "./identity.ts";
import { type NodeState, writeState } from "./state-file.ts";

/** A join that failed is tried again after this, doubling. */
const againMs = { first: 200, max: 30_000 };

export interface EnrolOptions {
  readonly clock: Clock;
  readonly log: Logger;
  readonly random: () => number;
  readonly signal: AbortSignal;
  /** Whether a failure now is final. */
  giveUp(): boolean;
  onFailure(error: unknown): void;
}

/** Gets a certificate with the token in `state.join`; gives the state to go on with, already on disk. */
export async function enrol(
  stateDir: string,
  state: NodeState,
  options: EnrolOptions,
): Promise<{ identity: NodeIdentity; state: NodeState }> {
  const { clock, log, signal } = options;
  writeState(stateDir, state);
  let wait = againMs.first;
  for (;;) {
    try {
      return await once(stateDir, state, options);
    } catch (error) {
      signal.throwIfAborted();
      options.onFailure(error);
      const hopeless = error instanceof SkeinError && (error.code === "invalid" || error.code === "notImplemented");
      if (hopeless || options.giveUp()) throw error;
      log.warn("joining failed; it is tried again", { error });
    }
    await sleep(clock, wait, signal);
    wait = Math.min(2 * wait, againMs.max);
  }
}

async function once(
  stateDir: string,
  state: NodeState,
  { clock, log, random, signal }: EnrolOptions,
): Promise<{ identity: NodeIdentity; state: NodeState }> {
  const { join } = state;
  if (!join) throw new Error("there is no join to go on with");
  const pick = () => {
    const addr = join.remoteAddrs[Math.floor(random() * join.remoteAddrs.length)];
    if (addr === undefined) throw new SkeinError("invalid", "at least 1 RemoteAddr is required to join");
    return addr;
  };
  const { token } = join;
  const rootPem = await downloadRoot(pick(), token, { clock, log, signal });
  const issued = await requestCertificate({
    rootPem,
    token,
    availability: join.availability,
    connect: () => anonymousConnection(pick(), rootPem),
    clock,
    log,
    signal,
  });
  const identity = NodeIdentity.create(stateDir, rootPem, issued);
  const { join: _, ...rest } = state;
  const joined = {
    ...rest,
    manager: identity.isManager,
    remotes: join.remoteAddrs.map((addr) => ({ nodeId: "", addr })),
  };
  writeState(stateDir, joined);
  return { identity, state: joined };
}

/** How a manager asks the others to take it in. */
import { type JoinResponse, Managers } from "#proto/skein/swarm/managers_pb.js";
import { type Clock, sleep } from "../../../base/clock.ts";
import { SkeinError } from "../../../base/errors.ts";
import { type Channel, grpcCodeOf, grpcMessageOf, status } from "../../../base/grpc.ts";
import type { Logger } from "../../../base/log.ts";

const CALL_MS = 10_000;
const WAIT_MS = { first: 200, max: 2_000 };

export interface JoinOptions {
  /** Where this manager is reached. */
  readonly addr: string;
  /** The other managers. */
  readonly remotes: () => readonly string[];
  readonly connect: (addr: string) => Channel;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/**
 * Asks one manager after the other until this one is a member. Only one manager joins at a time, and a swarm may be
 * without a leader for a moment: those refusals pass.
 */
export async function askToJoin(options: JoinOptions): Promise<JoinResponse> {
  const { addr, clock, connect, log, remotes, signal } = options;
  let wait = WAIT_MS.first;
  for (let turn = 0; ; turn++) {
    const known = remotes().filter((remote) => remote !== addr);
    const remote = known[turn % known.length];
    if (remote === undefined) throw new SkeinError("unavailable", "no manager is known that could take this one in");
    const channel = connect(remote);
    try {
      return await channel.client(Managers).join({ addr }, { timeoutMs: CALL_MS, signal });
    } catch (error) {
      signal.throwIfAborted();
      const code = grpcCodeOf(error);
      if (code === status.UNIMPLEMENTED) {
        throw new SkeinError(
          "notImplemented",
          "this swarm is managed by Docker, whose managers keep their state otherwise: a Skein node can join it as a worker only",
        );
      }
      log.warn("the managers did not take this one in, asking again", {
        manager: remote,
        reason: grpcMessageOf(error),
      });
    } finally {
      channel.close();
    }
    await sleep(clock, wait, signal);
    wait = Math.min(2 * wait, WAIT_MS.max);
  }
}

/**
 * What users ask of any manager: it reads its own copy of the store; what has to be written, and logs, the one that leads
 * does, wherever it is.
 */
import { Logs } from "#proto/docker/swarmkit/logbroker_pb.js";
import { Managers, type WriteRequest } from "#proto/skein/swarm/managers_pb.js";
import type { Clock } from "../../../base/clock.ts";
import type { SkeinError } from "../../../base/errors.ts";
import { grpcCodeOf, status } from "../../../base/grpc.ts";
import type { Store } from "../../store/store.ts";
import type { ControlApi } from "../../types.ts";
import { createControl } from "../control/control.ts";
import { LogBroker } from "../log-broker.ts";
import { noLeader } from "./errors.ts";
import type { Lead } from "./lead.ts";
import type { LeaderLink } from "./leader-link.ts";
import type { Looks } from "./looks.ts";
import { forwardedWrites, writeError } from "./writes.ts";

const WRITE_MS = 20_000;

export interface AnyControlOptions {
  readonly store: Store;
  readonly clusterId: string;
  readonly lead: Lead;
  readonly link: LeaderLink;
  readonly looks: Looks;
  /** Why users are refused now. */
  readonly refusal: () => SkeinError | undefined;
  readonly clock: Clock;
}

export function createAnyControl(options: AnyControlOptions): ControlApi {
  const read = createReads(options);
  const forwarded = forwardedWrites((request) => sendWrite(options, request), read);
  const writes = Object.fromEntries(
    (Object.keys(forwarded) as (keyof typeof forwarded)[]).map((name) => [
      name,
      async (...given: never[]) => {
        const here = await whoWrites(options);
        const act = (here ?? forwarded)[name] as (...given: never[]) => Promise<unknown>;
        return act(...given);
      },
    ]),
  ) as typeof forwarded;
  return {
    ...read,
    ...writes,
    isLeader: () => options.lead.reign !== undefined,
    logs: (selector, wanted, signal) => logs(options, selector, wanted, signal),
  };
}

function createReads({ clock, clusterId, store }: AnyControlOptions): ControlApi {
  const nobody = { caller: () => undefined, require: () => ({ cn: "", ou: "", o: "" }), isDemoted: () => false };
  const unused = new LogBroker(store, nobody);
  unused.close();
  return createControl({
    ...{ store, clusterId, clock },
    allocated: () => {
      throw noLeader();
    },
    authorities: { reachable: () => Promise.reject(noLeader()), crossSign: () => Promise.reject(noLeader()) },
    logs: unused,
    underFreshKey: () => Promise.reject(noLeader()),
  });
}

/** Waits for a leader to be there; throws Docker's words when there is none for too long. */
async function awaitLeader({ lead, link, looks, refusal }: AnyControlOptions): Promise<void> {
  for (;;) {
    if (lead.reign || (await link.answering())) return;
    const refused = refusal();
    if (refused) throw refused;
    await looks.next();
  }
}

/** This manager's own control when a quorum says that it leads; undefined when another does. */
async function whoWrites(options: AnyControlOptions): Promise<ControlApi | undefined> {
  const { lead, looks } = options;
  for (;;) {
    await awaitLeader(options);
    const { reign } = lead;
    if (!reign || (await lead.confirm())) return reign?.control;
    await looks.next();
  }
}

async function sendWrite({ link, store }: AnyControlOptions, request: WriteRequest): Promise<string> {
  const leader = link.get();
  if (!leader) throw noLeader();
  try {
    const given = { signal: leader.gone, timeoutMs: WRITE_MS };
    const answer = await leader.channel.client(Managers).write(request, given);
    if (answer.error) throw writeError(answer.error);
    await store.reached(answer.revision);
    return answer.id;
  } catch (error) {
    const code = grpcCodeOf(error);
    const lost = code === status.UNAVAILABLE || code === status.CANCELLED || code === status.DEADLINE_EXCEEDED;
    throw lost ? noLeader() : error;
  }
}

async function* logs(
  all: AnyControlOptions,
  ...[selector, options, signal]: Parameters<ControlApi["logs"]>
): ReturnType<ControlApi["logs"]> {
  await awaitLeader(all);
  const here = all.lead.reign?.control;
  if (here) {
    yield* here.logs(selector, options, signal);
    return;
  }
  const leader = all.link.get();
  if (!leader) throw noLeader();
  for await (const { messages } of leader.channel.client(Logs).subscribeLogs({ selector, options }, { signal })) {
    yield* messages;
  }
}

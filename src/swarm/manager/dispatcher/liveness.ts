/**
 * Which nodes have a session, and since when they were silent. A node that does not beat for three periods is lost.
 * Gossip gives a second opinion where it has one: two signals are enough after two periods; while gossip hears the
 * node, it has as long as with Docker. As long has one whose host says that only the engine is away (`refusal.ts`).
 */
import type { Clock } from "../../../base/clock.ts";
import { GrpcError, status } from "../../../base/grpc.ts";
import { swarmId } from "../../../base/id.ts";
import { ToldBalancers } from "./balancers.ts";

/** Periods of silence. */
const GRACE = 3;
const GRACE_SUSPECTED = 2;
/** Nodes may need longer to find us after this manager started. */
const GRACE_UNKNOWN = 6;
/** Docker's period times three: shorter periods do not make a busy host that gossip hears a lost one. */
const LEAST_GRACE_MS = 15_000;
/** A check that comes so late finds this process stalled, with beats that wait to be read. */
const STALL_MS = 500;
const RATE_LIMIT = 3;
const RATE_WINDOW_MS = 8_000;
const JITTER_MS = 500;

export interface Session {
  readonly nodeId: string;
  readonly id: string;
  /** Aborted when another session takes its place or the node is lost. */
  readonly ended: AbortController;
  readonly balancers: ToldBalancers;
}

export class Liveness {
  readonly #clock: Clock;
  readonly #periodMs: () => number;
  readonly #onLost: (nodeId: string, message: string) => void;
  readonly #isSilent: (nodeId: string) => boolean | undefined;
  readonly #isRestarting: ((nodeId: string) => Promise<boolean>) | undefined;
  readonly #sessions = new Map<string, Session>();
  readonly #timers = new Map<string, () => void>();
  readonly #registrations = new Map<string, number[]>();

  /** `isSilent`: gossip's opinion of a node; undefined where it has none. `isRestarting`: its host lives without an engine. */
  constructor(
    clock: Clock,
    periodMs: () => number,
    onLost: (nodeId: string, message: string) => void,
    isSilent: (nodeId: string) => boolean | undefined = () => undefined,
    isRestarting?: (nodeId: string) => Promise<boolean>,
  ) {
    this.#clock = clock;
    this.#periodMs = periodMs;
    this.#onLost = onLost;
    this.#isSilent = isSilent;
    this.#isRestarting = isRestarting;
  }

  /** The node was known before this manager started: give it time to find us. */
  expect(nodeId: string): void {
    this.#arm(nodeId, GRACE_UNKNOWN, 'heartbeat failure for node in "unknown" state');
  }

  /** A new session, which ends the node's former one. Throws UNAVAILABLE past three in eight seconds. */
  register(nodeId: string): Session {
    const now = this.#clock.steady();
    const recent = (this.#registrations.get(nodeId) ?? []).filter((at) => now - at < RATE_WINDOW_MS);
    if (recent.length >= RATE_LIMIT) {
      throw new GrpcError(status.UNAVAILABLE, `node ${nodeId} exceeded rate limit count of registrations`);
    }
    this.#registrations.set(nodeId, [...recent, now]);
    this.#sessions.get(nodeId)?.ended.abort(new GrpcError(status.INVALID_ARGUMENT, "session invalid"));
    const session = { nodeId, id: swarmId(), ended: new AbortController(), balancers: new ToldBalancers() };
    this.#sessions.set(nodeId, session);
    this.#arm(nodeId, GRACE, "heartbeat failure");
    return session;
  }

  /** The node's session with this id; throws as the protocol wants. */
  check(nodeId: string, sessionId: string): Session {
    const session = this.#sessions.get(nodeId);
    if (!session) throw new GrpcError(status.NOT_FOUND, "node not registered");
    if (session.id !== sessionId) throw new GrpcError(status.INVALID_ARGUMENT, "session invalid");
    return session;
  }

  find(nodeId: string, sessionId: string): Session | undefined {
    const session = this.#sessions.get(nodeId);
    return session && session.id === sessionId ? session : undefined;
  }

  /** A beat; returns after how many milliseconds the next one is wanted. */
  beat(nodeId: string, sessionId: string): number {
    this.check(nodeId, sessionId);
    const period = this.#periodMs();
    this.#arm(nodeId, GRACE, "heartbeat failure");
    return period + (Math.random() * 2 - 1) * Math.min(JITTER_MS, period / 10);
  }

  /** Ends the node's session, if it has one. */
  forget(nodeId: string, reason: GrpcError): void {
    this.#timers.get(nodeId)?.();
    this.#timers.delete(nodeId);
    this.#registrations.delete(nodeId);
    this.#sessions.get(nodeId)?.ended.abort(reason);
    this.#sessions.delete(nodeId);
  }

  get sessions(): Session[] {
    return [...this.#sessions.values()];
  }

  close(reason: GrpcError): void {
    for (const nodeId of new Set([...this.#sessions.keys(), ...this.#timers.keys()])) this.forget(nodeId, reason);
  }

  #arm(nodeId: string, periods: number, message: string): void {
    const period = this.#periodMs();
    let since = this.#clock.steady();
    const grace = periods === GRACE ? period * periods : Math.max(period * periods, LEAST_GRACE_MS);
    const graceSuspected = period * (periods - GRACE + GRACE_SUSPECTED);
    const graceHeard = Math.max(grace, LEAST_GRACE_MS);
    const lose = () => {
      this.forget(nodeId, new GrpcError(status.NOT_FOUND, "node not registered"));
      this.#onLost(nodeId, message);
    };
    const look = (inMs: number) => {
      this.#timers.get(nodeId)?.();
      const due = this.#clock.steady() + inMs;
      const cancel = this.#clock.after(inMs, () => {
        const now = this.#clock.steady();
        if (now - due > STALL_MS) since += now - due;
        const silent = this.#isSilent(nodeId);
        const limit = silent === true ? graceSuspected : silent === false ? graceHeard : grace;
        if (now - since < limit) return look(Math.min(since + limit - now, period / 4));
        if (!this.#isRestarting || now - since >= graceHeard) return lose();
        void this.#isRestarting(nodeId).then((restarting) => {
          // It may have been heard, or forgotten, meanwhile.
          if (this.#timers.get(nodeId) !== cancel) return;
          if (restarting) look(Math.min(since + graceHeard - this.#clock.steady(), period));
          else lose();
        });
      });
      this.#timers.set(nodeId, cancel);
    };
    look(graceSuspected);
  }
}

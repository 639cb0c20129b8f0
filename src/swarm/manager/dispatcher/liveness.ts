/**
 * Which nodes have a session, and since when they were silent. A node that does not beat for three periods is lost.
 */
import type { Clock } from "../../../base/clock.ts";
import { GrpcError, status } from "../../../base/grpc.ts";
import { swarmId } from "../../../base/id.ts";

const GRACE = 3;
/** Nodes may need longer to find us after this manager started. */
const GRACE_UNKNOWN = 6;
const RATE_LIMIT = 3;
const RATE_WINDOW_MS = 8_000;
const JITTER_MS = 500;

export interface Session {
  readonly nodeId: string;
  readonly id: string;
  /** Aborted when another session takes its place or the node is lost. */
  readonly ended: AbortController;
}

export class Liveness {
  readonly #clock: Clock;
  readonly #periodMs: () => number;
  readonly #onLost: (nodeId: string, message: string) => void;
  readonly #sessions = new Map<string, Session>();
  readonly #timers = new Map<string, () => void>();
  readonly #registrations = new Map<string, number[]>();

  constructor(clock: Clock, periodMs: () => number, onLost: (nodeId: string, message: string) => void) {
    this.#clock = clock;
    this.#periodMs = periodMs;
    this.#onLost = onLost;
  }

  /** The node was known before this manager started: give it time to find us. */
  expect(nodeId: string): void {
    this.#arm(nodeId, this.#periodMs() * GRACE_UNKNOWN, 'heartbeat failure for node in "unknown" state');
  }

  /** A new session, which ends the node's former one. Throws UNAVAILABLE past three in eight seconds. */
  register(nodeId: string): Session {
    const now = this.#clock.now();
    const recent = (this.#registrations.get(nodeId) ?? []).filter((at) => now - at < RATE_WINDOW_MS);
    if (recent.length >= RATE_LIMIT) {
      throw new GrpcError(status.UNAVAILABLE, `node ${nodeId} exceeded rate limit count of registrations`);
    }
    this.#registrations.set(nodeId, [...recent, now]);
    this.#sessions.get(nodeId)?.ended.abort(new GrpcError(status.INVALID_ARGUMENT, "session invalid"));
    const session = { nodeId, id: swarmId(), ended: new AbortController() };
    this.#sessions.set(nodeId, session);
    this.#arm(nodeId, this.#periodMs() * GRACE, "heartbeat failure");
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
    this.#arm(nodeId, period * GRACE, "heartbeat failure");
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

  #arm(nodeId: string, ms: number, message: string): void {
    this.#timers.get(nodeId)?.();
    this.#timers.set(
      nodeId,
      this.#clock.after(ms, () => {
        this.forget(nodeId, new GrpcError(status.NOT_FOUND, "node not registered"));
        this.#onLost(nodeId, message);
      }),
    );
  }
}

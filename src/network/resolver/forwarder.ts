/** Questions that no network knows: upstreams in order, each for four seconds, so many at once and no more. */
import { type Clock, systemClock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Upstream } from "./types.ts";
import { codeReply, NXDOMAIN, REFUSED, rcodeOf, SERVFAIL } from "./wire.ts";

const MOST_UPSTREAMS = 3;
const TIMEOUT_MS = 4000;
const MOST_PENDING = 1024;
/** A server that was silent is asked after the others for so long: it costs four seconds once, not every time. */
const DEMOTED_MS = 15_000;

/** How one server is asked; injected for tests. */
export type Ask = (upstream: Upstream, query: Buffer, transport: "udp" | "tcp", signal: AbortSignal) => Promise<Buffer>;

export class Forwarder {
  #upstreams: readonly Upstream[] = [];
  #ask: Ask;
  #log: Logger;
  #clock: Clock;
  #closed = new AbortController();
  /** Servers that let a question go unanswered, and until when that counts. */
  #silent = new Map<string, number>();
  pending = 0;
  forwarded = 0;
  failed = 0;

  constructor(ask: Ask, log: Logger, clock: Clock = systemClock) {
    this.#ask = ask;
    this.#log = log;
    this.#clock = clock;
  }

  setUpstreams(upstreams: readonly Upstream[]): void {
    this.#upstreams = upstreams.slice(0, MOST_UPSTREAMS);
  }

  /** Whether there is anybody to ask; without, the answer is known at once. */
  get possible(): boolean {
    return this.#upstreams.length > 0;
  }

  /** Always gives an answer: the upstream's, NXDOMAIN where there is none to ask, SERVFAIL when all fail. */
  async forward(query: Buffer, transport: "udp" | "tcp"): Promise<Buffer> {
    if (!this.possible) return codeReply(query, NXDOMAIN);
    if (this.pending >= MOST_PENDING) {
      this.failed++;
      return codeReply(query, SERVFAIL);
    }
    this.pending++;
    this.forwarded++;
    try {
      for (const upstream of this.#inOrder()) {
        if (this.#closed.signal.aborted) break;
        const reply = await this.#try(upstream, query, transport);
        if (reply) return reply;
      }
    } finally {
      this.pending--;
    }
    this.failed++;
    return codeReply(query, SERVFAIL);
  }

  #inOrder(): readonly Upstream[] {
    if (this.#silent.size === 0) return this.#upstreams;
    const now = this.#clock.steady();
    for (const [address, until] of this.#silent) if (until <= now) this.#silent.delete(address);
    const demoted = (one: Upstream) => this.#silent.has(one.address);
    return [...this.#upstreams.filter((one) => !demoted(one)), ...this.#upstreams.filter(demoted)];
  }

  async #try(upstream: Upstream, query: Buffer, transport: "udp" | "tcp"): Promise<Buffer | undefined> {
    const late = new AbortController();
    const cancel = this.#clock.after(TIMEOUT_MS, () => {
      this.#silent.set(upstream.address, this.#clock.steady() + DEMOTED_MS);
      late.abort(new Error(`no answer in ${TIMEOUT_MS / 1000} s`));
    });
    try {
      const reply = await this.#ask(upstream, query, transport, AbortSignal.any([late.signal, this.#closed.signal]));
      this.#silent.delete(upstream.address);
      const code = rcodeOf(reply);
      // These say something about the server, not about the name.
      return code === SERVFAIL || code === REFUSED ? undefined : reply;
    } catch (error) {
      this.#log.debug("name server failed", { server: upstream.address, error: messageOf(error) });
      return undefined;
    } finally {
      cancel();
    }
  }

  close(): void {
    this.#closed.abort(new Error("the resolver is closed"));
  }
}

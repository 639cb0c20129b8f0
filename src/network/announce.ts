/**
 * Whether the others have understood: before a task takes its first request every balancer and name server should
 * know it, and before it is told to stop none should send it another one. Gossip says things; here nodes are asked
 * whether they act accordingly.
 *
 * A question names an endpoint and what is wanted of it ("serving" or "withdrawn"). A node answers when its tables are
 * in the kernel, at once or as soon as they are. Questions and answers are single packets, asked again until the
 * answer comes or the time is up. Nodes of the real Docker Engine understand none of this: they are given a fixed time.
 */
import * as z from "zod";
import { type Deferred, deferred } from "../base/async.ts";
import { type Clock, sleep } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import type { Gossip } from "../gossip/types.ts";

export type Standing = "serving" | "withdrawn";

const message = z.union([
  z.object({
    ask: z.object({
      id: z.number(),
      network: z.string(),
      endpoint: z.string(),
      wanted: z.enum(["serving", "withdrawn"]),
    }),
  }),
  z.object({ yes: z.number() }),
]);
type Ask = Extract<z.infer<typeof message>, { ask: unknown }>["ask"];

/** Longest wait for anybody. A node that is silent for longer is on its way to being suspected. */
const boundMs = 2_000;
/** What real Docker nodes need to hear and to act, by experience. */
const dockerMs = { serving: 500, withdrawn: 1_000 } as const;
const againMs = 100;
/** Questions that wait here for the tables to change. */
const mostWaiting = 1_000;

export interface AnnounceOptions {
  readonly clock: Clock;
  readonly log: Logger;
  readonly gossip: () => Gossip | undefined;
  /** Whether the node of this gossip name is one of ours. */
  readonly isOurs: (peer: string) => boolean;
  /** What the kernel's tables here make of an endpoint of another node; undefined before they were first written. */
  readonly standing: (networkId: string, endpointId: string) => Standing | undefined;
}

export class Announcements {
  readonly #options: AnnounceOptions;
  readonly #suspects = new Set<string>();
  readonly #asked = new Map<number, { silent: Set<string>; change: Deferred<void> }>();
  readonly #waiting = new Map<string, { ask: Ask; peer: string; until: number }>();
  #gossip: Gossip | undefined;
  #id = 0;

  constructor(options: AnnounceOptions) {
    this.#options = options;
  }

  /** To be called whenever gossip may have begun or ended. */
  attach(): void {
    const gossip = this.#options.gossip();
    if (gossip === this.#gossip) return;
    this.#gossip = gossip;
    this.#suspects.clear();
    this.#waiting.clear();
    gossip?.onMessage((payload, peer) => this.#heard(payload, peer));
    gossip?.onNode(({ kind, name }) => {
      if (kind === "suspect") this.#suspects.add(name);
      else this.#suspects.delete(name);
    });
  }

  /** The tables of a network are in the kernel as they should be: questions that waited for that are answered. */
  applied(networkId: string): void {
    this.attach();
    for (const [key, { ask, peer, until }] of this.#waiting) {
      if (until < this.#options.clock.steady()) this.#waiting.delete(key);
      else if (ask.network === networkId && this.#answer(ask, peer)) this.#waiting.delete(key);
    }
  }

  /**
   * Resolves when every node of the network acts on what this node told of its endpoint, or when the time is up; gives
   * the names of nodes of ours that did not answer. Suspected nodes are not waited for: they get no answer themselves.
   */
  async told(networkId: string, endpointId: string, wanted: Standing, signal?: AbortSignal): Promise<string[]> {
    this.attach();
    const { clock, isOurs } = this.#options;
    const gossip = this.#gossip;
    if (!gossip) return [];
    const others = () =>
      gossip
        .peers(networkId)
        .map(({ name }) => name)
        .filter((name) => name !== gossip.name && !this.#suspects.has(name));
    const began = clock.steady();
    const present = others();
    const strangersUntil = present.every(isOurs) ? began : began + dockerMs[wanted];
    const id = ++this.#id;
    const question = { silent: new Set(present.filter(isOurs)), change: deferred<void>() };
    this.#asked.set(id, question);
    try {
      for (;;) {
        const now = clock.steady();
        const here = new Set(others());
        for (const name of question.silent) if (!here.has(name)) question.silent.delete(name);
        const until = question.silent.size > 0 ? began + boundMs : strangersUntil;
        if (until <= now) return [...question.silent];
        for (const name of question.silent)
          this.#send(name, { ask: { id, network: networkId, endpoint: endpointId, wanted } });
        const woken = new AbortController();
        const pause = sleep(
          clock,
          Math.min(againMs, until - now),
          signal ? AbortSignal.any([signal, woken.signal]) : woken.signal,
        );
        await Promise.race([pause.catch(() => {}), question.change.promise]);
        woken.abort();
        signal?.throwIfAborted();
        question.change = deferred();
      }
    } finally {
      this.#asked.delete(id);
    }
  }

  #heard(payload: Uint8Array, peer: string): void {
    let parsed: z.infer<typeof message>;
    try {
      parsed = message.parse(JSON.parse(Buffer.from(payload).toString("utf8")));
    } catch (error) {
      this.#options.log.debug("a node's word is not understood", { peer, error });
      return;
    }
    if ("yes" in parsed) {
      const question = this.#asked.get(parsed.yes);
      if (!question?.silent.delete(peer)) return;
      if (question.silent.size === 0) question.change.resolve();
      return;
    }
    const { ask } = parsed;
    const key = `${peer} ${ask.id}`;
    if (this.#answer(ask, peer)) this.#waiting.delete(key);
    else if (this.#waiting.size < mostWaiting) {
      this.#waiting.set(key, { ask, peer, until: this.#options.clock.steady() + boundMs });
    }
  }

  #answer(ask: Ask, peer: string): boolean {
    if (this.#options.standing(ask.network, ask.endpoint) !== ask.wanted) return false;
    this.#send(peer, { yes: ask.id });
    return true;
  }

  #send(peer: string, body: z.infer<typeof message>): void {
    this.#gossip?.send(peer, Buffer.from(JSON.stringify(body)));
  }
}

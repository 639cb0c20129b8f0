/**
 * Failure detection. Each round one node (or a few), in shuffled order, gets a ping; without an answer three others
 * are asked to ping it and it is tried over TCP. What is left unanswered by the end of the round is suspected.
 */
import type { Clock } from "../../base/clock.ts";
import { afterReading } from "./after-reading.ts";
import type { Awareness } from "./awareness.ts";
import type { IndirectPing, Ping } from "./messages.ts";
import { sample } from "./shuffle.ts";
import type { Member } from "./state.ts";

export interface ProbeOptions {
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** Nodes that are probed at once. */
  readonly targets: number;
  readonly indirectChecks: number;
}

export interface ProbeDeps {
  readonly clock: Clock;
  readonly random: () => number;
  readonly awareness: Awareness;
  readonly self: () => Member;
  /** All members, we included. */
  readonly members: () => Member[];
  readonly ping: (target: Member, ping: Ping) => void;
  readonly indirect: (through: Member, request: IndirectPing) => void;
  /** Resolves true when the node answered on a stream. */
  readonly streamPing: (target: Member, ping: Ping, timeoutMs: number) => Promise<boolean>;
  /** The list was walked through once: time to forget the dead. */
  readonly wrapped: () => void;
  readonly failed: (target: Member) => void;
  /** UDP is blocked although the node lives. */
  readonly onlyStream: (target: Member) => void;
}

interface Waiting {
  onAck(): void;
  onNack(): void;
}

/** Versions of the protocol that brought TCP pings and nacks. */
const streamPingVersion = 3;
const nackVersion = 4;

export class Prober {
  readonly #options: ProbeOptions;
  readonly #deps: ProbeDeps;
  readonly #waiting = new Map<number, Waiting>();
  #round: string[] = [];
  #seqNo = 0;
  /** Nodes under probe. */
  readonly #probed = new Set<string>();

  constructor(options: ProbeOptions, deps: ProbeDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  /** Called each interval; stretched probes that still run take their places. */
  tick(): void {
    while (this.#probed.size < this.#options.targets) {
      const target = this.#next();
      if (!target) return;
      this.#probe(target);
    }
  }

  ack(seqNo: number): void {
    this.#waiting.get(seqNo)?.onAck();
  }

  nack(seqNo: number): void {
    this.#waiting.get(seqNo)?.onNack();
  }

  /** Waits for an ack to a ping that the caller sends for somebody else. */
  expect(timeoutMs: number, onAck: () => void): number {
    const seqNo = this.nextSeqNo();
    const forget = () => this.#waiting.delete(seqNo);
    const cancel = this.#deps.clock.after(timeoutMs, forget);
    this.#waiting.set(seqNo, {
      onAck() {
        cancel();
        forget();
        onAck();
      },
      onNack() {},
    });
    return seqNo;
  }

  nextSeqNo(): number {
    this.#seqNo = (this.#seqNo + 1) >>> 0;
    return this.#seqNo;
  }

  #next(): Member | undefined {
    const members = new Map(this.#deps.members().map((member) => [member.name, member]));
    const self = this.#deps.self().name;
    for (let walked = 0; walked < 2; walked++) {
      for (let name = this.#round.pop(); name !== undefined; name = this.#round.pop()) {
        const member = members.get(name);
        if (this.#probed.has(name)) continue;
        if (member && name !== self && (member.state === "alive" || member.state === "suspect")) return member;
      }
      this.#deps.wrapped();
      this.#round = sample([...members.keys()], this.#deps.random);
    }
    return undefined;
  }

  #probe(target: Member): void {
    const { clock, awareness } = this.#deps;
    const self = this.#deps.self();
    const seqNo = this.nextSeqNo();
    const ping: Ping = {
      kind: "ping",
      seqNo,
      node: target.name,
      sourceAddr: self.addr,
      sourcePort: self.port,
      sourceNode: self.name,
    };
    const budget = awareness.scale(this.#options.intervalMs);
    let nacks = 0;
    let nacksExpected = 0;
    let streamAnswered = false;
    this.#probed.add(target.name);

    const finish = () => {
      cancelIndirect();
      cancelEnd();
      this.#waiting.delete(seqNo);
      this.#probed.delete(target.name);
    };
    const cancelIndirect = clock.after(this.#options.timeoutMs, () => {
      nacksExpected = this.#askOthers(target, ping);
      if ((target.vsn[1] ?? 0) < streamPingVersion) return;
      this.#deps.streamPing(target, ping, budget - this.#options.timeoutMs).then((answered) => {
        streamAnswered = answered;
      });
    });
    const cancelEnd = afterReading(clock, budget, this.#options.timeoutMs, () => {
      finish();
      if (streamAnswered) {
        this.#deps.onlyStream(target);
        return;
      }
      // Helpers that said "no" prove that our own network works; silent ones speak against us.
      awareness.apply(nacksExpected > 0 ? Math.max(0, nacksExpected - nacks) : 1);
      this.#deps.failed(target);
    });
    this.#waiting.set(seqNo, {
      onAck() {
        finish();
        awareness.apply(-1);
      },
      onNack() {
        nacks++;
      },
    });
    this.#deps.ping(target, ping);
  }

  /** Returns how many of the helpers will tell when they too get no answer. */
  #askOthers(target: Member, ping: Ping): number {
    const self = this.#deps.self().name;
    const helpers = this.#deps
      .members()
      .filter((member) => member.state === "alive" && member.name !== self && member.name !== target.name);
    let nacks = 0;
    for (const helper of sample(helpers, this.#deps.random, this.#options.indirectChecks)) {
      const nack = (helper.vsn[1] ?? 0) >= nackVersion;
      if (nack) nacks++;
      this.#deps.indirect(helper, {
        ...ping,
        kind: "indirectPing",
        target: target.addr,
        port: target.port,
        nack,
      });
    }
    return nacks;
  }
}

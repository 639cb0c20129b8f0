/** Answers to those who probe: pings of us, and pings that others ask us for because they got no answer themselves. */
import { addressText } from "./address.ts";
import { encodeMessage, type IndirectPing, type Ping } from "./messages.ts";
import type { Outbox } from "./outbox.ts";
import type { Prober } from "./probe.ts";
import type { Member } from "./state.ts";
import type { MemberlistOptions } from "./types.ts";

export class Responder {
  readonly #options: Pick<MemberlistOptions, "clock" | "config" | "counters" | "name">;
  readonly #outbox: Outbox;
  readonly #prober: Pick<Prober, "expect">;
  readonly #self: () => Member;

  constructor(
    options: Pick<MemberlistOptions, "clock" | "config" | "counters" | "name">,
    outbox: Outbox,
    prober: Pick<Prober, "expect">,
    self: () => Member,
  ) {
    this.#options = options;
    this.#outbox = outbox;
    this.#prober = prober;
    this.#self = self;
  }

  /** Answers a ping that came from this address, with gossip in the room that the answer leaves. */
  ping(ping: Ping, address: string, port: number): void {
    if (!this.isForUs(ping)) return;
    const to = replyTo(ping, address, port);
    this.#outbox.sendAlong(to.address, to.port, encodeMessage({ kind: "ack", seqNo: ping.seqNo, payload: null }));
  }

  /** Whether a ping names us, or nobody. */
  isForUs(ping: Ping): boolean {
    if (ping.node === "" || ping.node === this.#options.name) return true;
    // Somebody still probes the node that was at this address before us.
    this.#options.counters.add("ignored.pingForOther");
    return false;
  }

  /** Tries a node in another's stead: "ack" if it answers, "nack" if it is silent and the other understands that. */
  indirectPing(request: IndirectPing, address: string, port: number): void {
    const requester = replyTo(request, address, port);
    const { clock, config } = this.#options;
    const target = addressText(request.target);
    if (target === undefined) throw new RangeError("indirect ping: bad target");
    const answer = (kind: "ack" | "nack") => {
      const message =
        kind === "ack" ? ({ kind, seqNo: request.seqNo, payload: null } as const) : { kind, seqNo: request.seqNo };
      this.#outbox.sendTo(requester.address, requester.port, [encodeMessage(message)]);
    };
    const cancelNack = request.nack ? clock.after(config.probeTimeoutMs, () => answer("nack")) : () => {};
    const seqNo = this.#prober.expect(config.probeTimeoutMs, () => {
      cancelNack();
      answer("ack");
    });
    const { addr: sourceAddr, port: sourcePort, name: sourceNode } = this.#self();
    const ping: Ping = { kind: "ping", seqNo, node: request.node, sourceAddr, sourcePort, sourceNode };
    this.#outbox.sendTo(target, request.port, [encodeMessage(ping)]);
  }
}

/** Answers go to the address that the message names, else to where the packet came from. */
function replyTo(message: Ping | IndirectPing, address: string, port: number): { address: string; port: number } {
  const named = message.sourceAddr && addressText(message.sourceAddr);
  return named && message.sourcePort ? { address: named, port: message.sourcePort } : { address, port };
}

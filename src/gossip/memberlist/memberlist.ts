/**
 * The shell around SWIM: it owns the timers, feeds packets to the state machine and carries out what that decides.
 * Start reading at `#onMessage` (what comes in) and `#perform` (what goes out). Packets leave by `outbox.ts`; probes are made
 * by `probe.ts` and answered by `responder.ts`; exchanges on streams are `streams.ts`.
 */
import { addressBytes } from "./address.ts";
import { afterReading } from "./after-reading.ts";
import { Awareness } from "./awareness.ts";
import { pushPullInterval } from "./config.ts";
import { decodeMessage, encodeMessage, messageType, type Ping } from "./messages.ts";
import { Outbox, userMessage } from "./outbox.ts";
import { openPacket } from "./packet.ts";
import { Prober } from "./probe.ts";
import type { PushPull } from "./pushpull.ts";
import { retransmitLimit, TransmitQueue } from "./queue.ts";
import { Responder } from "./responder.ts";
import { sample } from "./shuffle.ts";
import { type Action, isLive, type Member, MemberState } from "./state.ts";
import { Streams } from "./streams.ts";
import type { Delegate, MemberlistOptions } from "./types.ts";

/** A departure is told at once to so many nodes. */
const floodNodes = 32;

export class Memberlist {
  readonly #options: MemberlistOptions;
  readonly #state: MemberState;
  readonly #queue: TransmitQueue;
  readonly #awareness: Awareness;
  readonly #prober: Prober;
  readonly #responder: Responder;
  readonly #delegate: Delegate;
  readonly #outbox: Outbox;
  readonly #streams: Streams;
  readonly #timers = new Set<() => void>();
  #cancelSuspicion = () => {};
  #cancelPushPull = () => {};
  #closed = false;

  constructor(options: MemberlistOptions, delegate: Delegate) {
    const { config } = options;
    this.#options = options;
    this.#delegate = delegate;
    this.#state = new MemberState({ ...config, name: options.name });
    this.#queue = new TransmitQueue(() => retransmitLimit(config.retransmitMult, this.#state.size));
    this.#awareness = new Awareness(config.awarenessMax);
    this.#outbox = new Outbox(options, this.#queue, delegate);
    this.#streams = new Streams(options, {
      localState: (join, caller) => ({
        join,
        nodes: caller ? this.#state.known(caller) : this.#state.all(),
        userState: delegate.localState(join),
      }),
      merge: (remote) => this.#merge(remote),
      message: (payload) => delegate.message(payload),
      isForUs: (ping) => this.#responder.isForUs(ping),
    });
    this.#prober = this.#newProber();
    this.#responder = new Responder(options, this.#outbox, this.#prober, () => this.self);
  }

  /** Begins to listen, probe and gossip. */
  start(): void {
    const { transport, clock, random, config } = this.#options;
    const addr = addressBytes(this.#options.advertiseAddress);
    const port = this.#options.advertisePort;
    this.#perform(this.#state.start({ addr, port, meta: new Uint8Array(), vsn: config.vsn }, clock.now()));
    transport.onPacket((packet, address, from) => this.#onPacket(packet, address, from));
    transport.onStream((stream, address) => {
      this.#streams.accept(stream, address);
    });
    this.#timers.add(clock.every(config.gossipIntervalMs, () => this.#gossip()));
    // Nodes started together should not probe in step.
    this.#timers.add(
      clock.after(random() * config.probeIntervalMs, () => {
        this.#timers.add(clock.every(config.probeIntervalMs, () => this.#prober.tick()));
      }),
    );
    this.#schedulePushPull(random());
  }

  /** We ourselves, as the others should see us. */
  get self(): Member {
    const self = this.#state.get(this.#options.name);
    if (!self) throw new Error("memberlist is not started");
    return self;
  }

  /** The node, unless unknown or gone. */
  live(name: string): Member | undefined {
    const member = this.#state.get(name);
    return member && isLive(member) ? member : undefined;
  }

  /** Nodes that are alive or only suspected, we included. */
  members(): Member[] {
    return this.#state.all().filter(isLive);
  }

  /** Everybody that is known and not forgotten, the dead included. */
  all(): Member[] {
    return this.#state.all();
  }

  get queued(): number {
    return this.#queue.size;
  }

  get health(): number {
    return this.#awareness.score;
  }

  /** Sends a user message by packet; it may be lost. */
  sendPacket(to: Member, payload: Uint8Array): void {
    this.#outbox.send(to, [userMessage(payload)]);
  }

  /** Exchanges everything with the node at this address; rejects when that fails. */
  pushPull(host: string, port: number, join: boolean): Promise<void> {
    return this.#streams.pushPull(host, port, join);
  }

  /** Sends a user message on a stream of its own. */
  sendStream(to: Member, payload: Uint8Array): Promise<void> {
    return this.#streams.send(to, payload);
  }

  /** Tells the others that we go; resolves when that was gossiped, or after a second. */
  async leave(): Promise<void> {
    const { clock, config, random } = this.#options;
    const others = this.members().filter((member) => member.name !== this.#options.name);
    const actions = this.#state.leave(clock.now());
    if (others.length === 0) return;
    await new Promise<void>((resolve) => {
      const cancel = clock.after(config.leaveTimeoutMs, resolve);
      const done = () => {
        cancel();
        resolve();
      };
      for (const action of actions) {
        if (action.kind !== "broadcast") continue;
        const message = encodeMessage(action.message);
        for (const member of sample(others, random, floodNodes)) this.#outbox.send(member, [message]);
        this.#queue.push({ key: action.message.node, message, done });
      }
    });
  }

  /** Declares that a node has left: ours to say only of what was at our own address before us. */
  dismiss(name: string): void {
    const member = this.live(name);
    if (!member) return;
    const { incarnation } = member;
    this.#perform(this.#state.dead({ kind: "dead", node: name, incarnation, from: name }, this.#options.clock.now()));
  }

  /** Stops everything; the transport is its owner's to close. */
  close(): void {
    this.#closed = true;
    this.#outbox.close();
    this.#streams.close();
    for (const cancel of this.#timers) cancel();
    this.#timers.clear();
    this.#cancelSuspicion();
    this.#cancelPushPull();
    this.#queue.clear();
  }

  #newProber(): Prober {
    const { config, clock, random, counters, log } = this.#options;
    return new Prober(
      {
        intervalMs: config.probeIntervalMs,
        timeoutMs: config.probeTimeoutMs,
        targets: config.probeTargets,
        indirectChecks: config.indirectChecks,
      },
      {
        clock,
        random,
        awareness: this.#awareness,
        self: () => this.self,
        members: () => this.#state.all(),
        ping: (target, ping) => this.#ping(target, ping),
        indirect: (through, request) => this.#outbox.sendTo(through.address, through.port, [encodeMessage(request)]),
        streamPing: (target, ping, timeoutMs) => this.#streams.ping(target, ping, timeoutMs),
        wrapped: () => this.#state.forget(config.gossipToDeadMs, clock.now()),
        failed: (target) => {
          if (this.#closed) return;
          counters.add("probeFailures");
          this.#perform(this.#state.unanswered(target, clock.now()));
        },
        onlyStream: (target) => {
          counters.add("udpBlocked");
          log.warn("a gossip node answers on TCP but not on UDP; is UDP blocked?", { node: target.address });
        },
      },
    );
  }

  // -- what goes out ---------------------------------------------------------------------------------------------

  #perform(actions: readonly Action[]): void {
    for (const action of actions) {
      switch (action.kind) {
        case "broadcast":
          this.#queue.push({ key: action.message.node, message: encodeMessage(action.message) });
          break;
        case "changed":
          this.#options.log.debug("gossip node changed", {
            change: action.change,
            node: action.member.name,
            address: action.member.address,
          });
          if (action.member.name !== this.#options.name) this.#delegate.changed(action.change, action.member);
          break;
        case "accused":
          this.#options.counters.add("refutations");
          this.#awareness.apply(1);
          if (action.dead) this.#delegate.declaredDead();
          break;
        case "ignored":
          this.#options.counters.add(`ignored.${action.reason}`);
          break;
      }
    }
    if (actions.length > 0) this.#armSuspicion();
  }

  #armSuspicion(): void {
    this.#cancelSuspicion();
    const deadline = this.#state.nextDeadline();
    if (deadline === undefined || this.#closed) return;
    const { clock, config } = this.#options;
    const wait = Math.max(0, deadline - clock.now());
    this.#cancelSuspicion = afterReading(clock, wait, config.probeTimeoutMs, () => {
      this.#perform(this.#state.tick(clock.now()));
      this.#armSuspicion();
    });
  }

  #gossip(): void {
    const { config, clock, random, name } = this.#options;
    const now = clock.now();
    const targets = this.#state
      .all()
      .filter(
        (member) => member.name !== name && (isLive(member) || isFreshlyDead(member, now, config.gossipToDeadMs)),
      );
    for (const target of sample(targets, random, config.gossipNodes)) {
      if (!this.#outbox.gossip(target)) return;
    }
  }

  #ping(target: Member, ping: Ping): void {
    if (target.state === "alive") {
      this.#outbox.sendAlong(target.address, target.port, encodeMessage(ping));
      return;
    }
    // Tell a suspect of the suspicion with the ping: it can refute at once.
    const { incarnation } = target;
    const suspect = encodeMessage({ kind: "suspect", incarnation, node: target.name, from: this.#options.name });
    this.#outbox.send(target, [encodeMessage(ping), suspect]);
  }

  #schedulePushPull(factor = 1): void {
    const { clock, config } = this.#options;
    const wait = pushPullInterval(config.pushPullIntervalMs, this.#state.size) * factor;
    this.#cancelPushPull = clock.after(wait, () => {
      this.#schedulePushPull();
      const others = this.#state.all().filter((m) => m.state === "alive" && m.name !== this.#options.name);
      const [target] = sample(others, this.#options.random, 1);
      if (!target) return;
      this.pushPull(target.address, target.port, false).catch((error) => this.#streams.failed(error, target.address));
    });
  }

  // -- what comes in ---------------------------------------------------------------------------------------------

  #onPacket(packet: Buffer, address: string, port: number): void {
    if (this.#closed) return;
    const { keyring, counters } = this.#options;
    counters.add("packets");
    openPacket(
      keyring,
      packet,
      (message) => this.#onMessage(message, address, port),
      (reason) => counters.add(`dropped.${reason}`),
    );
  }

  #onMessage(bytes: Buffer, address: string, port: number): void {
    if (bytes[0] === messageType.user) {
      this.#delegate.message(bytes.subarray(1));
      return;
    }
    const message = decodeMessage(bytes);
    const now = this.#options.clock.now();
    switch (message?.kind) {
      case "ping":
        this.#responder.ping(message, address, port);
        break;
      case "indirectPing":
        this.#responder.indirectPing(message, address, port);
        break;
      case "ack":
        this.#prober.ack(message.seqNo);
        break;
      case "nack":
        this.#prober.nack(message.seqNo);
        break;
      case "alive":
        this.#perform(this.#state.alive(message, now));
        break;
      case "suspect":
        this.#perform(this.#state.suspect(message, now));
        break;
      case "dead":
        this.#perform(this.#state.dead(message, now));
        break;
      case "err":
      case undefined:
        this.#options.counters.add("dropped.unknownType");
        break;
    }
  }

  #merge(remote: PushPull): void {
    this.#perform(this.#state.merge(remote.nodes, this.#options.clock.now()));
    if (remote.userState.length > 0) this.#delegate.mergeState(Buffer.from(remote.userState));
  }
}

function isFreshlyDead(member: Member, now: number, windowMs: number): boolean {
  return member.state === "dead" && now - member.changedAt < windowMs;
}

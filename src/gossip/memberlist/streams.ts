/**
 * Exchanges on streams, both ways: push/pull of all that either side knows, long user messages, and pings where packets do
 * not get through. One message each way, then closed; how many there are, how long they last and what they hold in memory
 * is bounded.
 */
import { messageOf } from "../../base/errors.ts";
import type { GossipStream } from "../types.ts";
import { decodeMessage, encodeMessage, messageType, type Ping } from "./messages.ts";
import { decodePushPull, decodeUserStream, encodePushPull, encodeUserStream, type PushPull } from "./pushpull.ts";
import type { Caller, Member } from "./state.ts";
import { readStream, StreamBudget, StreamError, writeStream } from "./stream.ts";
import type { MemberlistOptions } from "./types.ts";

/** What all streams being read may hold together. */
const streamMemory = 64 << 20;

export interface StreamHandlers {
  /** What we tell in a push/pull; `caller` is who asked for it and has said what it knows. */
  readonly localState: (join: boolean, caller?: Caller) => PushPull;
  readonly merge: (remote: PushPull) => void;
  readonly message: (payload: Buffer) => void;
  readonly isForUs: (ping: Ping) => boolean;
}

export class Streams {
  readonly #options: MemberlistOptions;
  readonly #handlers: StreamHandlers;
  readonly #budget = new StreamBudget(streamMemory);
  #open = 0;
  #closed = false;

  constructor(options: MemberlistOptions, handlers: StreamHandlers) {
    this.#options = options;
    this.#handlers = handlers;
  }

  close(): void {
    this.#closed = true;
  }

  /** Exchanges everything with the node at this address; rejects when that fails. */
  async pushPull(host: string, port: number, join: boolean): Promise<void> {
    const { transport, config, keyring, counters } = this.#options;
    const stream = await transport.dial(host, port, config.streamTimeoutMs);
    await this.#withDeadline(stream, async () => {
      await writeStream(stream, keyring, encodePushPull(this.#handlers.localState(join)));
      const reply = await readStream(stream, keyring, this.#budget);
      if (reply[0] === messageType.err) {
        const refused = decodeMessage(reply);
        throw new Error(`gossip: ${host} refused: ${refused?.kind === "err" ? refused.error : "unknown"}`);
      }
      if (reply[0] !== messageType.pushPull) throw new StreamError("streamMalformed");
      this.#merge(decodePushPull(reply));
      counters.add("pushPulls");
    });
  }

  /** Sends a user message. */
  async send(to: Member, payload: Uint8Array): Promise<void> {
    const { transport, config, keyring } = this.#options;
    const stream = await transport.dial(to.address, to.port, config.streamTimeoutMs);
    await this.#withDeadline(stream, () => writeStream(stream, keyring, encodeUserStream(payload)));
  }

  /** Whether a node answers. */
  async ping(target: Member, ping: Ping, timeoutMs: number): Promise<boolean> {
    const { transport, keyring, clock } = this.#options;
    try {
      const stream = await transport.dial(target.address, target.port, timeoutMs);
      const cancel = clock.after(timeoutMs, () => stream.close());
      try {
        await writeStream(stream, keyring, encodeMessage(ping));
        const reply = decodeMessage(await readStream(stream, keyring, this.#budget));
        return reply?.kind === "ack" && reply.seqNo === ping.seqNo;
      } finally {
        cancel();
        stream.close();
      }
    } catch {
      return false;
    }
  }

  /** Somebody opened one. */
  async accept(stream: GossipStream, address: string): Promise<void> {
    if (this.#closed || this.#open >= this.#options.config.maxStreams) {
      this.#options.counters.add("dropped.streamLimit");
      stream.close();
      return;
    }
    this.#open++;
    try {
      await this.#withDeadline(stream, () => this.#serve(stream, address));
    } catch (error) {
      this.failed(error, address);
    } finally {
      this.#open--;
    }
  }

  /** Counts and logs what went wrong. */
  failed(error: unknown, address: string): void {
    const reason = error instanceof StreamError ? error.reason : "streamFailed";
    this.#options.counters.add(`dropped.${error instanceof RangeError ? "streamMalformed" : reason}`);
    this.#options.log.debug("gossip stream failed", { address, error: messageOf(error) });
  }

  async #serve(stream: GossipStream, address: string): Promise<void> {
    const { keyring, counters } = this.#options;
    const bytes = await readStream(stream, keyring, this.#budget);
    if (this.#closed) return;
    counters.add("streams");
    switch (bytes[0]) {
      case messageType.user:
        this.#handlers.message(decodeUserStream(bytes));
        return;
      case messageType.pushPull: {
        const remote = decodePushPull(bytes);
        const caller = { address, nodes: remote.nodes };
        await writeStream(stream, keyring, encodePushPull(this.#handlers.localState(remote.join, caller)));
        this.#merge(remote);
        return;
      }
      case messageType.ping: {
        const ping = decodeMessage(bytes);
        if (ping?.kind !== "ping" || !this.#handlers.isForUs(ping)) return;
        await writeStream(stream, keyring, encodeMessage({ kind: "ack", seqNo: ping.seqNo, payload: null }));
        return;
      }
      default:
        throw new StreamError("streamMalformed");
    }
  }

  #merge(remote: PushPull): void {
    if (!this.#closed) this.#handlers.merge(remote);
  }

  async #withDeadline<T>(stream: GossipStream, job: () => Promise<T>): Promise<T> {
    const cancel = this.#options.clock.after(this.#options.config.streamTimeoutMs, () => stream.close());
    try {
      return await job();
    } finally {
      cancel();
      stream.close();
    }
  }
}

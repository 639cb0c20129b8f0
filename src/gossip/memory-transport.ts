/** A network in memory, for tests: loss, delay, duplication and partitions, moved by a clock and a seeded random. */
import type { Clock } from "../base/clock.ts";
import type { GossipStream, Transport } from "./types.ts";

export interface NetworkConditions {
  /** Share of packets lost, 0 to 1. Streams lose nothing: they are slow, or break. */
  loss: number;
  /** Share of packets that arrive twice. */
  duplication: number;
  /** One-way delay in milliseconds, uniform between the two: packets overtake each other. */
  minDelayMs: number;
  maxDelayMs: number;
}

type PacketListener = (packet: Buffer, address: string, port: number) => void;
type StreamListener = (stream: GossipStream, address: string) => void;

/** All nodes of a test. Addresses that are not opened swallow packets and time dials out, as a dead host does. */
export class MemoryNetwork {
  readonly conditions: NetworkConditions = { loss: 0, duplication: 0, minDelayMs: 1, maxDelayMs: 3 };
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #nodes = new Map<string, MemoryTransport>();
  #cut: (from: string, to: string) => boolean = () => false;
  packets = 0;

  constructor(clock: Clock, random: () => number) {
    this.#clock = clock;
    this.#random = random;
  }

  open(address: string, port = 7946): Transport {
    const transport = new MemoryTransport(this, address, port);
    this.#nodes.set(address, transport);
    return transport;
  }

  /** Nothing passes from an address to another for which `cut` is true; undefined heals. */
  partition(cut: ((from: string, to: string) => boolean) | undefined): void {
    this.#cut = cut ?? (() => false);
  }

  close(transport: MemoryTransport): void {
    if (this.#nodes.get(transport.address) === transport) this.#nodes.delete(transport.address);
  }

  deliver(from: MemoryTransport, to: string, packet: Buffer): void {
    this.packets++;
    const { loss, duplication } = this.conditions;
    const copies = this.#random() < loss ? 0 : this.#random() < duplication ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      this.#clock.after(this.#delay(), () => {
        if (!this.#cut(from.address, to)) this.#nodes.get(to)?.receive(packet, from.address, from.port);
      });
    }
  }

  dial(from: MemoryTransport, to: string, timeoutMs: number): Promise<GossipStream> {
    return new Promise((resolve, reject) => {
      const cancel = this.#clock.after(timeoutMs, () => reject(new Error("dial timed out")));
      this.#clock.after(2 * this.#delay(), () => {
        const node = this.#nodes.get(to);
        if (!node || this.#cut(from.address, to) || this.#cut(to, from.address)) return;
        cancel();
        const [near, far] = this.#pair(from.address, to);
        node.accept(far, from.address);
        resolve(near);
      });
    });
  }

  #delay(): number {
    const { minDelayMs, maxDelayMs } = this.conditions;
    return minDelayMs + this.#random() * (maxDelayMs - minDelayMs);
  }

  #pair(a: string, b: string): [MemoryStream, MemoryStream] {
    const near = new MemoryStream();
    const far = new MemoryStream();
    const carry = (from: string, to: string, end: MemoryStream) => {
      let last = 0;
      return (bytes: Buffer | undefined) => {
        // In order, whatever the delays.
        last = Math.max(last, this.#clock.now() + this.#delay());
        this.#clock.after(last - this.#clock.now(), () => {
          if (!this.#cut(from, to)) end.arrive(bytes);
        });
      };
    };
    near.send = carry(a, b, far);
    far.send = carry(b, a, near);
    return [near, far];
  }
}

class MemoryTransport implements Transport {
  readonly address: string;
  readonly port: number;
  readonly #network: MemoryNetwork;
  #onPacket: PacketListener = () => {};
  #onStream: StreamListener | undefined;

  constructor(network: MemoryNetwork, address: string, port: number) {
    this.#network = network;
    this.address = address;
    this.port = port;
  }

  send(address: string, _port: number, packet: Uint8Array): void {
    this.#network.deliver(this, address, Buffer.from(packet));
  }

  onPacket(listener: PacketListener): void {
    this.#onPacket = listener;
  }

  dial(address: string, _port: number, timeoutMs: number): Promise<GossipStream> {
    return this.#network.dial(this, address, timeoutMs);
  }

  onStream(listener: StreamListener): void {
    this.#onStream = listener;
  }

  receive(packet: Buffer, address: string, port: number): void {
    this.#onPacket(packet, address, port);
  }

  accept(stream: GossipStream, address: string): void {
    this.#onStream?.(stream, address);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#network.close(this);
  }
}

class MemoryStream implements GossipStream {
  send: (bytes: Buffer | undefined) => void = () => {};
  #buffer = Buffer.alloc(0);
  #ended = false;
  #closed = false;
  #reader: { length: number; resolve: (bytes: Buffer) => void; reject: (error: Error) => void } | undefined;

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#closed) throw new Error("stream closed");
    this.send(Buffer.from(bytes));
  }

  read(length: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#reader = { length, resolve, reject };
      this.#serve();
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.send(undefined);
    this.#serve();
  }

  /** Bytes from the other end; undefined is its end of file. */
  arrive(bytes: Buffer | undefined): void {
    if (bytes) this.#buffer = Buffer.concat([this.#buffer, bytes]);
    else this.#ended = true;
    this.#serve();
  }

  #serve(): void {
    const reader = this.#reader;
    if (!reader) return;
    if (this.#closed) reader.reject(new Error("stream closed"));
    else if (this.#buffer.length >= reader.length) {
      const bytes = this.#buffer.subarray(0, reader.length);
      this.#buffer = this.#buffer.subarray(reader.length);
      reader.resolve(bytes);
    } else if (this.#ended) reader.reject(new Error("stream ended early"));
    else return;
    this.#reader = undefined;
  }
}

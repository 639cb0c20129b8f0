/** Packets on their way out: what they carry beside what they are sent for, and what surrounds it. */

import { sealOverhead } from "./crypto.ts";
import { messageType } from "./messages.ts";
import { compoundHead, compoundPart, encodeCompounds, packetRoom, sealPacket } from "./packet.ts";
import type { TransmitQueue } from "./queue.ts";
import type { Member } from "./state.ts";
import type { Delegate, MemberlistOptions } from "./types.ts";

/** From this version on a node verifies checksums. */
const checksumVersion = 5;

export class Outbox {
  readonly #options: MemberlistOptions;
  readonly #queue: TransmitQueue;
  readonly #delegate: Delegate;
  #closed = false;

  constructor(options: MemberlistOptions, queue: TransmitQueue, delegate: Delegate) {
    this.#options = options;
    this.#queue = queue;
    this.#delegate = delegate;
  }

  close(): void {
    this.#closed = true;
  }

  send(to: Member, messages: readonly Uint8Array[]): void {
    this.sendTo(to.address, to.port, messages, (to.vsn[1] ?? 0) >= checksumVersion);
  }

  sendTo(address: string, port: number, messages: readonly Uint8Array[], checksum = false): void {
    if (this.#closed) return;
    const { transport, keyring } = this.#options;
    const [first] = messages;
    if (!first) return;
    const packets = messages.length === 1 ? [first] : encodeCompounds(messages);
    for (const packet of packets) transport.send(address, port, sealPacket(keyring, packet, checksum));
  }

  /** A message and, in the room that it leaves, queued broadcasts. */
  sendAlong(address: string, port: number, message: Buffer): void {
    const room = this.#options.config.packetBytes - message.length - compoundHead - compoundPart - sealOverhead;
    this.sendTo(address, port, [message, ...this.#broadcasts(room)]);
  }

  /** A packet of queued broadcasts; false when there are none. */
  gossip(to: Member): boolean {
    const messages = this.#broadcasts(packetRoom(this.#options.config.packetBytes));
    if (messages.length === 0) return false;
    this.send(to, messages);
    return true;
  }

  /** Queued messages for so many bytes: membership first, then the delegate's. */
  #broadcasts(room: number): Uint8Array[] {
    const own = this.#queue.take(compoundPart, room);
    const left = own.reduce((rest, message) => rest - message.length - compoundPart, room);
    if (left <= compoundPart + 1) return own;
    return [...own, ...this.#delegate.broadcasts(compoundPart + 1, left).map(userMessage)];
  }
}

export function userMessage(payload: Uint8Array): Buffer {
  return Buffer.concat([Uint8Array.of(messageType.user), payload]);
}

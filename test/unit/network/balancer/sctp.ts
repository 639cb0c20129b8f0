/** SCTP by hand, for kernels that translate it but have no sockets of it: INIT and its acknowledgement, as raw packets. */
import { errnoOf } from "../../../../src/base/errors.ts";
import * as libc from "../../../../src/kernel/libc.ts";
import type { NetNs } from "../../../../src/kernel/types.ts";

const IPPROTO_SCTP = 132;
const SOCK_RAW = 3;
const MSG_DONTWAIT = 0x40;

/** The chunk's type: the first packet of an association, and the answer to it. */
export const INIT = 1;
export const INIT_ACK = 2;

export interface Packet {
  readonly from: string;
  readonly srcPort: number;
  readonly dstPort: number;
  readonly chunk: number;
}

export class SctpSocket implements Disposable {
  readonly #ns: NetNs;
  readonly #fd: number;

  constructor(ns: NetNs) {
    this.#ns = ns;
    this.#fd = ns.run(() => libc.socket(libc.AF_INET, SOCK_RAW, IPPROTO_SCTP));
  }

  send(to: string, srcPort: number, dstPort: number, chunk: number, tag = 0): void {
    const packet = Buffer.alloc(32);
    packet.writeUInt16BE(srcPort, 0);
    packet.writeUInt16BE(dstPort, 2);
    packet.writeUInt32BE(tag, 4);
    packet.writeUInt8(chunk, 12);
    packet.writeUInt16BE(20, 14);
    packet.writeUInt32BE(TAG, 16);
    packet.writeUInt32BE(65_535, 20);
    packet.writeUInt32BE(0x0001_0001, 24);
    packet.writeUInt32BE(1, 28);
    packet.writeUInt32LE(crc32c(packet), 8);
    const address = Buffer.alloc(16);
    address.writeUInt16LE(libc.AF_INET, 0);
    Buffer.from(to.split(".").map(Number)).copy(address, 4);
    this.#ns.run(() => {
      const fd = libc.socket(libc.AF_INET, SOCK_RAW, IPPROTO_SCTP);
      try {
        libc.connect(fd, address);
        libc.send(fd, packet);
      } finally {
        libc.close(fd);
      }
    });
  }

  readonly #found: Packet[] = [];

  /** Everything that has arrived so far. */
  received(): Packet[] {
    const found = this.#found;
    const bytes = Buffer.alloc(2048);
    for (;;) {
      try {
        const length = libc.recv(this.#fd, bytes, MSG_DONTWAIT);
        const header = (bytes.readUInt8(0) & 15) * 4;
        if (length < header + 13) continue;
        found.push({
          from: [...bytes.subarray(12, 16)].join("."),
          srcPort: bytes.readUInt16BE(header),
          dstPort: bytes.readUInt16BE(header + 2),
          chunk: bytes.readUInt8(header + 12),
        });
      } catch (error) {
        if (errnoOf(error) === "EAGAIN") return found;
        throw error;
      }
    }
  }

  [Symbol.dispose](): void {
    libc.close(this.#fd);
  }
}

/** Of every association here; answers carry it. */
export const TAG = 0x5ec7_0001;

function crc32c(bytes: Buffer): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f6_3b78 : 0);
  }
  return ~crc >>> 0;
}

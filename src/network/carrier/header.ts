/** The PROXY protocol's header, version 2 (the "spec" is proxy-protocol.txt of HAProxy, section 2.2). */
import { familyOf, toBytes } from "../../kernel/inet.ts";
import type { End } from "./types.ts";

const SIGNATURE = Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1");
/** Version 2, a connection made for somebody else. */
const PROXY = 0x21;
const TCP_OVER = { 4: 0x11, 6: 0x21 } as const;

/** The header of a TCP connection; both ends are of one family. */
export function proxyHeader(from: End, to: End): Buffer {
  const addresses = Buffer.concat([toBytes(from.address), toBytes(to.address)]);
  const head = Buffer.from([PROXY, TCP_OVER[familyOf(to.address)], 0, addresses.length + 4]);
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(from.port, 0);
  ports.writeUInt16BE(to.port, 2);
  return Buffer.concat([SIGNATURE, head, addresses, ports]);
}

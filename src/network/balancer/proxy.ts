/**
 * The PROXY protocol, version 2, for a published port of one task: what the client said, preceded by a header that says
 * who the client is (the "spec" is proxy-protocol.txt of HAProxy, section 2.2).
 *
 * The walk of a connection: as in the routing mesh (mesh-task.ts) up to the task's namespace, where the published port
 * leads to a socket of this daemon instead of the target port. Its peer is the client itself, or the entry node where
 * that had to hide the client. A second connection, within the namespace and by the ingress address, leads to the task;
 * the header goes first, then both are one (`couple`). Answers take the mesh's way back: the first connection has
 * its marks.
 *
 * Nobody else gets past this: the target port itself is closed on the ingress network, so that no header can be forged
 * there. Connections end with the daemon, unlike those that the kernel translates.
 */
import type net from "node:net";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { tcpConnectIn, tcpListenerIn } from "../../kernel/socket.ts";
import type { NetNs } from "../../kernel/types.ts";
import { couple } from "./relay.ts";

export interface ProxyOptions {
  /** The task's namespace. */
  readonly ns: NetNs;
  /** The task's address on the ingress network, IPv4; it need not be there yet. */
  readonly address: string;
  readonly publishedPort: number;
  readonly targetPort: number;
  readonly log: Logger;
}

export interface ProxiedPort extends Disposable {
  /** Where the published port has to lead to. */
  readonly port: number;
}

/** Connections at once; further ones are hung up on. */
const MOST_CLIENTS = 10_000;

export async function openProxy(options: ProxyOptions): Promise<ProxiedPort> {
  const { ns, address, publishedPort, targetPort, log } = options;
  const server = await tcpListenerIn(ns, address, 0, { early: true });
  const open = new Set<net.Socket>();
  server.maxConnections = MOST_CLIENTS;
  server.on("error", (error) => log.warn("PROXY protocol: the listener failed", { error: messageOf(error) }));
  server.on("connection", (client) => {
    const { remoteAddress, remotePort } = client;
    // It may be gone already.
    if (remoteAddress === undefined || remotePort === undefined) return void client.destroy();
    let task: net.Socket;
    try {
      task = tcpConnectIn(ns, address, targetPort, { allowHalfOpen: true });
    } catch (error) {
      log.warn("PROXY protocol: no connection to the task", { error: messageOf(error) });
      client.on("error", () => {});
      return void client.resetAndDestroy();
    }
    for (const socket of [client, task]) {
      open.add(socket);
      socket.on("error", (error) => log.debug("PROXY protocol", { publishedPort, error: messageOf(error) }));
      socket.on("close", () => open.delete(socket));
    }
    task.write(proxyHeader({ address: remoteAddress, port: remotePort }, { address, port: publishedPort }));
    couple(client, task);
  });
  const at = server.address();
  return {
    port: typeof at === "object" && at ? at.port : 0,
    [Symbol.dispose]() {
      server.close();
      for (const socket of open) socket.resetAndDestroy();
    },
  };
}

const SIGNATURE = Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1");
/** Version 2, a connection made for somebody else. */
const PROXY = 0x21;
const TCP_OVER_IPV4 = 0x11;

interface End {
  readonly address: string;
  readonly port: number;
}

/** The header of a TCP connection over IPv4. */
export function proxyHeader(from: End, to: End): Buffer {
  const header = Buffer.alloc(SIGNATURE.length + 16);
  SIGNATURE.copy(header);
  header.writeUInt8(PROXY, 12);
  header.writeUInt8(TCP_OVER_IPV4, 13);
  header.writeUInt16BE(12, 14);
  [from, to].forEach((end, index) => {
    for (const [place, byte] of end.address.split(".").entries())
      header.writeUInt8(Number(byte), 16 + index * 4 + place);
    header.writeUInt16BE(end.port, 24 + index * 2);
  });
  return header;
}

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
 * A client that the mesh cannot carry as itself, one of IPv6, is carried by the entry node's daemon (relay.ts), which knows
 * it: that one says the header itself, from its door in ingress_sbox to a second socket here (`headed`), behind which
 * nothing is added. Only our nodes' doors get there.
 *
 * Nobody else gets past this: the target port itself is closed on the ingress network, so that no header can be forged
 * there. Connections end with the daemon, unlike those that the kernel translates.
 */
import type net from "node:net";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { familyOf, toBytes } from "../../kernel/inet.ts";
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
  /** Where the header has been said already. */
  readonly headedPort: number;
}

/** Connections at once; further ones are hung up on. */
const MOST_CLIENTS = 10_000;

export async function openProxy(options: ProxyOptions): Promise<ProxiedPort> {
  const { ns, address, publishedPort, targetPort, log } = options;
  const open = new Set<net.Socket>();
  const listen = async (withHeader: boolean): Promise<net.Server> => {
    const server = await tcpListenerIn(ns, address, 0, { early: true });
    server.maxConnections = MOST_CLIENTS;
    server.on("error", (error) => log.warn("PROXY protocol: the listener failed", { error: messageOf(error) }));
    server.on("connection", (client) => {
      client.on("error", (error) => log.debug("PROXY protocol", { publishedPort, error: messageOf(error) }));
      const { remoteAddress, remotePort } = client;
      // It may be gone already.
      if (remoteAddress === undefined || remotePort === undefined) return void client.destroy();
      let task: net.Socket;
      try {
        task = tcpConnectIn(ns, address, targetPort, { allowHalfOpen: true });
      } catch (error) {
        log.warn("PROXY protocol: no connection to the task", { error: messageOf(error) });
        return void client.resetAndDestroy();
      }
      task.on("error", (error) => log.debug("PROXY protocol", { publishedPort, error: messageOf(error) }));
      for (const socket of [client, task]) {
        open.add(socket);
        socket.on("close", () => open.delete(socket));
      }
      const from = { address: remoteAddress, port: remotePort };
      if (withHeader) task.write(proxyHeader(from, { address, port: publishedPort }));
      couple(client, task);
    });
    return server;
  };
  const plain = await listen(true);
  const headed = await listen(false).catch((error) => {
    plain.close();
    throw error;
  });
  return {
    port: portOf(plain),
    headedPort: portOf(headed),
    [Symbol.dispose]() {
      for (const server of [plain, headed]) server.close();
      for (const socket of open) socket.resetAndDestroy();
    },
  };
}

function portOf(server: net.Server): number {
  const at = server.address();
  return typeof at === "object" && at ? at.port : 0;
}

const SIGNATURE = Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1");
/** Version 2, a connection made for somebody else. */
const PROXY = 0x21;
const TCP_OVER = { 4: 0x11, 6: 0x21 } as const;

export interface End {
  readonly address: string;
  readonly port: number;
}

/** The header of a TCP connection; both ends are of one family. */
export function proxyHeader(from: End, to: End): Buffer {
  const addresses = Buffer.concat([toBytes(from.address), toBytes(to.address)]);
  const head = Buffer.from([PROXY, TCP_OVER[familyOf(to.address)], 0, addresses.length + 4]);
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(from.port, 0);
  ports.writeUInt16BE(to.port, 2);
  return Buffer.concat([SIGNATURE, head, addresses, ports]);
}

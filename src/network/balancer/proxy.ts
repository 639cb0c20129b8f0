/**
 * The PROXY protocol, version 2, for a published port of one task: what the client said, preceded by a header that says
 * who the client is (the "spec" is proxy-protocol.txt of HAProxy, section 2.2).
 *
 * The walk of a connection: as in the routing mesh (mesh-task.ts) up to the task's namespace, where the published port
 * leads to a socket of this daemon instead of the target port. Its peer is the client itself, or the entry node where
 * that had to hide the client. A second connection, within the namespace and by the ingress address, leads to the task;
 * the header goes first, then both are one. Answers take the mesh's way back: the first connection has
 * its marks.
 *
 * A client that the mesh cannot carry as itself, one of IPv6, is carried by the entry node's daemon (relay.ts), which knows
 * it: that one says the header itself, from its door in ingress_sbox to a second socket here (`headed`), behind which
 * nothing is added. Only our nodes' doors get there.
 *
 * All of it happens in the carrier's thread (../carrier), so that what passes here holds up nothing else of the daemon.
 * Nobody else gets past this: the target port itself is closed on the ingress network, so that no header can be forged
 * there. Connections end with the daemon, unlike those that the kernel translates.
 */
import type { Logger } from "../../base/log.ts";
import { duplicate } from "../../kernel/epoll.ts";
import { listeningSocketIn } from "../../kernel/socket.ts";
import type { NetNs } from "../../kernel/types.ts";
import { type CarriedListener, carrier } from "../carrier/carrier.ts";

export interface ProxyOptions {
  /** The task's namespace. */
  readonly ns: NetNs;
  /** The task's address on the ingress network, IPv4; it need not be there yet. */
  readonly address: string;
  readonly publishedPort: number;
  readonly targetPort: number;
  readonly log: Logger;
  /** Connections at once; further clients wait. */
  readonly most?: number;
}

export interface ProxiedPort extends Disposable {
  /** Where the published port has to lead to. */
  readonly port: number;
  /** Where the header has been said already. */
  readonly headedPort: number;
}

export function openProxy(options: ProxyOptions): ProxiedPort {
  const { ns, address, publishedPort, targetPort, most } = options;
  const log = options.log.with({ publishedPort });
  const open: CarriedListener[] = [];
  const listen = (header: boolean): number => {
    const { fd, port } = listeningSocketIn(ns, address, 0);
    const said = header ? { address, port: publishedPort } : undefined;
    const route = { ns: duplicate(ns.fd), address, port: targetPort, header: said };
    open.push(carrier().listen({ fd, route, most, log }));
    return port;
  };
  const close = () => {
    for (const listener of open.splice(0)) listener.close("reset");
  };
  try {
    return { port: listen(true), headedPort: listen(false), [Symbol.dispose]: close };
  } catch (error) {
    close();
    throw error;
  }
}

/** Small networks out of namespaces, and servers that tell who asked. For root tests. */
import type dgram from "node:dgram";
import type net from "node:net";
import { scratchNetNs } from "../../../../src/kernel/netns.ts";
import { openNft } from "../../../../src/kernel/nft.ts";
import { openRtnl } from "../../../../src/kernel/rtnl.ts";
import { tcpConnectIn, tcpListenerIn, udpSocketIn } from "../../../../src/kernel/socket.ts";
import { writeSysctl } from "../../../../src/kernel/sysctl.ts";
import type { NetNs } from "../../../../src/kernel/types.ts";
import type { SandboxExtras } from "../../../../src/network/plan/sandbox.ts";
import { replaceScript } from "../../../../src/network/plan/table.ts";

export class Lab implements AsyncDisposable {
  #stack = new AsyncDisposableStack();

  namespace(sysctls: Record<string, string> = {}): NetNs {
    const ns = this.#stack.use(scratchNetNs());
    // Addresses are good at once: no waiting for duplicates to object.
    const usual = { "net.ipv4.ip_forward": "1", "net.ipv6.conf.default.accept_dad": "0" };
    for (const [key, value] of Object.entries({ ...usual, ...sysctls })) writeSysctl(key, value, ns);
    return ns;
  }

  bridge(ns: NetNs, name: string, ...cidrs: string[]): void {
    using rtnl = openRtnl(ns);
    const { index } = rtnl.addLink({ kind: "bridge", name, up: true });
    for (const cidr of cidrs) addAddress(ns, index, cidr);
  }

  /** A device in `ns` on a bridge of another namespace. */
  plug(ns: NetNs, device: string, cidrs: string[], to: NetNs, bridge: string, mac?: string): void {
    using there = openRtnl(to);
    const master = there.link(bridge)?.index ?? 0;
    const name = `p${this.#ports++}`;
    const peer = { name: device, ns, up: true, ...(mac && { mac }) };
    const { index } = there.addLink({ kind: "veth", name, up: true, master, peer });
    there.setLink(index, { hairpin: true });
    using rtnl = openRtnl(ns);
    for (const cidr of cidrs) addAddress(ns, rtnl.link(device)?.index ?? 0, cidr);
  }
  #ports = 0;

  setMtu(ns: NetNs, device: string, mtu: number): void {
    using rtnl = openRtnl(ns);
    rtnl.setLink(rtnl.link(device)?.index ?? 0, { mtu });
  }

  route(ns: NetNs, gateway: string): void {
    using rtnl = openRtnl(ns);
    rtnl.setRoute({ dst: "default", gateway });
  }

  nft(ns: NetNs, script: string): void {
    using nft = openNft(ns);
    nft.run(script);
  }

  apply(ns: NetNs, { tables, sysctls = {}, rules = [], routes = [], neighs = [] }: SandboxExtras): void {
    for (const table of tables) this.nft(ns, replaceScript(table));
    for (const [key, value] of Object.entries(sysctls)) writeSysctl(key, value, ns);
    using rtnl = openRtnl(ns);
    const indexOf = (name: string) => rtnl.link(name)?.index ?? 0;
    for (const rule of rules) rtnl.addRule(rule);
    for (const { link, ...route } of routes) rtnl.setRoute({ ...route, link: indexOf(link) });
    for (const { link, address, mac } of neighs) rtnl.setNeigh(indexOf(link), address, mac);
  }

  /** Serves `port` over TCP and UDP; says "<name> <address of the asker>" to whoever asks. */
  async serve(ns: NetNs, port: number, name: string, address = "0.0.0.0"): Promise<void> {
    const tcp = await tcpListenerIn(ns, address, port);
    const sockets = new Set<net.Socket>();
    tcp.on("connection", (socket) => {
      sockets.add(socket);
      socket.on("close", () => sockets.delete(socket));
      socket.on("error", () => {});
      socket.on("data", () => socket.write(`${name} ${socket.remoteAddress}`));
      socket.on("end", () => socket.end());
    });
    const udp = await udpSocketIn(ns, address, port);
    udp.on("message", (_data, from) => udp.send(`${name} ${from.address}`, from.port, from.address));
    this.#stack.defer(() => {
      for (const socket of sockets) socket.destroy();
      tcp.close();
      udp.close();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

function addAddress(ns: NetNs, link: number, cidr: string): void {
  using rtnl = openRtnl(ns);
  const [address = "", prefix] = cidr.split("/");
  rtnl.addAddr(link, address, Number(prefix), { nodad: true });
}

const PATIENCE_MS = 700;

/** One question over a new TCP connection; the errno or "timeout" when there is no answer. */
export function askTcp(ns: NetNs, address: string, port: number): Promise<string> {
  const socket = tcpConnectIn(ns, address, port);
  return answerOf(
    socket,
    () => socket.write("?"),
    () => socket.destroy(),
  );
}

/** One datagram from a new socket. */
export async function askUdp(ns: NetNs, address: string, port: number): Promise<string> {
  const socket = await udpSocketIn(ns, address.includes(":") ? "::" : "0.0.0.0", 0);
  return answerOf(
    socket,
    () => socket.connect(port, address, () => socket.send("?")),
    () => socket.close(),
  );
}

async function answerOf(socket: net.Socket | dgram.Socket, ask: () => void, close: () => void): Promise<string> {
  const result = Promise.withResolvers<string>();
  const timer = setTimeout(() => result.resolve("timeout"), PATIENCE_MS);
  const emitter: NodeJS.EventEmitter = socket;
  emitter.once("data", (data: Buffer) => result.resolve(data.toString()));
  emitter.once("message", (data: Buffer) => result.resolve(data.toString()));
  emitter.on("error", (error: NodeJS.ErrnoException) => result.resolve(error.code ?? "error"));
  ask();
  try {
    return await result.promise;
  } finally {
    clearTimeout(timer);
    close();
  }
}

/**
 * The PROXY protocol on this host: the tasks whose published ports speak it (`balancer/proxy.ts`), and connections to
 * such tasks, wherever they are, for clients whom the mesh cannot carry as themselves.
 */
import { randomInt } from "node:crypto";
import { duplicate } from "../kernel/epoll.ts";
import { plainIp } from "./address.ts";
import { openProxy, type ProxiedPort } from "./balancer/proxy.ts";
import type { MeshPort } from "./balancer/types.ts";
import { proxyHeader } from "./carrier/header.ts";
import type { End, Route } from "./carrier/types.ts";
import type { Core } from "./core.ts";
import { ingressSandboxId, type SandboxState, sandboxKey } from "./state.ts";

export class Proxies {
  readonly #core: Core;
  /** By sandbox, then by published port. */
  readonly #open = new Map<string, Map<number, ProxiedPort>>();

  constructor(core: Core) {
    this.#core = core;
  }

  /** Opens what the sandbox wants and has not; before its tables lead there and before others are told of it. */
  async ensure(sandbox: SandboxState): Promise<void> {
    for (const endpoint of sandbox.endpoints) {
      const { service } = endpoint;
      if (!service?.ingressPorts.some(({ proxy }) => proxy)) continue;
      const ingressPorts = [];
      for (const port of service.ingressPorts) {
        const wants = port.proxy && port.protocol === "tcp";
        const proxied = wants ? await this.#ensure(sandbox.id, plainIp(endpoint.ipv4), port) : undefined;
        ingressPorts.push(proxied ? { ...port, headedPort: proxied.headedPort } : port);
      }
      endpoint.service = { ...service, ingressPorts };
    }
  }

  async #ensure(
    sandboxId: string,
    address: string,
    { publishedPort, targetPort }: { readonly publishedPort: number; readonly targetPort: number },
  ): Promise<ProxiedPort | undefined> {
    const { ns } = this.#core.namespaces.get(sandboxKey(sandboxId));
    const ofSandbox = this.#open.get(sandboxId) ?? new Map<number, ProxiedPort>();
    this.#open.set(sandboxId, ofSandbox);
    const known = ofSandbox.get(publishedPort);
    if (known || !ns) return known;
    const log = this.#core.log.with({ sandbox: sandboxId.slice(0, 12) });
    const opened = openProxy({ ns, address, publishedPort, targetPort, log });
    ofSandbox.set(publishedPort, opened);
    return opened;
  }

  /** Where in the sandbox a published port has to lead to, if it has a proxy. */
  port(sandboxId: string, publishedPort: number): number | undefined {
    return this.#open.get(sandboxId)?.get(publishedPort)?.port;
  }

  /**
   * The way of this host's client to one of the port's tasks, which is told of the client; undefined where no task wants
   * that.
   */
  routeOf(port: MeshPort | undefined, client: End, at: End): Route | undefined {
    const tasks = port?.backends.filter(({ headedPort }) => headedPort !== undefined) ?? [];
    const { ns } = this.#core.namespaces.find(sandboxKey(ingressSandboxId)) ?? { ns: undefined };
    if (!ns || tasks.length === 0) return undefined;
    const { address = "", headedPort = 0 } = tasks[randomInt(tasks.length)] ?? {};
    return { ns: duplicate(ns.fd), address, port: headedPort, preface: proxyHeader(client, at) };
  }

  stop(sandboxId: string): void {
    for (const proxied of this.#open.get(sandboxId)?.values() ?? []) proxied[Symbol.dispose]();
    this.#open.delete(sandboxId);
  }

  close(): void {
    for (const id of [...this.#open.keys()]) this.stop(id);
  }
}

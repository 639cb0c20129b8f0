/** The tasks of this host whose published ports speak the PROXY protocol (`balancer/proxy.ts`). */
import { plainIp } from "./address.ts";
import { openProxy, type ProxiedPort } from "./balancer/proxy.ts";
import type { Core } from "./core.ts";
import { type SandboxState, sandboxKey } from "./state.ts";

export class Proxies {
  readonly #core: Core;
  /** By sandbox, then by published port. */
  readonly #open = new Map<string, Map<number, ProxiedPort>>();

  constructor(core: Core) {
    this.#core = core;
  }

  /** Opens what the sandbox wants and has not; before its tables lead there. */
  async ensure(sandbox: SandboxState): Promise<void> {
    for (const { service, ipv4 } of sandbox.endpoints) {
      for (const { protocol, publishedPort, targetPort, proxy } of service?.ingressPorts ?? []) {
        const { ns } =
          proxy && protocol === "tcp" ? this.#core.namespaces.get(sandboxKey(sandbox.id)) : { ns: undefined };
        if (!ns || this.port(sandbox.id, publishedPort) !== undefined) continue;
        const log = this.#core.log.with({ sandbox: sandbox.id.slice(0, 12) });
        const opened = await openProxy({ ns, address: plainIp(ipv4), publishedPort, targetPort, log });
        const ofSandbox = this.#open.get(sandbox.id) ?? new Map<number, ProxiedPort>();
        this.#open.set(sandbox.id, ofSandbox.set(publishedPort, opened));
      }
    }
  }

  /** Where in the sandbox a published port has to lead to, if it has a proxy. */
  port(sandboxId: string, publishedPort: number): number | undefined {
    return this.#open.get(sandboxId)?.get(publishedPort)?.port;
  }

  stop(sandboxId: string): void {
    for (const proxy of this.#open.get(sandboxId)?.values() ?? []) proxy[Symbol.dispose]();
    this.#open.delete(sandboxId);
  }

  close(): void {
    for (const id of [...this.#open.keys()]) this.stop(id);
  }
}

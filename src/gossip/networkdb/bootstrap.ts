/**
 * Finding the cluster: the given addresses are tried until one answers, and watched afterwards. An address whose
 * node is not among the active ones is tried again now and then, so that a split cluster grows together even when
 * both halves have forgotten each other.
 */
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { hostPort } from "../memberlist/address.ts";

export interface BootstrapDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly defaultPort: number;
  readonly isSelf: (host: string, port: number) => boolean;
  /** Is there an active node at this address? */
  readonly isActive: (host: string, port: number) => boolean;
  readonly join: (host: string, port: number) => Promise<void>;
}

interface Target {
  readonly host: string;
  readonly port: number;
  busy: boolean;
}

/** While alone: every second at first, then every five. Docker waits a minute before it looks again. */
const eagerAttempts = 30;
const patientTicks = 5;
/** Once part of a cluster: for the addresses that are missing in it. */
const watchTicks = 15;

export class Bootstrap {
  readonly #deps: BootstrapDeps;
  #targets: Target[] = [];
  #ticks = 0;
  #alone = 0;

  constructor(deps: BootstrapDeps) {
    this.#deps = deps;
  }

  set(addresses: readonly string[]): void {
    const { defaultPort, isSelf } = this.#deps;
    const old = this.#targets;
    this.#targets = addresses
      .map((address) => hostPort(address, defaultPort))
      .filter(({ host, port }) => !isSelf(host, port))
      .map(({ host, port }) => {
        return old.find((target) => target.host === host && target.port === port) ?? { host, port, busy: false };
      });
    if (this.#targets.every((target) => old.includes(target))) return;
    this.#alone = 0;
    this.#try();
  }

  /** Called every second. */
  tick(): void {
    this.#ticks++;
    const missing = this.#missing();
    if (missing.length === 0) return;
    if (missing.length < this.#targets.length) {
      this.#alone = 0;
      if (this.#ticks % watchTicks === 0) this.#try();
      return;
    }
    this.#alone++;
    if (this.#alone <= eagerAttempts || this.#ticks % patientTicks === 0) this.#try();
  }

  #missing(): Target[] {
    return this.#targets.filter((target) => !this.#deps.isActive(target.host, target.port));
  }

  #try(): void {
    for (const target of this.#missing()) {
      if (target.busy) continue;
      target.busy = true;
      this.#deps
        .join(target.host, target.port)
        .catch((error) =>
          this.#deps.log.debug("gossip bootstrap failed", { address: target.host, error: messageOf(error) }),
        )
        .finally(() => {
          target.busy = false;
        });
    }
  }
}

/**
 * What the paths to the other hosts take (`paths.ts`) becomes the size of overlay networks' packets: they take what fits
 * between all hosts. Networks whose size the user chose keep it, and it is said that it does not fit.
 */
import { messageOf } from "../base/errors.ts";
import { echo } from "../kernel/echo.ts";
import type { Core } from "./core.ts";
import { isTooLarge } from "./drivers/overlay.ts";
import { type Path, Paths } from "./paths.ts";

export class PathMtu {
  readonly #core: Core;
  readonly #hosts: () => readonly string[];
  readonly paths: Paths;

  /** `hosts`: data path addresses of the other hosts. */
  constructor(core: Core, hosts: () => readonly string[]) {
    this.#core = core;
    this.#hosts = hosts;
    const { clock, log } = core;
    this.paths = new Paths({
      clock,
      log,
      deviceMtu: () => core.deviceMtu,
      echo: (to, size, timeoutMs) => echo({ from: core.cluster?.dataPathAddress ?? "", to, size, timeoutMs, clock }),
      changed: (path) => this.#changed(path),
    });
  }

  /** Looks which hosts there are, and what this host's own device and the paths to them take. */
  async follow(): Promise<void> {
    const core = this.#core;
    if (!core.cluster) return;
    const before = core.pathMtu;
    core.measurePath(this.paths.smallest());
    this.paths.follow(this.#hosts());
    // Another device is no drift.
    if (core.pathMtu !== before) await core.settle(core.namespaces.keys());
  }

  #changed({ host, mtu }: Path): void {
    const core = this.#core;
    const before = core.pathMtu;
    core.measurePath(this.paths.smallest());
    if (mtu !== undefined && mtu < core.deviceMtu) {
      core.events.emit({ kind: "path", host, mtu, expected: core.deviceMtu });
    }
    if (core.pathMtu === before) return;
    for (const { spec } of core.networks.values()) {
      if (spec.driver !== "overlay" || !isTooLarge(spec, core)) continue;
      core.log.warn("a network's packets are larger than the path takes", { network: spec.name, mtu: core.pathMtu });
    }
    core.log.info("what fits between the hosts changed", { from: before, to: core.pathMtu });
    core
      .settle(core.namespaces.keys())
      .catch((error) => core.log.error("cannot follow a change of the paths", { error: messageOf(error) }));
  }

  list(): { host: string; mtu: number | undefined; expected: number }[] {
    return this.paths.list().map((path) => ({ ...path, expected: this.#core.deviceMtu }));
  }

  close(): void {
    this.paths.close();
  }
}

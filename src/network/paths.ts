/**
 * How large packets to the other hosts may be. A peer's path is tried when it appears, with echoes that may not be
 * fragmented, and again now and then; overlay networks take the smallest, because what does not fit is lost without a
 * word. Silence is no finding: a host that answers no small echo is taken to be like its neighbours.
 */
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";

/** Every host can receive this much (RFC 791, RFC 8200); nothing smaller is tried. */
const least = { 4: 576, 6: 1280 } as const;
const smallBytes = 100;
const tries = 3;
const firstTimeoutMs = 1_000;
/** An echo may take so many times what the small one took, and so long at least. */
const slack = { factor: 4, leastMs: 150 } as const;
export const againMs = 2 * 60_000;

export interface Path {
  readonly host: string;
  /** Largest packet that arrives; undefined where nobody answers. */
  readonly mtu: number | undefined;
}

export interface PathsOptions {
  /** Whether a packet of `size` bytes to `host` is answered in time. */
  readonly echo: (host: string, size: number, timeoutMs: number) => Promise<boolean>;
  /** Bytes that this host's own device can send. */
  readonly deviceMtu: () => number;
  readonly clock: Clock;
  readonly log: Logger;
  /** A path was measured, and is not what it was. */
  readonly changed: (path: Path) => void;
}

export class Paths {
  readonly #options: PathsOptions;
  readonly #known = new Map<string, { mtu: number | undefined; tried: number; at: number }>();
  readonly #trying = new Set<string>();
  #closed = false;

  constructor(options: PathsOptions) {
    this.#options = options;
  }

  /** The hosts of now. New ones are tried, and those whose turn it is; those that are gone no longer count. */
  follow(hosts: readonly string[]): void {
    const { clock, deviceMtu, changed } = this.#options;
    const wanted = new Set(hosts);
    for (const host of [...this.#known.keys()]) {
      if (!wanted.has(host)) {
        this.#known.delete(host);
        changed({ host, mtu: undefined });
      }
    }
    for (const host of wanted) {
      const known = this.#known.get(host);
      if (this.#trying.has(host)) continue;
      if (known && known.tried === deviceMtu() && clock.steady() - known.at < againMs) continue;
      this.#trying.add(host);
      void this.#try(host).finally(() => this.#trying.delete(host));
    }
  }

  async #try(host: string): Promise<void> {
    const { clock, deviceMtu, changed, log } = this.#options;
    const tried = deviceMtu();
    let mtu: number | undefined;
    try {
      mtu = await this.#measure(host, tried);
    } catch (error) {
      log.warn("cannot measure the path to a host", { host, error: messageOf(error) });
    }
    if (this.#closed) return;
    const before = this.#known.get(host);
    this.#known.set(host, { mtu, tried, at: clock.steady() });
    if (mtu !== undefined && mtu < tried && mtu !== before?.mtu) {
      log.warn("large packets do not reach a host", { host, expected: tried, mtu });
    }
    if (before?.mtu !== mtu) changed({ host, mtu });
  }

  async #measure(host: string, device: number): Promise<number | undefined> {
    const { echo, clock } = this.#options;
    const reaches = async (size: number, timeoutMs: number) => {
      for (let attempt = 0; attempt < tries && !this.#closed; attempt++) {
        if (await echo(host, size, timeoutMs)) return true;
      }
      return false;
    };
    const began = clock.steady();
    if (!(await reaches(smallBytes, firstTimeoutMs))) return undefined;
    const timeoutMs = Math.max(slack.leastMs, slack.factor * (clock.steady() - began));
    if (await reaches(device, timeoutMs)) return device;
    let low: number = least[host.includes(":") ? 6 : 4];
    // Where not even that arrives, something else is wrong than the size.
    if (low >= device || !(await reaches(low, timeoutMs))) return undefined;
    for (let high = device; high - low > 1; ) {
      const middle = (low + high) >> 1;
      if (await reaches(middle, timeoutMs)) low = middle;
      else high = middle;
    }
    return low;
  }

  /** The smallest path that is known. */
  smallest(): number {
    return Math.min(this.#options.deviceMtu(), ...this.list().map(({ mtu }) => mtu ?? Number.POSITIVE_INFINITY));
  }

  list(): Path[] {
    return [...this.#known].map(([host, { mtu }]) => ({ host, mtu }));
  }

  close(): void {
    this.#closed = true;
  }
}

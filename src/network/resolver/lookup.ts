/**
 * Which record a name means to a sandbox. The whole name is tried on every network in turn; then, from the right,
 * what follows a dot is taken for a network's name: `a.b.c` is `a.b.c`, `a.b` of network `c`, `a` of network `b.c`.
 * At each step the sandbox's own aliases come before the networks' names.
 */
import type { NameNetwork, NameRecord, NameView, SrvTarget } from "./types.ts";
import { A, AAAA } from "./wire.ts";

/**
 * The record, or undefined when no network knows the name. A record with addresses of the wanted family
 * is preferred to an earlier one without.
 */
export function lookup(name: string, type: number, view: NameView): NameRecord | undefined {
  const networks = view.networks();
  let known: NameRecord | undefined;
  for (let dot = name.length; dot > 0; dot = name.lastIndexOf(".", dot - 1)) {
    const label = dot === name.length ? name : name.slice(0, dot);
    const suffix = dot === name.length ? undefined : name.slice(dot + 1);
    for (const byAlias of [true, false]) {
      for (const network of networks) {
        if (suffix !== undefined && network.name.toLowerCase() !== suffix) continue;
        const record = byAlias ? throughAlias(network, label) : plain(network, label);
        if (!record) continue;
        if (suits(record, type)) return record;
        known ??= record;
      }
      if (known) return known;
    }
  }
  return known;
}

function throughAlias(network: NameNetwork, name: string): NameRecord | undefined {
  const target = network.alias?.(name);
  return target === undefined ? undefined : network.lookup(target);
}

function plain(network: NameNetwork, name: string): NameRecord | undefined {
  // A name that this sandbox uses for something else does not mean its bearer.
  return network.alias?.(name) === undefined ? network.lookup(name) : undefined;
}

function suits(record: NameRecord, type: number): boolean {
  if (type === A) return record.ipv4.length > 0;
  if (type === AAAA) return record.ipv6.length > 0;
  return true;
}

export function srvOf(name: string, view: NameView): readonly SrvTarget[] | undefined {
  for (const network of view.networks()) {
    const targets = network.srv?.(name);
    if (targets && targets.length > 0) return targets;
  }
  return undefined;
}

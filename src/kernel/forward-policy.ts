/**
 * The forward chain of iptables' own table (`ip filter FORWARD`, `ip6 filter FORWARD`), whose policy ufw and Docker set to
 * DROP. A drop in any table is final whatever others accept, so devices whose packets are filtered in a table of their
 * owner's get two rules at its end, behind whatever the operator wrote there: his rules have their say, the policy
 * does not. They are of the form that `iptables` itself reads and lists (`-i DEVICE -j ACCEPT`).
 */
import { KernelError } from "./error.ts";
import type { Nft } from "./types.ts";

export type PolicyFamily = "ip" | "ip6";
export type Direction = "iifname" | "oifname";

/** A rule that lets a device's packets pass. */
export interface Passage {
  readonly family: PolicyFamily;
  readonly direction: Direction;
  readonly device: string;
}

export interface ForwardPolicy {
  readonly family: PolicyFamily;
  /** Whether what no rule decides is dropped. */
  readonly drops: boolean;
  /** Rules of the given mark, with the kernel's handle. */
  readonly passages: readonly (Passage & { readonly handle: number })[];
}

interface Item {
  readonly chain?: { readonly hook?: string; readonly policy?: string };
  readonly rule?: { readonly handle: number; readonly comment?: string; readonly expr: readonly unknown[] };
}

/** The chains as they are; only those that exist. `mark` is the comment of the rules that are told. */
export function forwardPolicies(nft: Pick<Nft, "list">, mark: string): ForwardPolicy[] {
  return (["ip", "ip6"] as const).flatMap((family) => {
    const listed = listOf(nft, `chain ${family} filter FORWARD`);
    if (!listed) return [];
    const drops = listed.some(({ chain }) => chain?.hook === "forward" && chain.policy === "drop");
    const passages = listed.flatMap(({ rule }) => {
      const passage = rule?.comment === mark ? passageOf(rule.expr) : undefined;
      return rule && passage ? [{ family, ...passage, handle: rule.handle }] : [];
    });
    return [{ family, drops, passages }];
  });
}

/** Somebody else's chain: one that cannot be read is left alone, and no reason to fail. */
function listOf(nft: Pick<Nft, "list">, what: string): Item[] | undefined {
  try {
    return nft.list(what) as Item[] | undefined;
  } catch (error) {
    if (error instanceof KernelError) return undefined;
    throw error;
  }
}

function passageOf(expressions: readonly unknown[]): Omit<Passage, "family"> | undefined {
  const { match } = (expressions[0] ?? {}) as { match?: { left?: { meta?: { key?: string } }; right?: unknown } };
  const key = match?.left?.meta?.key;
  if ((key !== "iifname" && key !== "oifname") || typeof match?.right !== "string") return undefined;
  return { direction: key, device: match.right };
}

export const passageRule = ({ family, direction, device }: Passage, mark: string): string =>
  `add rule ${family} filter FORWARD ${direction} "${device}" counter accept comment "${mark}"\n`;

export const closeRule = ({ family, handle }: { family: PolicyFamily; handle: number }): string =>
  `delete rule ${family} filter FORWARD handle ${handle}\n`;

/** What is to be added and deleted so that exactly these devices pass wherever the policy drops, and no rule is left where not. */
export function passageChanges(
  policies: readonly ForwardPolicy[],
  devices: readonly string[],
): { add: Passage[]; remove: ForwardPolicy["passages"][number][] } {
  const add: Passage[] = [];
  const remove: ForwardPolicy["passages"][number][] = [];
  for (const { family, drops, passages } of policies) {
    const missing = new Map<string, Passage>();
    for (const device of drops ? devices : []) {
      for (const direction of ["iifname", "oifname"] as const) {
        missing.set(`${direction} ${device}`, { family, direction, device });
      }
    }
    // One of each: what is there twice goes, too.
    for (const passage of passages) {
      if (!missing.delete(`${passage.direction} ${passage.device}`)) remove.push(passage);
    }
    add.push(...missing.values());
  }
  return { add, remove };
}

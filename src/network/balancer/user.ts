/**
 * The operator's own rules: chain `skein-user` of table `inet operator`, ahead of every filter of ours. A drop there is
 * final. It is asked for all that is forwarded, to containers' ports above all, and for new connections to published
 * ports that the daemon carries itself (`relay.ts`): they end at this host and are never forwarded.
 *
 * Made where it is missing; what is in `skein-user` is never touched. It is not part of any plan, and the table is not
 * named as ours are, so that nothing sweeps it away.
 */
import type { Protocol } from "./types.ts";

/** Before `filter` (0), after connection tracking and destination translation. */
const PRIORITY = -10;
const TABLE = "inet operator";

export interface RelayedPort {
  readonly protocol: Protocol;
  readonly port: number;
}

/** One transaction; what is in `skein-user` stays. */
export function userChainScript(relayed: readonly RelayedPort[] = []): string {
  return [
    `add table ${TABLE}`,
    `add set ${TABLE} relayed { type inet_proto . inet_service; }`,
    `add chain ${TABLE} skein-user`,
    `add chain ${TABLE} forward { type filter hook forward priority ${PRIORITY}; policy accept; }`,
    `add chain ${TABLE} input { type filter hook input priority ${PRIORITY}; policy accept; }`,
    `flush chain ${TABLE} forward`,
    `flush chain ${TABLE} input`,
    `add rule ${TABLE} forward jump skein-user`,
    `add rule ${TABLE} input ct state new meta l4proto . th dport @relayed jump skein-user`,
    relayedScript(relayed),
  ].join("\n");
}

/** What the set of relayed ports should be now. */
export function relayedScript(relayed: readonly RelayedPort[]): string {
  const elements = [...new Set(relayed.map(({ protocol, port }) => `${protocol} . ${port}`))];
  return [
    `flush set ${TABLE} relayed`,
    ...(elements.length > 0 ? [`add element ${TABLE} relayed { ${elements.join(", ")} }`] : []),
    "",
  ].join("\n");
}

/** Whether a listing of the table (`nft -j list table`) shows it whole: both ways lead to the operator's chain. */
export function isUserChainWhole(listed: readonly unknown[] | undefined): boolean {
  const leads = (chain: string) =>
    (listed ?? []).filter((item) => {
      const { rule } = item as { rule?: { chain?: string; expr?: unknown[] } };
      return rule?.chain === chain && JSON.stringify(rule.expr?.at(-1)) === '{"jump":{"target":"skein-user"}}';
    }).length === 1;
  return leads("forward") && leads("input");
}

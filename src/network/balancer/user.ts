/**
 * The operator's own rules for forwarded packets: chain `skein-user` of table `inet operator`, ahead of every filter
 * of ours. A drop there is final. Made where it is missing and never touched again: it is not part of any plan, and
 * the table is not named as ours are, so that nothing sweeps it away.
 */

/** Before `filter` (0), after connection tracking and destination translation. */
const PRIORITY = -10;

/** Creates the chain where it is not there; what is in it stays. */
export function userChainScript(): string {
  return [
    "table inet operator {",
    "  chain skein-user {",
    `    type filter hook forward priority ${PRIORITY}; policy accept;`,
    "  }",
    "}",
    "",
  ].join("\n");
}

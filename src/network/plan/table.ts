/** An nftables table as a plan holds it. */
export interface PlannedTable {
  readonly family: "inet" | "ip" | "ip6" | "netdev" | "bridge" | "arp";
  readonly name: string;
  /** What stands between the braces of `table family name { … }`. */
  readonly body: string;
  /** A smaller script with the same outcome, for a table that is loaded with exactly this body. */
  readonly patch?: { readonly from: string; readonly script: string };
}

/** Every table of ours is named so; others are never touched. */
export const tablePrefix = "skein";

export const tableId = (table: { family: string; name: string }): string => `${table.family} ${table.name}`;

/** A script that replaces the table, whatever was in it, in one transaction. */
export function replaceScript(table: PlannedTable): string {
  const id = tableId(table);
  return `table ${id} {}\ndelete table ${id}\ntable ${id} {\n${table.body}\n}\n`;
}

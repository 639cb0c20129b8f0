/**
 * Gives memory back that only the start of a program needed: pages of its executable that were read to set it up, and
 * what malloc keeps for later. A third of a Node process that then mostly waits.
 *
 * Only mappings of which no page was ever written are let go: what is needed again comes back from the page cache, a
 * minor fault per sixteen pages. (Written ones, such as relocated data, would come back as they are on disk.)
 */
import { readFileSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import * as libc from "./libc.ts";

export interface Mapping {
  readonly start: number;
  readonly end: number;
}

/** The never written private mappings of `program` in a text as of /proc/self/smaps. */
export function cleanMappings(smaps: string, program: string): Mapping[] {
  const found: Mapping[] = [];
  let current: Mapping | undefined;
  for (const line of smaps.split("\n")) {
    const head = /^([0-9a-f]+)-([0-9a-f]+) (r-[-x]p) \S+ \S+ \d+\s+(.*)$/.exec(line);
    if (head) {
      const [, start = "", end = "", , path] = head;
      current = path === program ? { start: Number.parseInt(start, 16), end: Number.parseInt(end, 16) } : undefined;
    } else if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) {
      current = undefined;
    } else if (current && line.startsWith("Anonymous:")) {
      if (/^Anonymous:\s+0 kB$/.test(line)) found.push(current);
      current = undefined;
    }
  }
  return found;
}

/**
 * Gives back what can be, and has V8 mind its heap more than its speed from now on: from the start it would make the start
 * a fifth slower, for nothing. Never throws, because nothing depends on it.
 */
export function releaseStartup(): void {
  try {
    setFlagsFromString("--optimize-for-size");
    for (const { start, end } of cleanMappings(readFileSync("/proc/self/smaps", "utf8"), process.execPath)) {
      libc.madviseDontNeed(start, end - start);
    }
    libc.mallocTrim();
  } catch {
    // A C library without malloc_trim, a /proc that is not there: the memory stays.
  }
}

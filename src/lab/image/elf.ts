/** Which files a dynamically linked program of this machine needs at run time. */
import { realpathSync } from "node:fs";
import { SkeinError } from "../../base/errors.ts";
import { run } from "../process.ts";

/** Paths of the shared libraries and the loader of a program, as `ldd` finds them; none for a static one. */
export async function librariesOf(program: string): Promise<string[]> {
  const { code, stdout, stderr } = await run(["ldd", program]);
  if (code !== 0) {
    if (/not a dynamic executable|statically linked/.test(stdout + stderr)) return [];
    throw new SkeinError("internal", `ldd ${program}: ${stderr.trim()}`);
  }
  return parseLdd(stdout);
}

/** The absolute paths in the output of `ldd`. */
export function parseLdd(text: string): string[] {
  const paths: string[] = [];
  for (const line of text.split("\n")) {
    const path = /(?:=>\s+|^\s*)(\/\S+)\s+\(0x/.exec(line)?.[1];
    if (path) paths.push(path);
  }
  return paths;
}

/** The file behind a path, links followed. */
export function realFile(path: string): string {
  return realpathSync(path);
}

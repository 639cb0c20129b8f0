/** Bytes of the files in a writable layer or a volume, as Docker counts them: contents, hard links once, directories nothing. */
import { lstat, readdir } from "node:fs/promises";
import { join } from "node:path";

export async function layerSize(dir: string): Promise<number> {
  const seen = new Set<string>();
  const walk = async (path: string): Promise<number> => {
    let total = 0;
    // What vanishes meanwhile counts nothing.
    for (const entry of await readdir(path, { withFileTypes: true }).catch(() => [])) {
      const here = join(path, entry.name);
      if (entry.isDirectory()) total += await walk(here);
      else if (entry.isFile() || entry.isSymbolicLink()) {
        const stat = await lstat(here).catch(() => undefined);
        if (!stat) continue;
        const key = `${stat.dev}:${stat.ino}`;
        if (stat.nlink > 1 && seen.has(key)) continue;
        if (stat.nlink > 1) seen.add(key);
        total += stat.size;
      }
    }
    return total;
  };
  return walk(dir);
}

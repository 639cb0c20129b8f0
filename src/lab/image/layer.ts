/** A layer of an image under construction: a tar archive whose bytes depend on nothing but its content. */
import { createHash } from "node:crypto";
import { readFileSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { buffer } from "node:stream/consumers";
import { type Pack, pack } from "tar-stream";

/** Fixed, so that the same packages give the same image id. */
const mtime = new Date(0);

export class Layer {
  readonly #tar: Pack = pack();
  readonly #seen = new Set<string>();

  dir(path: string, mode = 0o755): this {
    if (path === "." || path === "" || this.#seen.has(path)) return this;
    this.dir(dirname(path));
    this.#seen.add(path);
    this.#tar.entry({ name: `${path}/`, type: "directory", mode, mtime });
    return this;
  }

  file(path: string, content: string | Buffer, mode = 0o644): this {
    if (this.#seen.has(path)) return this;
    this.dir(dirname(path));
    this.#seen.add(path);
    this.#tar.entry({ name: path, mode, mtime }, content);
    return this;
  }

  link(path: string, target: string): this {
    if (this.#seen.has(path)) return this;
    this.dir(dirname(path));
    this.#seen.add(path);
    this.#tar.entry({ name: path, type: "symlink", linkname: target, mtime });
    return this;
  }

  /** A file of a root file system, links followed, at the same or another path. */
  copy(root: string, path: string, mode = 0o755, to = path): this {
    return this.file(to, readFileSync(realpathSync(join(root, path))), mode);
  }

  /** The archive and its digest. The layer takes no more after this. */
  async finish(): Promise<{ tar: Buffer; digest: string }> {
    this.#tar.finalize();
    const tar = await buffer(this.#tar);
    return { tar, digest: createHash("sha256").update(tar).digest("hex") };
  }
}

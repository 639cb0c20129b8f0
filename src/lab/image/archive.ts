/** Writes images as one archive that `docker load` reads; layers that images share are stored once. */
import { createHash } from "node:crypto";
import { createWriteStream, renameSync } from "node:fs";
import { pipeline } from "node:stream/promises";
import { pack } from "tar-stream";

export interface FinishedLayer {
  readonly tar: Buffer;
  readonly digest: string;
}

export interface ImageRecipe {
  readonly tags: readonly string[];
  /** Lowest first. */
  readonly layers: readonly FinishedLayer[];
  readonly config: {
    Cmd: string[];
    StopSignal?: string;
    Env?: string[];
    ExposedPorts?: Record<string, object>;
    WorkingDir?: string;
  };
}

/** Debian's name of this machine's architecture in the registries' words. */
const architecture = process.arch === "x64" ? "amd64" : process.arch;

/** The image configuration, whose digest is the image's id. */
function configOf(recipe: ImageRecipe): string {
  return JSON.stringify({
    architecture,
    config: { Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], ...recipe.config },
    created: "1970-01-01T00:00:00Z",
    history: recipe.layers.map(() => ({ created: "1970-01-01T00:00:00Z", created_by: "skein lab: Debian packages" })),
    os: "linux",
    rootfs: { type: "layers", diff_ids: recipe.layers.map((layer) => `sha256:${layer.digest}`) },
  });
}

/** Writes the archive; it appears at `path` only when it is whole. */
export async function writeArchive(path: string, recipes: readonly ImageRecipe[]): Promise<void> {
  const tar = pack();
  const written = new Set<string>();
  const add = (name: string, content: string | Buffer) => {
    if (written.has(name)) return;
    written.add(name);
    tar.entry({ name, mode: 0o644, mtime: new Date(0) }, content);
  };
  const manifest = recipes.map((recipe) => {
    const config = configOf(recipe);
    const id = createHash("sha256").update(config).digest("hex");
    for (const layer of recipe.layers) add(`${layer.digest}.tar`, layer.tar);
    add(`${id}.json`, config);
    return { Config: `${id}.json`, RepoTags: recipe.tags, Layers: recipe.layers.map((layer) => `${layer.digest}.tar`) };
  });
  add("manifest.json", JSON.stringify(manifest));
  tar.finalize();
  // Whole or not at all, also where two build it at once.
  const part = `${path}.${process.pid}.part`;
  await pipeline(tar, createWriteStream(part));
  renameSync(part, path);
}

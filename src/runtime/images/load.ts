/**
 * `docker load`: archives in Docker's format (manifest.json) and OCI layouts (index.json), compressed or not.
 * Entries come in any order, so layers go to the content store as they pass and what is not used is left to its
 * garbage collector. Paths are only names to look up; nothing is written by them.
 */
import type { Readable } from "node:stream";
import * as z from "zod";
import { invalid, notFound } from "../../base/errors.ts";
import { type Containerd, type Lease, withLease } from "../containerd/client.ts";
import type { Progress } from "../types.ts";
import { type ArchiveEntry, openArchive } from "./archive.ts";
import { keepImage, type OriginalManifest } from "./assemble.ts";
import { type Descriptor, sha256, writeBlob } from "./content.ts";
import { hostPlatform, type Manifest, mediaTypes, parseConfig, parseIndex, parseManifest } from "./manifest.ts";
import type { Records } from "./records.ts";
import { normalise, parseReference } from "./reference.ts";
import { type Compression, compressionOf } from "./sniff.ts";
import { unpack } from "./unpack.ts";

interface Blob {
  readonly digest: string;
  readonly size: number;
  readonly compression: Compression;
}

/** What an archive held. */
interface Contents {
  readonly documents: Map<string, Buffer>;
  readonly blobs: Map<string, Blob>;
  readonly links: Map<string, string>;
}

const maxDocument = 4 * 1024 * 1024;
const maxDocuments = 64 * 1024 * 1024;

const dockerManifests = z.array(
  z.object({ Config: z.string(), RepoTags: z.array(z.string()).nullish(), Layers: z.array(z.string()).nullish() }),
);

/** Gives the full names of the images loaded, ids of those without. */
export async function loadArchive(
  containerd: Containerd,
  records: Records,
  archive: Readable,
  onProgress: (progress: Progress) => void,
): Promise<string[]> {
  return await withLease(containerd, async (lease) => {
    const contents = await readContents(containerd, archive, lease, onProgress);
    const keeper = new Keeper(containerd, records, contents, lease);
    const docker = contents.documents.get("manifest.json");
    if (docker) return await keeper.docker(docker);
    const index = contents.documents.get("index.json");
    if (index) return await keeper.oci(index);
    throw invalid("invalid archive: neither manifest.json nor index.json in it");
  });
}

async function readContents(
  containerd: Containerd,
  archive: Readable,
  lease: Lease,
  onProgress: (progress: Progress) => void,
): Promise<Contents> {
  const contents: Contents = { documents: new Map(), blobs: new Map(), links: new Map() };
  let kept = 0;
  for await (const entry of openArchive(archive)) {
    if (entry.link !== undefined) {
      contents.links.set(entry.path, entry.link);
      continue;
    }
    if (entry.size <= maxDocument) {
      const bytes = await entry.bytes();
      if (isDocument(bytes)) {
        kept += bytes.length;
        if (kept > maxDocuments) throw invalid("invalid archive: too many documents");
        contents.documents.set(entry.path, bytes);
        continue;
      }
      contents.blobs.set(entry.path, await store(containerd, entry, [bytes], lease, onProgress));
    } else contents.blobs.set(entry.path, await store(containerd, entry, entry.stream, lease, onProgress));
  }
  return contents;
}

function isDocument(bytes: Buffer): boolean {
  if (bytes[0] !== 0x7b && bytes[0] !== 0x5b) return false;
  try {
    JSON.parse(bytes.toString("utf8"));
    return true;
  } catch {
    return false;
  }
}

async function store(
  containerd: Containerd,
  entry: ArchiveEntry,
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  lease: Lease,
  onProgress: (progress: Progress) => void,
): Promise<Blob> {
  let compression: Compression | undefined;
  async function* watched(): AsyncGenerator<Uint8Array> {
    for await (const chunk of source) {
      compression ??= compressionOf(chunk);
      yield chunk;
    }
  }
  const named = /^blobs\/sha256\/([a-f0-9]{64})$/.exec(entry.path)?.[1];
  const id = (named ?? entry.path).slice(0, 12);
  const { digest, size } = await writeBlob(containerd, watched(), {
    lease,
    onBytes: (current) => onProgress({ status: "Loading layer", id, progressDetail: { current, total: entry.size } }),
  });
  if (named !== undefined && digest !== `sha256:${named}`) {
    throw invalid(`invalid archive: the content of ${entry.path} is ${digest}`);
  }
  return { digest, size, compression: compression ?? "none" };
}

class Keeper {
  readonly #containerd: Containerd;
  readonly #records: Records;
  readonly #contents: Contents;
  readonly #lease: Lease;

  constructor(containerd: Containerd, records: Records, contents: Contents, lease: Lease) {
    this.#containerd = containerd;
    this.#records = records;
    this.#contents = contents;
    this.#lease = lease;
  }

  async docker(manifest: Buffer): Promise<string[]> {
    const parsed = dockerManifests.safeParse(JSON.parse(manifest.toString("utf8")));
    if (!parsed.success) throw invalid("invalid manifest.json");
    const loaded: string[] = [];
    for (const { Config, RepoTags, Layers } of parsed.data) {
      const config = this.#document(Config);
      const layers = (Layers ?? []).map((path) => this.#layer(path, dockerLayerTypes));
      loaded.push(...(await this.#keep(config, layers, (RepoTags ?? []).map(tagged))));
    }
    return loaded;
  }

  async oci(index: Buffer): Promise<string[]> {
    const loaded: string[] = [];
    for (const entry of parseIndex(index).manifests) {
      const { bytes, manifest } = this.#manifestFor(entry.digest);
      const config = this.#document(blobPath(manifest.config.digest));
      if (sha256(config) !== manifest.config.digest) throw invalid("invalid archive: configuration has another digest");
      const layers = manifest.layers.map((layer) => this.#layer(blobPath(layer.digest), ociLayerTypes));
      const annotations = entry.annotations ?? {};
      const name = annotations["io.containerd.image.name"] ?? annotations["org.opencontainers.image.ref.name"];
      // A bare tag names no repository.
      const names = name !== undefined && /[/:]/.test(name) ? [normalise(name)] : [];
      const original = { bytes, mediaType: manifest.mediaType ?? mediaTypes.ociManifest };
      loaded.push(...(await this.#keep(config, layers, names, original)));
    }
    return loaded;
  }

  /** The manifest behind a digest: itself, or that for this machine where it is an index. */
  #manifestFor(digest: string): { bytes: Buffer; manifest: Manifest } {
    const bytes = this.#document(blobPath(digest));
    if (sha256(bytes) !== digest) throw invalid(`invalid archive: manifest ${digest} has another digest`);
    const document = JSON.parse(bytes.toString("utf8")) as { manifests?: unknown };
    if (!document.manifests) return { bytes, manifest: parseManifest(bytes) };
    const host = hostPlatform();
    const { manifests } = parseIndex(bytes);
    const fitting = manifests.filter(
      ({ platform, digest: each }) =>
        (!platform || (platform.os === host.os && platform.architecture === host.architecture)) &&
        this.#contents.documents.has(blobPath(each)),
    );
    const chosen = fitting[0];
    if (!chosen) throw notFound(`no image for ${host.os}/${host.architecture} in the archive`);
    return this.#manifestFor(chosen.digest);
  }

  async #keep(
    config: Buffer,
    layers: readonly Descriptor[],
    names: readonly string[],
    original?: OriginalManifest,
  ): Promise<string[]> {
    const { os, rootfs } = parseConfig(config);
    if (os !== "" && os !== "linux") throw invalid(`cannot load ${os} image on linux`);
    const diffIds = rootfs.diff_ids ?? [];
    await unpack(this.#containerd, layers, this.#lease, { diffIds });
    const parts = { config, configDigest: sha256(config), layers, diffIds };
    const id = await keepImage(this.#containerd, this.#records, parts, names, this.#lease, original);
    return names.length > 0 ? [...names] : [id];
  }

  #document(path: string): Buffer {
    const found = this.#contents.documents.get(this.#resolve(path));
    if (!found) throw invalid(`invalid archive: ${path} is missing`);
    return found;
  }

  #layer(path: string, types: LayerTypes): Descriptor {
    const blob = this.#contents.blobs.get(this.#resolve(path));
    if (!blob) throw invalid(`invalid archive: layer ${path} is missing`);
    const mediaType = types[blob.compression];
    if (!mediaType) throw invalid(`layer ${path}: ${blob.compression} compression is not supported`);
    return { mediaType, digest: blob.digest, size: blob.size };
  }

  /** Older Docker writes a layer once and links to it from other images. */
  #resolve(path: string): string {
    let at = cleanPath(path);
    for (let depth = 0; depth < 10; depth++) {
      const link = this.#contents.links.get(at);
      if (link === undefined) return at;
      at = link;
    }
    throw invalid(`invalid archive: ${path} links to itself`);
  }
}

/** A name as archives have it: whole, with its tag. */
function tagged(name: string): string {
  const { tag, digest } = parseReference(name);
  if (tag === undefined || digest !== undefined) throw invalid(`invalid tag ${JSON.stringify(name)}`);
  return normalise(name);
}

type LayerTypes = Partial<Record<Compression, string>>;
const dockerLayerTypes: LayerTypes = {
  none: mediaTypes.dockerLayer,
  gzip: mediaTypes.dockerLayerGzip,
  zstd: mediaTypes.ociLayerZstd,
};
const ociLayerTypes: LayerTypes = {
  none: mediaTypes.ociLayer,
  gzip: mediaTypes.ociLayerGzip,
  zstd: mediaTypes.ociLayerZstd,
};

const blobPath = (digest: string): string => `blobs/${digest.replace(":", "/")}`;
const cleanPath = (path: string): string => path.replace(/^(\.?\/)+/, "");

/** `docker pull`: manifest, configuration and layers from a registry, each checked against its digest. */
import { invalid, messageOf, notFound } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { type Containerd, type Lease, withLease } from "../containerd/client.ts";
import { type FetchedManifest, RegistryClient } from "../registry/client.ts";
import type { RegistryRules } from "../registry/rules.ts";
import type { Progress, RegistryAuth } from "../types.ts";
import { keepImage } from "./assemble.ts";
import { readBytes, writeBlob } from "./content.ts";
import { hostPlatform, type ManifestDescriptor, parseConfig, parseIndex, parseManifest } from "./manifest.ts";
import { inParallel } from "./parallel.ts";
import type { Records } from "./records.ts";
import { familiar, fullName, type Reference, repositoryOf } from "./reference.ts";
import { unpack } from "./unpack.ts";

/** As many layers as Docker downloads at a time. */
const parallel = 3;

export interface PullOptions {
  readonly auth?: RegistryAuth;
  readonly platform?: string;
  readonly onProgress?: (progress: Progress) => void;
  readonly signal?: AbortSignal;
  readonly rules?: RegistryRules;
  readonly log?: Logger;
}

/** Gives the image's id. */
export async function pullImage(
  containerd: Containerd,
  records: Records,
  reference: Reference,
  options: PullOptions,
): Promise<string> {
  const say = options.onProgress ?? (() => {});
  const tag = reference.digest ?? reference.tag ?? "latest";
  const { client, top } = await reach(reference, tag, options);
  const fetched = await choose(client, top, options.platform);
  const manifest = parseManifest(fetched.bytes);
  const name = fullName(reference);
  const before = await records.get(name);

  const id = await withLease(containerd, async (lease) => {
    const shared = { client, containerd, lease, say, ...(options.signal ? { signal: options.signal } : {}) };
    await fetchBlob({ ...shared, say: () => {} }, manifest.config);
    const config = await readBytes(containerd, manifest.config.digest);
    if (!config) throw notFound(`configuration ${manifest.config.digest} is gone`);
    const diffIds = parseConfig(config).rootfs.diff_ids ?? [];
    for (const layer of manifest.layers) say({ status: "Pulling fs layer", id: short(layer) });
    await inParallel(manifest.layers, parallel, async (layer) => {
      const fetched = await fetchBlob(shared, layer);
      say({ status: fetched ? "Download complete" : "Already exists", id: short(layer) });
    });
    await unpack(containerd, manifest.layers, lease, {
      diffIds,
      onLayer: (layer) => say({ status: "Extracting", id: short(layer) }),
    });
    for (const layer of manifest.layers) say({ status: "Pull complete", id: short(layer) });
    const parts = { config, configDigest: manifest.config.digest, layers: manifest.layers, diffIds };
    // The digest that names it for everybody is that of what the tag points at, an index maybe.
    const names = [...new Set([name, `${repositoryOf(reference)}@${top.digest}`])];
    return await keepImage(containerd, records, parts, names, lease, fetched);
  });
  say({ status: `Digest: ${top.digest}` });
  const known = before?.id === id ? "Image is up to date" : "Downloaded newer image";
  say({ status: `Status: ${known} for ${familiar(name)}` });
  return id;
}

/** The first registry that has it: mirrors of Docker Hub, which are never told credentials, then the image's own. */
export async function reach(reference: Reference, tag: string, options: PullOptions) {
  const { auth, onProgress: say = () => {}, log, ...common } = options;
  for (const mirror of reference.domain === "docker.io" ? (options.rules?.mirrors ?? []) : []) {
    try {
      const client = new RegistryClient(reference, { ...common, mirror });
      await client.connect();
      const top = await client.manifest(tag);
      say({ status: `Pulling from ${reference.path}`, id: tag });
      return { client, top };
    } catch (error) {
      options.signal?.throwIfAborted();
      log?.warn("a mirror does not have an image", { mirror, image: reference.path, error: messageOf(error) });
    }
  }
  const client = new RegistryClient(reference, { ...common, ...(auth && { auth }) });
  await client.connect();
  const top = await client.manifest(tag);
  // Not before: an error up to here is an answer of its own.
  say({ status: `Pulling from ${reference.path}`, id: tag });
  return { client, top };
}

/** The manifest for the wanted platform, where the tag points at an index of several. */
async function choose(client: RegistryClient, top: FetchedManifest, platform?: string): Promise<FetchedManifest> {
  const document = JSON.parse(top.bytes.toString("utf8")) as { manifests?: unknown; schemaVersion?: unknown };
  if (document.schemaVersion === 1) throw invalid("image manifests of schema 1 are not supported any more");
  if (!document.manifests) return top;
  const host = hostPlatform();
  const [os = host.os, architecture = host.architecture, variant] = platform?.split("/") ?? [];
  const found = parseIndex(top.bytes).manifests.find(
    ({ platform: each }) =>
      each?.os === os && each.architecture === architecture && (variant === undefined || each.variant === variant),
  );
  if (!found) {
    const wanted = [os, architecture, variant].filter(Boolean).join("/");
    throw notFound(`no matching manifest for ${wanted} in the manifest list entries`);
  }
  return await client.manifest(found.digest);
}

interface Shared {
  readonly client: RegistryClient;
  readonly containerd: Containerd;
  readonly lease: Lease;
  readonly say: (progress: Progress) => void;
  readonly signal?: AbortSignal;
}

/** Whether it had to be fetched. */
async function fetchBlob(shared: Shared, blob: ManifestDescriptor): Promise<boolean> {
  const { client, containerd, lease, say, signal } = shared;
  let told = 0;
  let fetched = blob.size === 0;
  // The download begins only when the content store asks for it: it does not for what it has.
  await writeBlob(containerd, client.blob(blob.digest, blob.size), {
    lease,
    expected: blob.digest,
    ...(signal ? { signal } : {}),
    onBytes: (current) => {
      fetched = true;
      if (current - told < 512 * 1024 && current < blob.size) return;
      told = current;
      say({ status: "Downloading", id: short(blob), progressDetail: { current, total: blob.size } });
    },
  });
  return fetched;
}

const short = ({ digest }: { digest: string }): string => digest.slice("sha256:".length, "sha256:".length + 12);

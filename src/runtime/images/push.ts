/** `docker push`: layers that the repository lacks, then configuration and manifest, byte for byte as they are kept here. */
import { Readable } from "node:stream";
import { notFound, SkeinError } from "../../base/errors.ts";
import type { Containerd } from "../containerd/client.ts";
import { RegistryClient } from "../registry/client.ts";
import type { RegistryRules } from "../registry/rules.ts";
import { hasBlob, putBlob, putManifest } from "../registry/upload.ts";
import type { Progress, PushedTag, RegistryAuth } from "../types.ts";
import { type Descriptor, readBytes, readStream } from "./content.ts";
import { mediaTypes } from "./manifest.ts";
import { inParallel } from "./parallel.ts";
import type { Records, StoredImage } from "./records.ts";
import { parseReference, repositoryOf } from "./reference.ts";

/** As many layers as Docker uploads at a time. */
const parallel = 5;
/** Bytes between two lines of progress. */
const stride = 512 * 1024;

export interface PushOptions {
  readonly auth?: RegistryAuth;
  readonly onProgress?: (progress: Progress) => void;
  readonly signal?: AbortSignal;
  readonly rules?: RegistryRules;
}

/** Pushes `image` as `name`, a full name with a tag. */
export async function pushImage(
  containerd: Containerd,
  records: Records,
  image: StoredImage,
  name: string,
  options: PushOptions,
): Promise<PushedTag> {
  const say = options.onProgress ?? (() => {});
  const reference = parseReference(name);
  const client = new RegistryClient(reference, { ...options, actions: "pull,push" });
  await client.connect();
  const manifest = await readBytes(containerd, image.manifestDigest);
  if (!manifest) throw notFound(`the manifest of ${image.id} is gone`);

  const layers = image.manifest.layers.map((layer, index) => ({
    layer,
    id: shown(image.layers[index] ?? layer.digest),
  }));
  // Docker lists the topmost first.
  for (const { id } of layers.toReversed()) say({ status: "Preparing", progressDetail: {}, id });
  for (const { id } of layers.toReversed().slice(parallel)) say({ status: "Waiting", progressDetail: {}, id });
  await inParallel(layers.toReversed(), parallel, async ({ layer, id }) => {
    if (await hasBlob(client, layer.digest)) {
      say({ status: "Layer already exists", progressDetail: {}, id });
      return;
    }
    say({ status: "Pushing", progressDetail: { current: 0, total: layer.size }, id });
    let told = 0;
    await putBlob(client, layer, () =>
      counted(stream(containerd, layer, options.signal), (current) => {
        if (current - told < stride && current < layer.size) return;
        told = current;
        say({ status: "Pushing", progressDetail: { current, total: layer.size }, id });
      }),
    );
    say({ status: "Pushed", progressDetail: {}, id });
  });
  const { config } = image.manifest;
  if (!(await hasBlob(client, config.digest))) {
    await putBlob(client, config, () => Readable.from(stream(containerd, config, options.signal)));
  }
  const tag = reference.tag ?? "latest";
  const mediaType = image.manifest.mediaType ?? mediaTypes.ociManifest;
  const digest = await putManifest(client, tag, manifest, mediaType);
  if (digest !== image.manifestDigest) {
    throw new SkeinError("internal", `the registry answers with digest ${digest}, not ${image.manifestDigest}`);
  }
  const target = { mediaType, digest, size: manifest.length };
  await records.point(`${repositoryOf(reference)}@${digest}`, image.id, target);
  return { tag, digest, size: manifest.length };
}

async function* stream(
  containerd: Containerd,
  blob: Descriptor,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  for await (const { data } of readStream(containerd, blob.digest, signal)) yield data;
}

function counted(source: AsyncIterable<Uint8Array>, onBytes: (sent: number) => void): Readable {
  async function* count(): AsyncGenerator<Uint8Array> {
    let sent = 0;
    for await (const chunk of source) {
      yield chunk;
      sent += chunk.length;
      onBytes(sent);
    }
  }
  return Readable.from(count());
}

const shown = (digest: string): string => digest.slice("sha256:".length, "sha256:".length + 12);

/** Blobs in containerd's content store. */
import { createHash } from "node:crypto";
import { WriteAction } from "#proto/containerd/services/content/v1/content_pb.js";
import { invalid } from "../../base/errors.ts";
import { hexId } from "../../base/id.ts";
import { type Containerd, type Lease, snapshotter } from "../containerd/client.ts";
import { ifFound, isAlreadyExists } from "../containerd/errors.ts";
import { orFull } from "./room.ts";

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

export const sha256 = (bytes: Uint8Array): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

/** Labels by which the garbage collector finds, from one blob, what it refers to. */
export const gcLabels = {
  /** A manifest's config and layers. */
  manifest: (config: string, layers: readonly string[]): Record<string, string> => ({
    "containerd.io/gc.ref.content.config": config,
    ...Object.fromEntries(layers.map((digest, index) => [`containerd.io/gc.ref.content.l.${index}`, digest])),
  }),
  /** A config's unpacked root file system. */
  snapshot: (chainId: string): Record<string, string> => ({
    [`containerd.io/gc.ref.snapshot.${snapshotter}`]: chainId,
  }),
};

/** Small enough that a slow disk answers before the next, large enough that the answers do not matter. */
const chunkSize = 1024 * 1024;
/** Bytes between two looks at the room that is left: whole chunks. */
const roomEvery = 16 * chunkSize;

export interface WriteOptions {
  readonly lease: Lease;
  /** Refused when the content has another digest. */
  readonly expected?: string;
  readonly labels?: Record<string, string>;
  readonly signal?: AbortSignal;
  readonly onBytes?: (written: number) => void;
}

/** Writes a stream as one blob. Content that is there already is taken under the lease and not written again. */
export async function writeBlob(
  containerd: Containerd,
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  options: WriteOptions,
): Promise<{ digest: string; size: number }> {
  const { lease, labels = {}, expected = "" } = options;
  const ref = `skein-${hexId()}`;
  const call = containerd.call({ lease, ...(options.signal ? { signal: options.signal } : {}) });
  const stream = containerd.content.write(call);
  const replies = stream[Symbol.asyncIterator]();
  const hash = createHash("sha256");
  let digest = expected;
  let size = 0;
  let pending = 0;
  const reply = async () => {
    const next = await replies.next();
    if (next.done) throw new Error("containerd ended the writing of a blob");
    pending--;
    return next.value;
  };
  try {
    if (expected) {
      await stream.write({ action: WriteAction.STAT, ref, expected });
      pending++;
      await reply();
    }
    for await (const chunk of chunked(source, chunkSize)) {
      if (size % roomEvery === 0) containerd.room.check();
      hash.update(chunk);
      await stream.write({ action: WriteAction.WRITE, ref, offset: BigInt(size), data: chunk, expected });
      pending++;
      size += chunk.length;
      options.onBytes?.(size);
      while (pending > 2) await reply();
    }
    digest = `sha256:${hash.digest("hex")}`;
    if (expected && digest !== expected) {
      throw invalid(`filesystem layer verification failed for digest ${expected}`);
    }
    await stream.write({
      action: WriteAction.COMMIT,
      ref,
      offset: BigInt(size),
      total: BigInt(size),
      expected: digest,
      labels,
    });
    pending++;
    stream.end();
    while (pending > 0) await reply();
    return { digest, size };
  } catch (error) {
    stream.end();
    await replies.return?.();
    if (!isAlreadyExists(error)) {
      await containerd.content.abort({ ref }, containerd.call()).catch(() => {});
      throw orFull(error);
    }
    return await takeExisting(containerd, digest, lease, labels, ref);
  }
}

async function takeExisting(
  containerd: Containerd,
  digest: string,
  lease: Lease,
  labels: Record<string, string>,
  ref: string,
): Promise<{ digest: string; size: number }> {
  const call = containerd.call({ lease });
  await containerd.content.abort({ ref }, call).catch(() => {});
  await containerd.leases.addResource({ id: lease.id, resource: { id: digest, type: "content" } }, call);
  const { info } = await containerd.content.info({ digest }, call);
  if (Object.keys(labels).length > 0) await addLabels(containerd, digest, labels);
  return { digest, size: Number(info?.size ?? 0) };
}

export async function addLabels(containerd: Containerd, digest: string, labels: Record<string, string>): Promise<void> {
  const paths = Object.keys(labels).map((key) => `labels.${key}`);
  await containerd.content.update({ info: { digest, labels }, updateMask: { paths } }, containerd.call());
}

/** Writes a document whole. */
export async function writeBytes(
  containerd: Containerd,
  bytes: Uint8Array,
  options: WriteOptions,
): Promise<{ digest: string; size: number }> {
  return await writeBlob(containerd, [bytes], { expected: sha256(bytes), ...options });
}

export function readStream(
  containerd: Containerd,
  digest: string,
  signal?: AbortSignal,
): AsyncIterable<{ data: Uint8Array }> {
  return containerd.content.read({ digest }, containerd.call(signal ? { signal } : undefined));
}

const maxDocument = 32 * 1024 * 1024;

/** A small blob whole, or undefined when it is not there. */
export async function readBytes(containerd: Containerd, digest: string): Promise<Buffer | undefined> {
  const parts: Uint8Array[] = [];
  let size = 0;
  const done = await ifFound(
    (async () => {
      for await (const { data } of readStream(containerd, digest)) {
        size += data.length;
        if (size > maxDocument) throw invalid(`document ${digest} is too large`);
        parts.push(data);
      }
      return true;
    })(),
  );
  return done ? Buffer.concat(parts) : undefined;
}

async function* chunked(
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  size: number,
): AsyncGenerator<Uint8Array> {
  let held: Uint8Array[] = [];
  let length = 0;
  for await (const part of source) {
    for (let from = 0; from < part.length; ) {
      const piece = part.subarray(from, from + size - length);
      held.push(piece);
      length += piece.length;
      from += piece.length;
      if (length === size) {
        yield held.length === 1 ? piece : Buffer.concat(held);
        held = [];
        length = 0;
      }
    }
  }
  if (length > 0) yield Buffer.concat(held);
}

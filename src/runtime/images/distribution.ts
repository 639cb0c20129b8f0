/**
 * What a registry says of an image without pulling it: its digest, by which clients pin a service so that all nodes run
 * the same, and its platforms, by which the scheduler keeps it from nodes that cannot run it.
 */
import { invalid, SkeinError } from "../../base/errors.ts";
import type { RegistryClient } from "../registry/client.ts";
import type { Distribution } from "../types.ts";
import { parseIndex, parseManifest, parsePlatform } from "./manifest.ts";
import { type PullOptions, reach } from "./pull.ts";
import type { Reference } from "./reference.ts";

/** A client waits for this before it creates anything, and goes on without it. */
const patienceMs = 10_000;
/** The configuration of an image is a few kilobytes. */
const mostBytes = 4 * 1024 * 1024;

export async function inspectDistribution(
  reference: Reference,
  options: Pick<PullOptions, "auth" | "rules" | "log" | "signal">,
): Promise<Distribution> {
  const tag = reference.digest ?? reference.tag;
  if (tag === undefined) throw invalid(`image reference not tagged: ${reference.path}`);
  const patience = AbortSignal.timeout(patienceMs);
  const signal = options.signal ? AbortSignal.any([options.signal, patience]) : patience;
  try {
    const { client, top } = await reach(reference, tag, { ...options, signal });
    const { mediaType, digest, bytes } = top;
    const { manifests } = JSON.parse(bytes.toString("utf8")) as { manifests?: unknown };
    const platforms = manifests
      ? parseIndex(bytes).manifests.flatMap(({ platform }) => (platform ? [platform] : []))
      : [await ownPlatform(client, bytes)];
    return {
      descriptor: { mediaType, digest, size: bytes.length },
      platforms: platforms.map(({ os, architecture, variant }) => ({ os, architecture, ...(variant && { variant }) })),
    };
  } catch (error) {
    options.signal?.throwIfAborted();
    if (!patience.aborted) throw error;
    throw new SkeinError("internal", `the registry ${reference.domain} did not answer in time`, { cause: error });
  }
}

/** Of an image for one platform: its configuration says which. */
async function ownPlatform(client: RegistryClient, bytes: Buffer) {
  const { config } = parseManifest(bytes);
  if (config.size > mostBytes) throw invalid("the image's configuration is too large");
  const parts: Uint8Array[] = [];
  for await (const part of client.blob(config.digest, config.size)) parts.push(part);
  return parsePlatform(Buffer.concat(parts));
}

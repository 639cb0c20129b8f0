/** Documents of an image: manifest and config, checked as far as Skein relies on them. Pure. */

import { createHash } from "node:crypto";
import * as z from "zod";
import { invalid, messageOf } from "../../base/errors.ts";

export const mediaTypes = {
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
  dockerList: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerConfig: "application/vnd.docker.container.image.v1+json",
  dockerLayer: "application/vnd.docker.image.rootfs.diff.tar",
  dockerLayerGzip: "application/vnd.docker.image.rootfs.diff.tar.gzip",
  ociManifest: "application/vnd.oci.image.manifest.v1+json",
  ociIndex: "application/vnd.oci.image.index.v1+json",
  ociConfig: "application/vnd.oci.image.config.v1+json",
  ociLayer: "application/vnd.oci.image.layer.v1.tar",
  ociLayerGzip: "application/vnd.oci.image.layer.v1.tar+gzip",
  ociLayerZstd: "application/vnd.oci.image.layer.v1.tar+zstd",
} as const;

const digest = z.string().regex(/^sha256:[a-f0-9]{64}$/);

const descriptor = z.object({
  mediaType: z.string().default(""),
  digest,
  size: z.number().int().nonnegative(),
  annotations: z.record(z.string(), z.string()).nullish(),
  platform: z
    .object({ os: z.string().default(""), architecture: z.string().default(""), variant: z.string().nullish() })
    .nullish(),
});

const manifest = z.object({
  schemaVersion: z.literal(2),
  mediaType: z.string().optional(),
  config: descriptor,
  layers: z.array(descriptor),
});

const index = z.object({
  schemaVersion: z.literal(2),
  mediaType: z.string().optional(),
  manifests: z.array(descriptor),
});

const time = z.string().refine((text) => text === "" || !Number.isNaN(Date.parse(text)), "not a time");
const strings = z.array(z.string());
const flags = z.record(z.string(), z.looseObject({}));

const config = z.object({
  created: time.nullish(),
  author: z.string().nullish(),
  comment: z.string().nullish(),
  os: z.string().default("linux"),
  architecture: z.string().default(""),
  variant: z.string().nullish(),
  config: z
    .object({
      User: z.string(),
      Env: strings.nullable(),
      Entrypoint: strings.nullable(),
      Cmd: strings.nullable(),
      WorkingDir: z.string(),
      Labels: z.record(z.string(), z.string()).nullable(),
      ExposedPorts: flags.nullable(),
      Volumes: flags.nullable(),
      StopSignal: z.string(),
      Shell: strings.nullable(),
      Healthcheck: z
        .object({
          Test: strings,
          Interval: z.number(),
          Timeout: z.number(),
          StartPeriod: z.number(),
          Retries: z.number(),
        })
        .partial()
        .nullable(),
    })
    .partial()
    .nullish(),
  rootfs: z.object({ type: z.string().default("layers"), diff_ids: z.array(digest).nullable() }),
  history: z
    .array(
      z.object({
        created: time.optional(),
        created_by: z.string().optional(),
        comment: z.string().optional(),
        empty_layer: z.boolean().optional(),
      }),
    )
    .nullish(),
});

export type ManifestDescriptor = z.infer<typeof descriptor>;
export type Manifest = z.infer<typeof manifest>;
export type ManifestIndex = z.infer<typeof index>;
export type ConfigDocument = z.infer<typeof config>;

function parse<T>(schema: z.ZodType<T>, bytes: Uint8Array, what: string): T {
  try {
    return schema.parse(JSON.parse(Buffer.from(bytes).toString("utf8")));
  } catch (error) {
    const reason = error instanceof z.ZodError ? (error.issues[0]?.message ?? "malformed") : messageOf(error);
    const where = error instanceof z.ZodError ? ` at ${error.issues[0]?.path.join(".") || "top"}` : "";
    throw invalid(`invalid ${what}${where}: ${reason}`);
  }
}

export const parseManifest = (bytes: Uint8Array): Manifest => parse(manifest, bytes, "image manifest");
export const parseIndex = (bytes: Uint8Array): ManifestIndex => parse(index, bytes, "image index");
export const parseConfig = (bytes: Uint8Array): ConfigDocument => parse(config, bytes, "image configuration");

/** Names of the snapshots of a stack of layers: each the hash of all below it. */
export function chainIds(diffIds: readonly string[]): string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    chain.push(
      below === undefined ? diffId : `sha256:${createHash("sha256").update(`${below} ${diffId}`).digest("hex")}`,
    );
  }
  return chain;
}

/** This machine in the words of image indexes. */
export function hostPlatform(): { os: string; architecture: string } {
  const names: Partial<Record<NodeJS.Architecture, string>> = { x64: "amd64", ia32: "386" };
  return { os: "linux", architecture: names[process.arch] ?? process.arch };
}

const platform = z.object({
  os: z.string().default("linux"),
  architecture: z.string().default(""),
  variant: z.string().nullish(),
});

/** The platform that an image's configuration names. */
export const parsePlatform = (bytes: Uint8Array) => parse(platform, bytes, "image configuration");

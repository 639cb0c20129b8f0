/**
 * The real images of a registry, where one answers, in place of those that are built from Debian packages. Asked is
 * Docker Hub, or the lab's mirror of it. One host pulls, the others get it from there: registries count requests.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { docker, dockerOk } from "./docker.ts";
import { offline } from "./host.ts";
import type { Collection } from "./image/library.ts";
import { imageNames } from "./image/library.ts";
import type { Lab } from "./lab.ts";
import type { HostSpec } from "./spec.ts";

const hub = "https://registry-1.docker.io/";
/** A machine that reaches no registry should not notice that it was tried. */
const probeMs = 1_500;
const pullMs = 5 * 60_000;
const parallel = 3;

export interface Registry {
  /** Base URL. */
  readonly base: string;
  /** Docker Hub itself answers, too: what a mirror does not have comes from there. */
  readonly hub: boolean;
}

/** The registry that serves Docker Hub's images to this lab, if one answers. */
export async function findRegistry(mirror: string): Promise<Registry | undefined> {
  const [near, far] = await Promise.all([mirror !== "" && answers(mirror, "v2/"), !offline() && answers(hub, "v2/")]);
  if (near) return { base: mirror, hub: far };
  return far ? { base: hub, hub: true } : undefined;
}

/** A registry may want a token before it says anything. */
async function answers(base: string, path: string): Promise<boolean> {
  const url = new URL(path, base.endsWith("/") ? base : `${base}/`);
  const headers = {
    accept: "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.index.v1+json, */*",
  };
  try {
    const { status } = await fetch(url, { method: "HEAD", headers, signal: AbortSignal.timeout(probeMs) });
    return status === 200 || status === 401;
  } catch {
    return false;
  }
}

/** Whether to ask for an image: an engine that asks Docker Hub where nobody answers waits long for nothing. */
async function has({ base, hub: anywhere }: Registry, name: string): Promise<boolean> {
  if (anywhere) return true;
  const [repository = "", tag = "latest"] = name.split(":");
  return answers(base, `v2/${repository.includes("/") ? repository : `library/${repository}`}/manifests/${tag}`);
}

/** Names that a registry has, too: not those of images of our own. */
export const borrowedNames = (collection: Collection): string[] =>
  imageNames(collection).filter((name) => !name.startsWith("skein/"));

export interface Pulled {
  readonly pulled: readonly string[];
  /** With the registry's words. */
  readonly missing: readonly { readonly name: string; readonly why: string }[];
}

/** Pulls these onto every host. What the registry does not have stays as it is. */
export async function pullImages(lab: Lab, names: readonly string[], registry: Registry): Promise<Pulled> {
  const [first, ...others] = lab.spec.hosts;
  const pulled: string[] = [];
  const missing: { name: string; why: string }[] = [];
  const queue = [...names];
  const worker = async () => {
    for (let name = queue.shift(); name !== undefined && first; name = queue.shift()) {
      if (!(await has(registry, name))) {
        missing.push({ name, why: `${registry.base} does not have it` });
        continue;
      }
      const { code, stderr } = await docker(first, ["pull", "--quiet", name], { timeoutMs: pullMs });
      if (code === 0) pulled.push(name);
      else missing.push({ name, why: stderr.trim().split("\n").at(-1) ?? "" });
    }
  };
  await Promise.all(Array.from({ length: parallel }, worker));
  if (first && pulled.length > 0) await passOn(lab, first, others, pulled.sort());
  return { pulled, missing };
}

async function passOn(lab: Lab, from: HostSpec, to: readonly HostSpec[], names: readonly string[]): Promise<void> {
  const wanted = await idsOf(from);
  const lacking: HostSpec[] = [];
  for (const host of to) {
    const has = await idsOf(host);
    if (names.some((name) => has.get(name) !== wanted.get(name))) lacking.push(host);
  }
  if (lacking.length === 0) return;
  const archive = join(lab.spec.stateDir, "images.tar");
  try {
    await dockerOk(from, ["save", "--output", archive, ...names], { timeoutMs: pullMs });
    for (const host of lacking) await dockerOk(host, ["load", "--quiet", "--input", archive], { timeoutMs: pullMs });
  } finally {
    rmSync(archive, { force: true });
  }
}

async function idsOf(host: HostSpec): Promise<Map<string, string>> {
  const text = await dockerOk(host, ["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]);
  return new Map(text.split("\n").map((line) => line.split(" ", 2) as [string, string]));
}

/** Where a registry answers, nothing of ours stands in for its images: `docker run alpine` pulls the real one. */
export async function removeStandIns(lab: Lab): Promise<void> {
  await Promise.all(
    lab.spec.hosts.map(async (host) => {
      const ids = await idsOf(host);
      const own = ids.get("skein/box:latest");
      const standIns = borrowedNames("basic").filter((name) => ids.get(name) === own);
      if (own && standIns.length > 0) await docker(host, ["rmi", ...standIns]);
    }),
  );
}

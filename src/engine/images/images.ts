/** `docker images` and its kin, over the runtime's image store. */
import { invalid, messageOf, notFound } from "../../base/errors.ts";
import { linearPattern } from "../../base/pattern.ts";
import type { Image, Progress } from "../../runtime/types.ts";
import type { EngineContext } from "../context.ts";
import { emitPrune } from "../events.ts";
import { flag, knownFilters, labels, withoutLabels } from "../filters.ts";
import { parseRfc3339, parseTimestamp } from "../time.ts";
import type { Filters, Images, Json } from "../types.ts";
import { applyChanges } from "./changes.ts";
import { commit } from "./commit.ts";
import { historyOf, reclaimed } from "./history.ts";
import { push } from "./push.ts";
import { familiar, parseReference, withDefaultTag } from "./references.ts";
import { reported } from "./reported.ts";

/** What `images.remove` says when a container holds an image. */
const usedBy = (ctx: EngineContext) => (imageId: string) =>
  ctx.registry
    .all()
    .find(({ record }) => record.imageId === imageId || record.mounts.some(({ image }) => image === imageId))?.id;

async function get(ctx: EngineContext, ref: string): Promise<Image> {
  const image = await ctx.runtime.images.find(ref);
  if (!image)
    throw notFound(`No such image: ${/^sha256:|^[0-9a-f]{12,64}$/.test(ref) ? ref : withDefaultTagIfAny(ref)}`);
  return image;
}

function withDefaultTagIfAny(ref: string): string {
  try {
    return withDefaultTag(ref);
  } catch {
    return ref;
  }
}

const created = (image: Image): number => Math.floor((parseRfc3339(image.created) ?? 0) / 1000);

function emit(ctx: EngineContext, action: string, id: string, name: string, image?: Image): void {
  ctx.events.emit({ type: "image", action, id, attributes: { ...image?.config.Labels, name } });
}

export function createImages(ctx: EngineContext): Images {
  const store = ctx.runtime.images;
  return {
    async list({ filters }) {
      knownFilters(filters, ["before", "dangling", "label", "reference", "since", "until"]);
      const images = await select(ctx, filters);
      return images.map((image) => ({
        // Counted and shared by `system df` only, as the API has it.
        Containers: -1,
        Created: created(image),
        Id: image.id,
        Labels: image.config.Labels ?? null,
        ParentId: "",
        RepoDigests: image.repoDigests.map(familiar),
        RepoTags: image.references.filter((name) => !name.includes("@")).map(familiar),
        SharedSize: -1,
        Size: image.size,
      }));
    },

    async inspect(ref) {
      return imageDocument(await get(ctx, ref));
    },

    async history(ref) {
      const image = await get(ctx, ref);
      const tags = image.references.filter((name) => !name.includes("@")).map(familiar);
      return historyOf(image, tags);
    },

    pull(reference, options) {
      return pull(ctx, reference, options);
    },

    push: (request) => push(ctx, request),
    commit: (request) => commit(ctx, request),
    login: (auth, signal) => store.login(auth, signal),

    async *load(archive, quiet) {
      let names: string[] = [];
      const progress = reported<Progress>(async (report) => {
        names = await store.load(archive, quiet ? undefined : report);
      });
      for await (const item of progress) yield { ...item };
      for (const name of names) {
        const isId = name.startsWith("sha256:");
        emit(ctx, "load", name, name);
        yield { stream: isId ? `Loaded image ID: ${name}\n` : `Loaded image: ${familiar(name)}\n` };
      }
    },

    async *importTar(tar, options) {
      const config = applyChanges(options.config ?? {}, options.changes);
      const reference = options.reference ? withDefaultTag(options.reference) : undefined;
      const id = await store.importTar(tar, {
        config,
        ...(reference !== undefined && { reference }),
        ...(options.comment && { comment: options.comment }),
        ...(options.platform && { platform: options.platform }),
      });
      emit(ctx, "import", id, id);
      if (reference !== undefined) emit(ctx, "tag", id, familiar(reference));
      yield { status: id };
    },

    async save(references, out) {
      const images = await Promise.all(references.map((ref) => get(ctx, ref)));
      await store.save(references, out);
      for (const [index, ref] of references.entries()) emit(ctx, "save", ref, ref, images[index]);
    },

    async tag(ref, repo, tag) {
      const image = await get(ctx, ref);
      const target = withDefaultTag(tag ? `${repo}:${tag}` : repo);
      if (parseReference(target).digest) throw invalid("refusing to create a tag with a digest reference");
      await store.tag(image.id, target);
      emit(ctx, "tag", image.id, target, image);
    },

    async remove(ref, options) {
      const image = await get(ctx, ref);
      const done = await store.remove(ref, { ...options, inUse: usedBy(ctx) });
      for (const entry of done) {
        if ("Untagged" in entry) emit(ctx, "untag", entry.Untagged, entry.Untagged, image);
        else emit(ctx, "delete", entry.Deleted, entry.Deleted);
      }
      return done.map((entry) => ("Untagged" in entry ? { Untagged: familiar(entry.Untagged) } : { ...entry }));
    },

    async prune(filters) {
      knownFilters(filters, ["dangling", "label", "label!", "until"]);
      const danglingOnly = flag(filters, "dangling") ?? true;
      const [until] = filters.get("until") ?? [];
      const before = until === undefined ? Number.POSITIVE_INFINITY : parseTimestamp(until, ctx.clock.now());
      const deleted: Json[] = [];
      let freed = 0;
      for (const image of await store.list()) {
        const tagged = image.references.some((name) => !name.includes("@"));
        if ((danglingOnly && tagged) || created(image) * 1000 > before || usedBy(ctx)(image.id)) continue;
        const have = image.config.Labels ?? {};
        if (!labels(filters, have) || !withoutLabels(filters, have)) continue;
        try {
          const bytes = reclaimed(image, await store.list());
          const done = await store.remove(image.id, { force: true, inUse: usedBy(ctx) });
          for (const entry of done) {
            if ("Untagged" in entry) emit(ctx, "untag", entry.Untagged, entry.Untagged, image);
            else emit(ctx, "delete", entry.Deleted, entry.Deleted);
          }
          deleted.push(...done.map((entry) => ("Untagged" in entry ? { Untagged: familiar(entry.Untagged) } : entry)));
          freed += bytes;
        } catch (error) {
          ctx.log.debug("image not pruned", { image: image.id, error: messageOf(error) });
        }
      }
      emitPrune(ctx, "image", freed);
      return { ImagesDeleted: deleted.length ? deleted : null, SpaceReclaimed: freed };
    },

    has: async (ref) => (await store.find(ref)) !== undefined,
  };
}

async function* pull(
  ctx: EngineContext,
  reference: string,
  options: Parameters<Images["pull"]>[1],
): AsyncGenerator<Progress> {
  const name = withDefaultTag(reference);
  yield* reported<Progress>(async (report) => {
    await ctx.runtime.images.pull(name, { ...options, onProgress: report });
  });
  emit(ctx, "pull", name, name);
}

async function select(ctx: EngineContext, filters: Filters): Promise<Image[]> {
  let images = (await ctx.runtime.images.list()).sort((a, b) => created(b) - created(a));
  const at = async (ref: string) => created(await get(ctx, ref));
  for (const ref of filters.get("before") ?? []) {
    const limit = await at(ref);
    images = images.filter((image) => created(image) < limit);
  }
  for (const ref of filters.get("since") ?? []) {
    const limit = await at(ref);
    images = images.filter((image) => created(image) > limit);
  }
  const [until] = filters.get("until") ?? [];
  if (until !== undefined) {
    const limit = parseTimestamp(until, ctx.clock.now());
    images = images.filter((image) => created(image) * 1000 <= limit);
  }
  const dangling = flag(filters, "dangling");
  const references = filters.get("reference");
  return images.filter((image) => {
    const tags = image.references.filter((name) => !name.includes("@"));
    return (
      (dangling === undefined || dangling === (tags.length === 0)) &&
      labels(filters, image.config.Labels ?? {}) &&
      (!references?.length || references.some((wanted) => tags.some((tag) => matchesReference(familiar(tag), wanted))))
    );
  });
}

/** A shell pattern against "repo:tag" or "repo". */
export function matchesReference(tag: string, wanted: string): boolean {
  const glob = linearPattern(
    `^${wanted
      .replace(/[.+^${}()|\\]/g, "\\$&")
      .replace(/\*/g, "[^/]*")
      .replace(/\?/g, "[^/]")}$`,
  );
  return glob.test(tag) || glob.test(tag.slice(0, tag.lastIndexOf(":")));
}

function imageDocument(image: Image): Json {
  const { config } = image;
  return {
    Id: image.id,
    RepoTags: image.references.filter((name) => !name.includes("@")).map(familiar),
    RepoDigests: image.repoDigests.map(familiar),
    Parent: "",
    Comment: image.history.at(-1)?.comment ?? "",
    Created: image.created,
    Container: "",
    DockerVersion: "",
    Author: image.author ?? "",
    Config: {
      Hostname: "",
      Domainname: "",
      User: config.User ?? "",
      AttachStdin: false,
      AttachStdout: false,
      AttachStderr: false,
      Tty: false,
      OpenStdin: false,
      StdinOnce: false,
      Image: "",
      OnBuild: null,
      ...config,
      Env: config.Env ?? [],
      Cmd: config.Cmd ?? null,
      Entrypoint: config.Entrypoint ?? null,
      Volumes: config.Volumes ?? null,
      WorkingDir: config.WorkingDir ?? "",
      Labels: config.Labels ?? null,
    },
    Architecture: image.architecture,
    Os: image.os,
    Size: image.size,
    VirtualSize: image.size,
    GraphDriver: { Data: null, Name: "overlay2" },
    RootFS: { Type: "layers", Layers: image.layers },
    Metadata: { LastTagTime: "0001-01-01T00:00:00Z" },
  };
}

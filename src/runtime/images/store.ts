/** The image store of the runtime: Docker's images on containerd's content, snapshot and image services. */
import type { Readable, Writable } from "node:stream";
import { Mutex } from "../../base/async.ts";
import { invalid, notFound, notImplemented } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { type Containerd, withLease } from "../containerd/client.ts";
import { login } from "../registry/login.ts";
import { noRules, type RegistryRules } from "../registry/rules.ts";
import type {
  CommitOptions,
  Distribution,
  Image,
  ImageConfig,
  ImageStore,
  Progress,
  PushedTag,
  RegistryAuth,
} from "../types.ts";
import { imageOfLayer, keepImage } from "./assemble.ts";
import { commitContainer } from "./commit.ts";
import { writeBlob } from "./content.ts";
import { inspectDistribution } from "./distribution.ts";
import { loadArchive } from "./load.ts";
import { mediaTypes } from "./manifest.ts";
import { pullImage } from "./pull.ts";
import { pushImage } from "./push.ts";
import { Records, type StoredImage } from "./records.ts";
import { familiar, normalise, parseReference } from "./reference.ts";
import { planRemoval } from "./remove.ts";
import { saveArchive } from "./save.ts";
import { type Compression, sniff } from "./sniff.ts";

/** What containerd unpacks. */
const layerType: Partial<Record<Compression, string>> = {
  none: mediaTypes.dockerLayer,
  gzip: mediaTypes.dockerLayerGzip,
  zstd: mediaTypes.ociLayerZstd,
};

export class ContainerdImages implements ImageStore {
  readonly #containerd: Containerd;
  readonly #records: Records;
  readonly #log: Logger;
  /** Names change one after the other: a removal decides over all of them. */
  readonly #names = new Mutex();

  readonly #rules: RegistryRules;

  constructor(containerd: Containerd, log: Logger, rules: RegistryRules = noRules) {
    this.#rules = rules;
    this.#containerd = containerd;
    this.#records = new Records(containerd);
    this.#log = log;
  }

  /** Name of the snapshot that containers of this image are built on. */
  topOf(imageId: string): Promise<string> {
    return this.#records.topOf(imageId);
  }

  async list(): Promise<Image[]> {
    return await this.#records.list();
  }

  async find(nameOrId: string): Promise<Image | undefined> {
    return (await this.#resolve(nameOrId))?.image;
  }

  /** By name first, then by id or a prefix of it, as Docker does. */
  async #resolve(nameOrId: string): Promise<{ image: StoredImage; name?: string; all: StoredImage[] } | undefined> {
    const all = await this.#records.list();
    const name = nameIfAny(nameOrId);
    const named = name && all.find((image) => image.references.includes(name) || image.repoDigests.includes(name));
    if (named) return { image: named, name, all };
    const prefix = /^(?:sha256:)?([a-f0-9]+)$/.exec(nameOrId)?.[1];
    if (prefix === undefined) return undefined;
    const [image, ...more] = all.filter(({ id }) => id.startsWith(`sha256:${prefix}`));
    if (more.length > 0) throw invalid(`ambiguous reference: ${nameOrId} matches more than one image`);
    return image && { image, all };
  }

  async #must(nameOrId: string) {
    const found = await this.#resolve(nameOrId);
    if (!found) throw notFound(`No such image: ${nameOrId}`);
    return found;
  }

  async importTar(
    tar: Readable,
    options: { reference?: string; config?: ImageConfig; comment?: string; platform?: string },
  ): Promise<string> {
    const name = options.reference === undefined ? undefined : normalise(options.reference);
    return await withLease(this.#containerd, async (lease) => {
      const { kind, stream } = await sniff(tar);
      const mediaType = layerType[kind];
      if (!mediaType) throw notImplemented(`tarballs compressed with ${kind}`);
      const { digest, size } = await writeBlob(this.#containerd, stream, { lease });
      const architecture = options.platform?.split("/")[1];
      const parts = await imageOfLayer(
        this.#containerd,
        { mediaType, digest, size },
        {
          now: new Date(),
          ...(options.config ? { config: options.config } : {}),
          ...(options.comment ? { comment: options.comment } : {}),
          ...(architecture ? { architecture } : {}),
        },
        lease,
      );
      return await keepImage(this.#containerd, this.#records, parts, name ? [name] : [], lease);
    });
  }

  async load(archive: Readable, onProgress?: (p: Progress) => void): Promise<string[]> {
    const loaded = await loadArchive(this.#containerd, this.#records, archive, onProgress ?? (() => {}));
    this.#log.info("images loaded", { images: loaded.join(",") });
    return loaded;
  }

  async save(references: string[], out: Writable): Promise<void> {
    const images = await Promise.all(references.map((reference) => this.#must(reference)));
    await saveArchive(this.#containerd, images, out);
  }

  async tag(nameOrId: string, reference: string): Promise<void> {
    const parsed = parseReference(reference);
    if (parsed.digest) throw invalid("refusing to create a tag with a digest reference");
    await this.#names.run(async () => {
      const { image } = await this.#must(nameOrId);
      const record = await this.#records.get(image.id);
      if (!record) throw notFound(`No such image: ${nameOrId}`);
      await this.#records.point(normalise(reference), image.id, record.target);
    });
  }

  remove(
    nameOrId: string,
    options: { force?: boolean; prune?: boolean; inUse: (imageId: string) => string | undefined },
  ): Promise<({ Untagged: string } | { Deleted: string })[]> {
    return this.#names.run(async () => {
      const { image, name, all } = await this.#must(nameOrId);
      const user = options.inUse(image.id);
      const plan = planRemoval(image, name, all, { force: options.force ?? false, user });
      for (const each of plan.untag) await this.#records.forget(each);
      const result: ({ Untagged: string } | { Deleted: string })[] = plan.untag.map((each) => ({
        Untagged: familiar(each),
      }));
      if (!plan.deleteImage) return result;
      // Content and snapshots go with the garbage collector's next run, which this asks for.
      await this.#records.forget(image.id, true);
      return [...result, { Deleted: image.id }, ...plan.deletedLayers.map((layer) => ({ Deleted: layer }))];
    });
  }

  async pull(
    reference: string,
    options: { auth?: RegistryAuth; platform?: string; onProgress?: (p: Progress) => void; signal?: AbortSignal },
  ): Promise<string> {
    const id = await pullImage(this.#containerd, this.#records, parseReference(reference), {
      ...options,
      rules: this.#rules,
      log: this.#log,
    });
    this.#log.info("image pulled", { reference, id });
    return id;
  }

  distribution(reference: string, options: { auth?: RegistryAuth; signal?: AbortSignal }): Promise<Distribution> {
    return inspectDistribution(parseReference(reference), { ...options, rules: this.#rules, log: this.#log });
  }

  async push(
    reference: string,
    options: { auth?: RegistryAuth; onProgress?: (p: Progress) => void; signal?: AbortSignal },
  ): Promise<PushedTag> {
    const name = normalise(reference);
    const image = (await this.#records.list()).find(({ references }) => references.includes(name));
    if (!image) throw notFound(`An image does not exist locally with the tag: ${familiar(name)}`);
    const pushed = await pushImage(this.#containerd, this.#records, image, name, {
      ...options,
      rules: this.#rules,
    });
    this.#log.info("image pushed", { reference: name, digest: pushed.digest });
    return pushed;
  }

  async commit(options: CommitOptions): Promise<string> {
    const name = options.reference === undefined ? undefined : normalise(options.reference);
    const { image } = await this.#must(options.imageId);
    const id = await commitContainer(this.#containerd, this.#records, image, options, name);
    this.#log.info("container committed", { container: options.containerId, id });
    return id;
  }

  login(auth: RegistryAuth, signal?: AbortSignal): Promise<void> {
    return login(auth, signal, this.#rules);
  }
}

function nameIfAny(nameOrId: string): string | undefined {
  try {
    return normalise(nameOrId);
  } catch {
    return undefined;
  }
}

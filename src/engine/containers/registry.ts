/** All containers of the host: by id, by name, by prefix; and their records on disk. */
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { conflict, invalid, messageOf, notFound } from "../../base/errors.ts";
import { readFileIfAny, writeFileAtomic, writeFileWhole } from "../../base/file.ts";
import type { Logger } from "../../base/log.ts";
import { logAttributes } from "../logs/attributes.ts";
import { ContainerLog } from "../logs/log.ts";
import { Container } from "./container.ts";
import { type ContainerRecord, containerRecord } from "./record.ts";

const FILE = "container.json";

export class ContainerRegistry {
  readonly #dir: string;
  readonly #log: Logger;
  readonly #byId = new Map<string, Container>();
  /** Names in use, also those of containers that are being made. */
  readonly #names = new Map<string, string>();

  constructor(dir: string, log: Logger) {
    this.#dir = dir;
    this.#log = log;
  }

  all(): Container[] {
    return [...this.#byId.values()];
  }

  byId(id: string): Container | undefined {
    return this.#byId.get(id);
  }

  /** Docker's order: full id, full name, id prefix. */
  find(ref: string): Container | undefined {
    const name = ref.replace(/^\//, "");
    const direct = this.#byId.get(ref) ?? this.#byId.get(this.#names.get(name) ?? "");
    if (direct) return direct;
    if (!/^[0-9a-f]{1,64}$/.test(ref)) return undefined;
    const hits = this.all().filter((container) => container.id.startsWith(ref));
    if (hits.length > 1) throw invalid(`Multiple IDs found with provided prefix: ${ref}`);
    return hits[0];
  }

  get(ref: string): Container {
    const found = this.find(ref);
    if (!found) throw notFound(`No such container: ${ref}`);
    return found;
  }

  nameTaken(name: string): boolean {
    return this.#names.has(name);
  }

  /** Takes a name for a container; throws Docker's conflict. */
  reserve(name: string, id: string): void {
    const holder = this.#names.get(name);
    if (holder !== undefined) {
      throw conflict(
        `Conflict. The container name "/${name}" is already in use by container "${holder}". ` +
          "You have to remove (or rename) that container to be able to reuse that name.",
      );
    }
    this.#names.set(name, id);
  }

  release(name: string, id: string): void {
    if (this.#names.get(name) === id) this.#names.delete(name);
  }

  dir(id: string): string {
    return join(this.#dir, id);
  }

  /** Makes the live object of a record whose name is reserved. */
  add(record: ContainerRecord): Container {
    const path = join(this.dir(record.id), `${record.id}-json.log`);
    const log = record.hostConfig.LogConfig;
    const container = new Container(record, new ContainerLog(path, log, this.#log, logAttributes(log, record)));
    this.#byId.set(record.id, container);
    return container;
  }

  /** A power cut ends --rm containers and tasks for good: their records need not outlive it. */
  save(container: Container): void {
    const { hostConfig, task } = container.record;
    const path = join(this.dir(container.id), FILE);
    const write = hostConfig.AutoRemove || task ? writeFileWhole : writeFileAtomic;
    write(path, JSON.stringify(container.record));
  }

  /**
   * The same of what has happened already and cannot be undone: a full disk keeps no container from ending. The next save
   * writes it.
   */
  note(container: Container): void {
    try {
      this.save(container);
    } catch (error) {
      this.#log.warn("a container's state is not on disk", { container: container.id, error });
    }
  }

  /** Forgets the container and its files. */
  drop(container: Container): void {
    this.#byId.delete(container.id);
    this.release(container.name, container.id);
    rmSync(this.dir(container.id), { recursive: true, force: true });
  }

  /** Reads what an earlier daemon left. Directories without a record are half-made or half-removed: swept. */
  load(): void {
    mkdirSync(this.#dir, { recursive: true, mode: 0o710 });
    for (const id of readdirSync(this.#dir)) {
      const text = readFileIfAny(join(this.#dir, id, FILE));
      // Empty: written shortly before a power cut by `writeFileWhole`.
      if (!text) {
        rmSync(join(this.#dir, id), { recursive: true, force: true });
        continue;
      }
      try {
        const record = containerRecord(JSON.parse(text), "");
        this.reserve(record.name, record.id);
        this.add(record);
      } catch (error) {
        this.#log.error("container could not be read; its files are left", { container: id, error: messageOf(error) });
      }
    }
  }
}

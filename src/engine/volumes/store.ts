/** Volumes of the `local` driver: `<dir>/<name>/_data` and what is known of it in `volume.json`. */
import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { conflict, invalid, messageOf, notFound } from "../../base/errors.ts";
import { readFileIfAny, writeFileAtomic } from "../../base/file.ts";
import { hexId } from "../../base/id.ts";
import type { Logger } from "../../base/log.ts";
import { bool, dict, type ShapeOf, str, struct } from "../../base/shape.ts";
import { rfc3339Nano } from "../time.ts";
import { detach, verifyOptions } from "./mounting.ts";

const volumeRecord = struct({ name: str, created: str, labels: dict(str), options: dict(str), anonymous: bool });
export type Volume = ShapeOf<typeof volumeRecord> & { readonly path: string };

/** No volume's name: a removal that was cut off. */
const GONE = ".removed-";
const VALID = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

export class VolumeStore {
  readonly #dir: string;
  readonly #clock: Clock;
  readonly #volumes = new Map<string, Volume>();

  constructor(dir: string, clock: Clock, log: Logger) {
    this.#dir = dir;
    this.#clock = clock;
    mkdirSync(dir, { recursive: true, mode: 0o701 });
    for (const name of readdirSync(dir)) {
      if (name.startsWith(GONE)) rmSync(join(dir, name), { recursive: true, force: true });
      const text = readFileIfAny(join(dir, name, "volume.json"));
      if (text === undefined) continue;
      try {
        this.#volumes.set(name, { ...volumeRecord(JSON.parse(text), ""), path: join(dir, name, "_data") });
      } catch (error) {
        log.error("volume could not be read; its files are left", { volume: name, error: messageOf(error) });
      }
    }
  }

  all(): Volume[] {
    return [...this.#volumes.values()];
  }

  find(name: string): Volume | undefined {
    return this.#volumes.get(name);
  }

  get(name: string): Volume {
    const volume = this.#volumes.get(name);
    if (!volume) throw notFound(`get ${name}: no such volume`);
    return volume;
  }

  /** Gives the volume of that name, made when it is not there. `made` tells which. */
  create(request: {
    name: string;
    driver?: string;
    labels?: Record<string, string>;
    options?: Record<string, string>;
    anonymous?: boolean;
  }): { volume: Volume; made: boolean } {
    const driver = request.driver || "local";
    if (driver !== "local") {
      throw notFound(`create ${request.name}: error looking up volume plugin ${driver}: plugin "${driver}" not found`);
    }
    const anonymous = request.anonymous ?? request.name === "";
    const name = request.name || hexId();
    if (!VALID.test(name)) {
      throw invalid(
        `create ${name}: "${name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. ` +
          "If you intended to pass a host directory, use absolute path",
      );
    }
    const known = this.#volumes.get(name);
    if (known) return { volume: known, made: false };
    const options = request.options ?? {};
    verifyOptions(name, options);
    const path = join(this.#dir, name, "_data");
    mkdirSync(path, { recursive: true, mode: 0o755 });
    chmodSync(path, 0o755);
    const labels = { ...request.labels, ...(anonymous && { "com.docker.volume.anonymous": "" }) };
    const record = { name, created: rfc3339Nano(this.#clock.now()), labels, options, anonymous };
    writeFileAtomic(join(this.#dir, name, "volume.json"), JSON.stringify(record));
    const volume: Volume = { ...record, path };
    this.#volumes.set(name, volume);
    return { volume, made: true };
  }

  /** `users` are ids of containers that mount it. */
  remove(name: string, users: readonly string[], force: boolean): boolean {
    const volume = this.#volumes.get(name);
    if (!volume) {
      if (force) return false;
      throw notFound(`get ${name}: no such volume`);
    }
    if (users.length > 0) throw conflict(`remove ${name}: volume is in use - [${users.join(", ")}]`);
    detach(volume);
    // All at once first: of a removal that is cut off nothing comes back in a new volume of that name.
    const gone = join(this.#dir, `${GONE}${hexId()}`);
    renameSync(join(this.#dir, name), gone);
    this.#volumes.delete(name);
    rmSync(gone, { recursive: true, force: true });
    return true;
  }

  isEmpty(volume: Volume): boolean {
    return !existsSync(volume.path) || readdirSync(volume.path).length === 0;
  }
}

/**
 * The data keys that this manager knows, in memory and on its disk, and the values under them. A value carries the name of
 * its key; the first data key of a swarm, while there was no other, writes without a name.
 */
import { createSecretKey, type KeyObject } from "node:crypto";
import { unavailable } from "../../base/errors.ts";
import type { DataKey } from "../ca/files.ts";
import { isSealed, keyId, seal, sealAs, sealedAs, unseal, unsealNamed } from "../ca/seal.ts";
import { bounded, isNeeded, type Ring } from "./ring.ts";

interface Known {
  readonly key: DataKey;
  /** As an object of OpenSSL: setting up a cipher from bytes costs more than the encryption. */
  readonly cipher: KeyObject;
}

export interface DataKeysOptions {
  /** Those on disk. */
  readonly keys: readonly DataKey[];
  /** Puts these on disk in their place; throws when that fails. */
  readonly save: (keys: readonly DataKey[]) => void;
  /** The same from other managers, for the one with this name; rejects when nobody could ever tell. */
  readonly ask?: (id: string, signal: AbortSignal) => Promise<readonly DataKey[]>;
}

export class DataKeys {
  readonly #options: DataKeysOptions;
  #known = new Map<string, Known>();
  #saved: string;
  #ring: Ring | undefined;
  #revision = 0n;
  #listeners = new Set<() => void>();

  constructor(options: DataKeysOptions) {
    this.#options = options;
    this.add(options.keys);
    this.#saved = this.#names();
  }

  /** As the store says; undefined while there was only one key ever, or none. */
  get ring(): Ring | undefined {
    return this.#ring;
  }

  /** The store's revision at which the ring was written; 0 = there is none. */
  get revision(): bigint {
    return this.#revision;
  }

  get list(): DataKey[] {
    return [...this.#known.values()].map(({ key }) => key);
  }

  /** Called when the ring is another one. */
  onRing(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Learns keys, in memory only: `save` puts them on disk. */
  add(keys: readonly DataKey[]): void {
    for (const key of keys) {
      const id = keyId(key.key);
      if (!this.#known.has(id)) this.#known.set(id, { key, cipher: createSecretKey(key.key) });
    }
    this.#keep(bounded(this.list, this.#ring));
  }

  /** Puts what is known on disk, when it is not there. */
  save(): void {
    const names = this.#names();
    if (names === this.#saved) return;
    this.#options.save(this.list);
    this.#saved = names;
  }

  /** Takes over what the store says; what is older than what is known already is not looked at. */
  follow(ring: Ring, revision: bigint): void {
    if (revision <= this.#revision) return;
    this.#ring = ring;
    this.#revision = revision;
    for (const listener of [...this.#listeners]) listener();
  }

  /** Keys that nothing in the store's present state is encrypted under. */
  get unneeded(): DataKey[] {
    return this.list.filter((key) => !isNeeded(key, this.#ring));
  }

  /** Forgets these, also on disk. */
  forget(keys: readonly DataKey[]): void {
    this.#keep(this.list.filter((key) => !keys.includes(key)));
    this.save();
  }

  /** Asks the other managers for this key until it is known. */
  async fetch(id: string, signal: AbortSignal): Promise<void> {
    if (this.#known.has(id)) return;
    const { ask } = this.#options;
    if (!ask) throw unavailable("the swarm store is encrypted, and its data key is not here");
    this.add(await ask(id, signal));
  }

  /** The name of the key without which this value cannot be read. */
  lacks(value: Uint8Array): string | undefined {
    const id = sealedAs(value);
    return id === undefined || this.#known.has(id) ? undefined : id;
  }

  seal(plain: Uint8Array, context: string): Uint8Array {
    if (this.#ring) {
      const { current } = this.#ring;
      return sealAs(current, this.#cipher(current), plain, context);
    }
    const first = this.#first();
    return first ? seal(first.cipher, plain, context) : plain;
  }

  /** Reads a value, whenever it is called: the key may be forgotten by then. */
  opener(value: Uint8Array, context: string): () => Uint8Array {
    const id = sealedAs(value);
    if (id !== undefined) {
      const known = this.#known.get(id);
      return () => {
        if (!known) throw unavailable("the swarm store is encrypted, and its data key is not here");
        return unsealNamed(known.cipher, value, context);
      };
    }
    if (!isSealed(value)) return () => value;
    const first = this.#first();
    return () => {
      if (!first) throw unavailable("the swarm store is encrypted, and its data key is not here");
      return unseal(first.cipher, value, context);
    };
  }

  /** The one that needs no name. */
  #first(): Known | undefined {
    return [...this.#known.values()].find(({ key }) => key.generation === 0);
  }

  #cipher(id: string): KeyObject {
    const known = this.#known.get(id);
    if (!known) throw unavailable("the swarm store's data key is not here yet");
    return known.cipher;
  }

  #keep(keys: readonly DataKey[]): void {
    const ids = new Set(keys.map(({ key }) => keyId(key)));
    for (const id of this.#known.keys()) if (!ids.has(id)) this.#known.delete(id);
  }

  #names(): string {
    return [...this.#known.keys()].sort().join();
  }
}

/**
 * What was heard from the others, on disk: after a restart names, balancers and the way to the others' containers are
 * there at once, and not only when gossip has found them again.
 */
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Store } from "../store.ts";

/** What was heard is written down at most this often. */
const keepMs = 1000;
/** Beyond this, writing it down costs more than hearing it again. */
const mostKept = 20_000;

/** A record as it was last heard. */
export interface HeardRecord {
  readonly table: string;
  readonly key: string;
  readonly value: Uint8Array;
  readonly owner: string;
  readonly ownerAddress: string;
}

export interface KeptRecordsOptions {
  readonly store: Pick<Store, "records" | "saveRecords" | "deleteRecords">;
  /** All that is known of a network now. */
  readonly heard: (networkId: string) => readonly HeardRecord[];
  readonly clock: Clock;
  readonly log: Logger;
}

export class KeptRecords {
  readonly #options: KeptRecordsOptions;
  /** Networks that changed since they were written down. */
  readonly #due = new Set<string>();
  #cancel: (() => void) | undefined;

  constructor(options: KeptRecordsOptions) {
    this.#options = options;
  }

  /** What the last life heard. */
  read(networkId: string): HeardRecord[] {
    const kept = this.#options.store.records(networkId);
    return kept.map((record) => ({ ...record, value: Buffer.from(record.value, "base64") }));
  }

  /** Something else was heard of a network: it is written down soon. */
  changed(networkId: string): void {
    this.#due.add(networkId);
    this.#cancel ??= this.#options.clock.after(keepMs, () => this.flush());
  }

  /** Writes down now what waits. */
  flush(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    for (const networkId of this.#due) this.#write(networkId);
    this.#due.clear();
  }

  /** This node is on a network no more. */
  forget(networkId: string): void {
    this.#due.delete(networkId);
    this.#options.store.deleteRecords(networkId);
  }

  /** This node is in no cluster any more; these were its networks. */
  forgetAll(networkIds: Iterable<string>): void {
    for (const networkId of networkIds) this.forget(networkId);
    this.#due.clear();
    this.flush();
  }

  #write(networkId: string): void {
    const { store, heard, log } = this.#options;
    const records = heard(networkId);
    if (records.length > mostKept) {
      store.deleteRecords(networkId);
      return;
    }
    try {
      store.saveRecords(
        networkId,
        records.map((record) => ({ ...record, value: Buffer.from(record.value).toString("base64") })),
      );
    } catch (error) {
      log.warn("cannot keep what was heard", { network: networkId, error: messageOf(error) });
    }
  }
}

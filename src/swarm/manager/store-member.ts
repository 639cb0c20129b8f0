/**
 * This manager's member of the store: its etcd, the connection to that under the certificate of the day, who leads among
 * the members, and the objects themselves.
 */

import type { Clock } from "../../base/clock.ts";
import { sleep } from "../../base/clock.ts";
import { unavailable } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { NodeCredentials } from "../ca/files.ts";
import type { DataKeys } from "../store/data-keys.ts";
import { EtcdBackend } from "../store/etcd/backend.ts";
import { connectEtcd, type EtcdClient } from "../store/etcd/client.ts";
import { EtcdSupervisor } from "../store/etcd/supervisor.ts";
import { Store } from "../store/store.ts";
import { StandingWatch } from "./leadership/standing.ts";

/** Between two managers that start their etcd again; longer than one takes to be back: the others keep the quorum meanwhile. */
const ROOTS_APART_MS = 5_000;
/**
 * Longer than this process may be stalled without the lead moving: an answer that waits to be read is not to be taken for
 * an etcd that is silent.
 */
const STATUS_MS = 3_000;
const LOOK_MS = 20;

export interface StoreMemberOptions {
  readonly stateDir: string;
  readonly nodeId: string;
  readonly etcdBinary: string;
  readonly forceNewCluster: boolean;
  /** Nodes whose members make up the cluster to join, this one among them; for the first start only. */
  readonly join?: readonly string[] | undefined;
  /** "host:port" of a manager; undefined when nobody knows. */
  readonly addrOf: (nodeId: string) => string | undefined;
  /** Those on disk. */
  readonly credentials: () => NodeCredentials;
  readonly dataKeys: DataKeys;
  /** There is no other manager. */
  readonly alone: () => boolean;
  /** For commits; throws when this manager does not lead. */
  readonly fence: () => bigint;
  /** The others removed this member. */
  readonly onRemoved: () => void;
  /** Another one leads, or none. */
  readonly onStanding: () => void;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface OpenStore {
  readonly backend: EtcdBackend;
  readonly standing: StandingWatch;
  readonly store: Store;
}

export class StoreMember {
  readonly #options: StoreMemberOptions;
  readonly #undo = new AsyncDisposableStack();
  #etcd: EtcdSupervisor | undefined;
  #client: EtcdClient | undefined;
  /** With what the client proves itself. */
  #clientAs: NodeCredentials | undefined;

  constructor(options: StoreMemberOptions) {
    this.#options = options;
  }

  /** Starts or adopts etcd, waits until it votes and knows who leads, and reads everything. */
  async open(peers: readonly string[], signal: AbortSignal): Promise<OpenStore> {
    const { alone, clock, credentials, fence, log, nodeId, onStanding } = this.#options;
    const etcd = await this.#startEtcd();
    if (this.#undo.disposed) {
      await etcd.stop();
      throw unavailable("the manager stops");
    }
    this.#undo.defer(() => etcd.stop());
    this.#etcd = etcd;
    etcd.setPeers(peers);
    this.#connect(credentials());
    this.#undo.defer(() => this.#client?.close());
    const status = (given: AbortSignal) => this.#status(etcd, given);
    const standing = new StandingWatch({ status, alone, clock, onChange: onStanding });
    this.#undo.defer(() => standing.close());
    while (standing.current.leader === 0n || standing.current.learner) {
      signal.throwIfAborted();
      await sleep(clock, LOOK_MS / 2, signal);
    }
    const backend = new EtcdBackend(() => this.client, nodeId, clock, log, { fence, keys: this.#options.dataKeys });
    this.#undo.defer(() => backend.close());
    const store = await Store.open(backend, clock, log);
    this.#undo.defer(() => store.close());
    return { backend, standing, store };
  }

  /** The connection of the moment; throws UNAVAILABLE before there is one. */
  get client(): EtcdClient {
    if (!this.#client) throw unavailable("the swarm store is not open");
    return this.#client;
  }

  /** The nodes that are members, as far as is known. */
  setPeers(nodeIds: readonly string[]): void {
    this.#etcd?.setPeers(nodeIds);
  }

  /**
   * Certificates of etcd and of the connection to it. With other roots the managers start their etcd again, one after
   * another in their `turn`; one whose own etcd does not believe it any more cannot wait for that.
   */
  setCredentials(credentials: NodeCredentials, turn: number): void {
    const etcd = this.#etcd;
    const old = this.#client;
    if (!etcd || !old) return;
    etcd.setCertificates(credentials);
    etcd.followRoots(etcd.believes(credentials.certPem) ? turn * ROOTS_APART_MS : 0);
    if (this.#clientAs && sameCredentials(this.#clientAs, credentials)) return;
    this.#connect(credentials);
    old.close();
  }

  close(): Promise<void> {
    return this.#undo.disposeAsync();
  }

  #connect(credentials: NodeCredentials): void {
    this.#clientAs = credentials;
    this.#client = connectEtcd(this.#etcd?.address ?? "", credentials);
  }

  #startEtcd(): Promise<EtcdSupervisor> {
    const { addrOf, clock, credentials, etcdBinary, forceNewCluster, join, log, nodeId, onRemoved, stateDir } =
      this.#options;
    return EtcdSupervisor.start({
      ...{ stateDir, name: nodeId, binary: etcdBinary, forceNewCluster, onRemoved, clock, log },
      peers: { addrOf, credentials },
      ...(join ? { join } : {}),
    });
  }

  /** What the local etcd says of itself. */
  async #status(etcd: EtcdSupervisor, signal: AbortSignal) {
    for (;;) {
      const { client } = this;
      try {
        const status = await client.maintenance.status({}, { signal, timeoutMs: STATUS_MS });
        if (status.leader !== 0n || !etcd.settling) return status;
      } catch (error) {
        // Asked again where it was only cut short by a new certificate.
        if (signal.aborted || (client === this.#client && !etcd.settling)) throw error;
      }
      await sleep(this.#options.clock, LOOK_MS, signal);
    }
  }
}

const sameCredentials = (a: NodeCredentials, b: NodeCredentials) =>
  a.certPem === b.certPem && a.keyPem === b.keyPem && a.rootPem === b.rootPem;

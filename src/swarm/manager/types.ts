/**
 * The contract between the node (which owns this host's part in a swarm) and the manager.
 *
 * `swarm init`: `bootstrapCluster(stateDir)` then `startManager({..., bootstrap})`.
 * Restart of a manager: `startManager` without `bootstrap`; everything is found again in etcd.
 * A node that became a manager: `startManager` with `remotes`; without etcd data it asks those to take it in.
 * The local agent connects to `Manager.localAddr` over mutual TLS like any other worker.
 */

import { rmSync } from "node:fs";
import { join } from "node:path";
import type { ClusterSpec, NodeSpec_Availability } from "#proto/docker/swarmkit/specs_pb.js";
import type { Clock } from "../../base/clock.ts";
import type { SkeinError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { ControlApi } from "../types.ts";

/** What `bootstrapCluster` made: files in `<stateDir>/certificates`. */
export interface BootstrapResult {
  readonly nodeId: string;
  readonly clusterId: string;
}

/** How a new cluster is to be. */
export interface BootstrapOptions {
  readonly clusterSpec: ClusterSpec;
  /** CIDRs of the default address pool; empty = 10.0.0.0/8. */
  readonly defaultAddressPool: string[];
  /** Prefix length of the subnets cut from the pool; 0 = 24. */
  readonly subnetSize: number;
  /** UDP port of VXLAN; 0 = 4789. */
  readonly dataPathPort: number;
  readonly forceNewCluster: boolean;
  /** Availability of the first node. */
  readonly availability?: NodeSpec_Availability;
}

export interface ManagerOptions {
  /** The swarm's state directory: `certificates/` and `etcd/` live in it. */
  readonly stateDir: string;
  /** "ip:port" to listen on (`0.0.0.0:2377`). Port 0 = any free port. */
  readonly listenAddr: string;
  /** "ip:port" told to other nodes; its host is also where this node's gossip listens. */
  readonly advertiseAddr: string;
  /** Present at `swarm init` only. */
  readonly bootstrap?: BootstrapOptions;
  /** Managers to ask, "host:port", when this one is not yet among them. */
  readonly remotes?: () => readonly string[];
  /** Ends the start of a manager that waits for others. */
  readonly signal?: AbortSignal;
  /** Gossip's opinion of a host: false while it hears it, undefined where it has none. */
  readonly isSilent?: ((host: string) => boolean | undefined) | undefined;
  readonly log: Logger;
  readonly clock: Clock;
  /** The etcd binary; default `etcd` from PATH. */
  readonly etcdBinary?: string;
}

export interface Manager extends AsyncDisposable {
  readonly control: ControlApi;
  readonly nodeId: string;
  readonly clusterId: string;
  /** "ip:port" the local agent dials. */
  readonly localAddr: string;
  /** Why users are refused now, in Docker's words: no leader, not ready. Undefined when they are served. */
  refusal(): SkeinError | undefined;
  /** True while this manager leads or knows who does: nodes can talk to it. */
  serves(): boolean;
  /** True when the others took this manager out of their number: it serves no more, and has to be begun anew to be one again. */
  removed(): boolean;
  /** Called when one of these changes. */
  onChange(listener: () => void): () => void;
  /** Gives up this manager's membership, so that the others keep their quorum; throws when that is not to be had. */
  resign(timeoutMs: number): Promise<void>;
  /** Reads the certificate files again after the node renewed them; new connections use them at once. */
  reloadCertificate(): void;
  /** Rejects when this manager can no longer serve: its store cannot be opened. */
  readonly failed: Promise<never>;
  /** Stops serving: last session messages, streams ended, etcd stopped. Idempotent. */
  close(): Promise<void>;
}

export type BootstrapCluster = (stateDir: string, clock?: Clock) => Promise<BootstrapResult>;
export type StartManager = (options: ManagerOptions) => Promise<Manager>;

/** Forgets what a manager kept on this host, after it was closed; the certificates stay. */
export function removeManagerData(stateDir: string): void {
  rmSync(join(stateDir, "etcd"), { recursive: true, force: true });
  rmSync(join(stateDir, "managers.json"), { force: true });
}

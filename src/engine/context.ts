/** What the parts of the engine share. */
import type { KeyedMutex } from "../base/async.ts";
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import type { NetworkController } from "../network/types.ts";
import type { Runtime } from "../runtime/types.ts";
import type { SwarmNode } from "../swarm/types.ts";
import type { ContainerRegistry } from "./containers/registry.ts";
import type { NetworkDirectory } from "./networks/directory.ts";
import type { Events, SwarmNetworkSource } from "./types.ts";
import type { VolumeStore } from "./volumes/store.ts";

export interface Paths {
  /** Survives reboots. */
  readonly root: string;
  /** Gone with a reboot; on a tmpfs. */
  readonly run: string;
  readonly containers: string;
  readonly volumes: string;
}

export interface EngineContext {
  readonly runtime: Runtime;
  readonly network: NetworkController;
  readonly clock: Clock;
  readonly log: Logger;
  readonly events: Events;
  readonly paths: Paths;
  readonly hostname: string;
  readonly registry: ContainerRegistry;
  readonly volumes: VolumeStore;
  readonly networks: NetworkDirectory;
  /** Changes of one container come one after another. */
  readonly locks: KeyedMutex;
  swarm(): { node: SwarmNode; networks: SwarmNetworkSource } | undefined;
}

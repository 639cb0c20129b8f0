/**
 * One host put together. Start reading here: `createEngine` makes the parts around one context, brings back what an
 * earlier daemon left, and gives the door that the API and the swarm executor use.
 */
import { mkdirSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { KeyedMutex } from "../base/async.ts";
import { type Clock, systemClock } from "../base/clock.ts";
import { readFileIfAny, writeFileAtomic } from "../base/file.ts";
import type { Logger } from "../base/log.ts";
import type { NetworkController } from "../network/types.ts";
import { noRules, type RegistryRules } from "../runtime/registry/rules.ts";
import type { Runtime } from "../runtime/types.ts";
import type { SwarmNode } from "../swarm/types.ts";
import { createContainers } from "./containers/containers.ts";
import { ContainerRegistry } from "./containers/registry.ts";
import { restoreContainers } from "./containers/restore.ts";
import type { EngineContext, Paths } from "./context.ts";
import { createEvents } from "./events.ts";
import { createImages } from "./images/images.ts";
import { NetworkDirectory } from "./networks/directory.ts";
import { createNetworks } from "./networks/networks.ts";
import { type ApiRange, createSystem } from "./system/system.ts";
import type { Engine, SwarmNetworkSource } from "./types.ts";
import { createViews } from "./view/view.ts";
import { VolumeStore } from "./volumes/store.ts";
import { sweepParts } from "./volumes/subpath.ts";
import { createVolumes } from "./volumes/volumes.ts";

export interface EngineOptions {
  readonly runtime: Runtime;
  readonly network: NetworkController;
  /** Survives reboots. */
  readonly root: string;
  /** Gone with a reboot. */
  readonly run: string;
  readonly log: Logger;
  readonly clock?: Clock;
  readonly hostname?: string;
  readonly labels?: readonly string[];
  /** As given to the runtime, for `docker info`. */
  readonly registries?: RegistryRules;
  readonly debug?: boolean;
  readonly api: ApiRange;
  /** The `Swarm` section of `docker info`. */
  readonly swarmInfo?: (node: SwarmNode | undefined) => object;
}

/** Makes the engine and brings back the containers of an earlier daemon. */
export async function createEngine(options: EngineOptions): Promise<Engine> {
  const { runtime, network, log, clock = systemClock } = options;
  const paths: Paths = {
    root: options.root,
    run: options.run,
    containers: join(options.root, "containers"),
    volumes: join(options.root, "volumes"),
  };
  mkdirSync(paths.run, { recursive: true, mode: 0o711 });
  let swarm: { node: SwarmNode; networks: SwarmNetworkSource } | undefined;
  const ctx: EngineContext = {
    runtime,
    network,
    clock,
    log,
    events: createEvents(clock),
    paths,
    hostname: options.hostname ?? hostname(),
    registry: new ContainerRegistry(paths.containers, log),
    volumes: new VolumeStore(paths.volumes, clock, log),
    networks: new NetworkDirectory(network, () => swarm?.networks),
    locks: new KeyedMutex(),
    swarm: () => swarm,
  };
  const stopTelling = tellNetworkEvents(ctx);
  sweepParts(paths.run);
  await restoreContainers(ctx);
  runtime.sweep();
  const images = createImages(ctx);
  return {
    runtime,
    network,
    containers: createContainers(ctx),
    images,
    volumes: createVolumes(ctx),
    networks: createNetworks(ctx),
    system: createSystem(
      ctx,
      {
        api: options.api,
        labels: options.labels ?? [],
        id: engineId(options.root),
        registries: options.registries ?? noRules,
        debug: options.debug ?? false,
        swarmInfo: () => options.swarmInfo?.(swarm?.node) ?? { LocalNodeState: "inactive" },
      },
      images,
    ),
    events: ctx.events,
    views: createViews(ctx),
    get swarm() {
      return swarm?.node;
    },
    connectSwarm(node, networks) {
      swarm = { node, networks };
    },
    async [Symbol.asyncDispose]() {
      stopTelling();
      for (const container of ctx.registry.all()) {
        container.cancelRestart?.();
        container.health?.stop();
        container.log.flush();
      }
    },
  };
}

/** The network room's changes as events of `docker events`. */
function tellNetworkEvents(ctx: EngineContext): () => void {
  return ctx.network.events.on((event) => {
    if (event.kind === "drift") {
      const attributes = { name: event.namespace, mended: event.differences.join("; "), total: String(event.total) };
      ctx.events.emit({ type: "network", action: "drift", id: event.namespace, scope: "local", attributes });
      return;
    }
    if (event.kind === "path") {
      const attributes = { name: event.host, mtu: String(event.mtu), expected: String(event.expected) };
      ctx.events.emit({ type: "network", action: "path", id: event.host, scope: "local", attributes });
      return;
    }
    const { network } = event;
    ctx.events.emit({
      type: "network",
      action: event.kind,
      id: network.id,
      scope: network.scope,
      attributes: {
        name: network.name,
        type: network.driver,
        ...("containerId" in event && { container: event.containerId }),
      },
    });
  });
}

/** The engine's id of `docker info`, kept for the life of its state. */
function engineId(root: string): string {
  const path = join(root, "engine-id");
  const known = readFileIfAny(path)?.trim();
  if (known) return known;
  const fresh = crypto.randomUUID();
  writeFileAtomic(path, `${fresh}\n`, 0o644);
  return fresh;
}

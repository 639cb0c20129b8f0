/**
 * `skeind` from its flags to its end. The order of the start: refuse what cannot work, then containerd and networks side
 * by side, containers adopted, the swarm picked up, and only then the sockets: who can connect sees the truth.
 */
import { mkdirSync } from "node:fs";
import type { Server } from "node:http";
import { hostname } from "node:os";
import { join } from "node:path";
import { sleep, systemClock } from "../../base/clock.ts";
import { messageOf, unavailable } from "../../base/errors.ts";
import { createLogger, type Logger } from "../../base/log.ts";
import { waitFor } from "../../base/waiting.ts";
import { releaseStartup } from "../../kernel/residence.ts";
import { openRtnl } from "../../kernel/rtnl.ts";
import { createNetworkController } from "../../network/controller.ts";
import { startRuntime } from "../../runtime/runtime.ts";
import { createSwarmNode } from "../../swarm/node/node.ts";
import { createEngine } from "../engine.ts";
import { createSwarmHost } from "../swarm/host.ts";
import { hostInterfaces } from "../swarm/interfaces.ts";
import type { ApiRange } from "../system/system.ts";
import type { Engine } from "../types.ts";
import { VERSION } from "../version.ts";
import { type ApiEndpoint, shownEndpoint, type TlsFiles } from "./endpoint.ts";
import { takePidfile } from "./pidfile.ts";
import { type DaemonConfig, helpText, readSettings } from "./settings.ts";

/** What the API room gives to the daemon. */
export interface ApiFront {
  readonly range: ApiRange;
  create(options: {
    engine: Engine;
    log: Logger;
    interfaces: () => ReturnType<typeof hostInterfaces>;
    tls?: TlsFiles | undefined;
  }): Server;
  /** Throws when a living daemon is behind the socket. */
  assertFree(path: string): Promise<void>;
  /** Disposing ends the server and all of its connections. */
  listen(server: Server, endpoint: ApiEndpoint, log: Logger): Promise<AsyncDisposable>;
  swarmInfo(node: Engine["swarm"]): object;
}

/** How long a graceful end may take. */
const STOP_MS = 15_000;
/** How long the sockets wait for this node's part in a swarm to be picked up. */
const RESTORE_MS = 3_000;
/** After so long what only the start needed is given back. */
const SETTLED_MS = 2_000;

/** Runs until SIGTERM or SIGINT. Gives the exit code. */
export async function runDaemon(argv: readonly string[], api: ApiFront): Promise<number> {
  let config: DaemonConfig;
  try {
    const asked = readSettings(argv);
    if ("print" in asked) {
      process.stdout.write(`${asked.print === "help" ? helpText() : `skeind version ${VERSION}`}\n`);
      return 0;
    }
    config = asked.config;
    if (process.getuid?.() !== 0) throw unavailable("skeind must run as root");
  } catch (error) {
    process.stderr.write(`skeind: ${messageOf(error)}\n`);
    return 1;
  }
  const log = createLogger((line) => process.stderr.write(`${line}\n`), config.logLevel);
  const stop = new AbortController();
  const asked = new Promise<string>((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.on(signal, () => {
        resolve(signal);
        stop.abort(new Error(`got ${signal}`));
      });
    }
  });
  process.on("SIGHUP", () => log.info("SIGHUP: nothing is reloaded; restart skeind to change settings"));
  // The containers of a host are worth more than a clean end: what slipped through is told, and the engine goes on.
  process.on("uncaughtException", (error) => log.error("uncaught error", { error: error.stack ?? error.message }));
  process.on("unhandledRejection", (error) =>
    log.error("unhandled rejection", {
      error: error instanceof Error ? (error.stack ?? error.message) : String(error),
    }),
  );
  const parts = new AsyncDisposableStack();
  try {
    await start(config, api, log, parts, stop.signal);
  } catch (error) {
    process.stderr.write(`skeind: ${messageOf(error)}\n`);
    log.debug("start failed", { error: error instanceof Error ? (error.stack ?? "") : "" });
    await bounded(parts.disposeAsync().catch(() => {}));
    return 1;
  }
  log.info("stopping", { reason: await asked });
  await bounded(
    parts.disposeAsync().catch((error) => log.error("not everything ended cleanly", { error: messageOf(error) })),
  );
  log.info("stopped");
  return 0;
}

async function bounded(work: Promise<void>): Promise<void> {
  await Promise.race([work, new Promise<void>((resolve) => setTimeout(resolve, STOP_MS))]);
}

async function start(
  config: DaemonConfig,
  api: ApiFront,
  log: Logger,
  parts: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<void> {
  const began = performance.now();
  const marks: Record<string, number> = {};
  const mark = (name: string) => {
    marks[name] = Math.round(performance.now() - began);
  };
  for (const endpoint of config.endpoints) if (endpoint.kind === "unix") await api.assertFree(endpoint.path);
  mkdirSync(config.dataRoot, { recursive: true, mode: 0o711 });
  mkdirSync(config.runDir, { recursive: true, mode: 0o711 });
  parts.use(takePidfile(config.pidfile));
  const name = config.hostname ?? hostname();

  const [runtime, network] = await both(
    waitFor(
      "containerd",
      startRuntime(
        {
          root: join(config.dataRoot, "containerd"),
          run: join(config.runDir, "containerd"),
          cgroupParent: config.cgroupParent,
          registries: config.registries,
          ...(config.containerd !== undefined && { address: config.containerd }),
          ...(config.defaultRuntime !== undefined && { defaultRuntime: config.defaultRuntime }),
          signal,
        },
        log.with({ room: "runtime" }),
      ),
      log,
    ),
    waitFor(
      "the host's networks",
      createNetworkController({
        stateDir: join(config.dataRoot, "network"),
        netnsDir: join(config.runDir, "netns"),
        resolvConf: config.resolvConf,
        ...(config.bip !== undefined && { bip: config.bip }),
        ...(config.addressPools.length > 0 && { defaultAddressPools: config.addressPools }),
        ...(config.meshRouting !== undefined && { meshRouting: config.meshRouting }),
        log: log.with({ room: "network" }),
      }),
      log,
    ),
  );
  parts.use(runtime);
  parts.use(network);
  mark("runtimeMs");
  const engine = parts.use(
    await createEngine({
      runtime,
      network,
      root: config.dataRoot,
      run: config.runDir,
      log: log.with({ room: "engine" }),
      hostname: name,
      labels: config.labels,
      debug: config.logLevel === "debug",
      registries: config.registries,
      api: api.range,
      swarmInfo: api.swarmInfo,
    }),
  );
  mark("engineMs");
  const interfaces = () => {
    using rtnl = openRtnl();
    return hostInterfaces(rtnl);
  };
  await joinSwarm(config, engine, name, interfaces, log.with({ room: "swarm" }), parts);
  mark("swarmMs");
  const apiLog = log.with({ room: "api" });
  for (const endpoint of config.endpoints) {
    const tls = endpoint.kind === "tcp" ? endpoint.tls : undefined;
    parts.use(await api.listen(api.create({ engine, log: apiLog, interfaces, tls }), endpoint, apiLog));
  }
  const sockets = config.endpoints.map(shownEndpoint).join(",");
  // Not at once: the first requests still find the start's pages.
  const later = setTimeout(releaseStartup, SETTLED_MS).unref();
  parts.defer(() => clearTimeout(later));
  log.info("ready", { sockets, tookMs: Math.round(performance.now() - began), ...marks });
}

/** Both, or neither: what one made is given back when the other fails. */
async function both<A extends AsyncDisposable, B extends AsyncDisposable>(
  a: Promise<A>,
  b: Promise<B>,
): Promise<[A, B]> {
  const [first, second] = await Promise.allSettled([a, b]);
  if (first.status === "fulfilled" && second.status === "fulfilled") return [first.value, second.value];
  if (first.status === "fulfilled") await first.value[Symbol.asyncDispose]();
  if (second.status === "fulfilled") await second.value[Symbol.asyncDispose]();
  throw first.status === "rejected" ? first.reason : second.status === "rejected" ? second.reason : undefined;
}

async function joinSwarm(
  config: DaemonConfig,
  engine: Engine,
  name: string,
  interfaces: () => ReturnType<typeof hostInterfaces>,
  log: Logger,
  parts: AsyncDisposableStack,
): Promise<void> {
  const labels = Object.fromEntries(config.labels.map((label) => splitLabel(label)));
  const host = createSwarmHost({ engine, log, interfaces, clock: systemClock, hostname: name, labels });
  const node = createSwarmNode({
    stateDir: join(config.dataRoot, "swarm"),
    executor: host.executor,
    log,
    // Only managers pay for loading these.
    managers: {
      bootstrapCluster: async (...given) => (await import("../../swarm/manager/manager.ts")).bootstrapCluster(...given),
      startManager: async (options) => (await import("../../swarm/manager/manager.ts")).startManager(options),
    },
  });
  parts.use(node);
  parts.defer(host.attach(node));
  engine.connectSwarm(node, host.networks);
  // A manager without quorum may take for ever: containers of this host must be reachable all the same.
  await Promise.race([node.restore(), sleep(systemClock, RESTORE_MS)]);
}

function splitLabel(label: string): [string, string] {
  const equals = label.indexOf("=");
  return equals < 0 ? [label, ""] : [label.slice(0, equals), label.slice(equals + 1)];
}

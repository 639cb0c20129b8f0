/** A host in memory: a runtime whose processes do what the test says, and a network that remembers what it was asked. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { deferred, Emitter } from "../../../src/base/async.ts";
import { VirtualClock } from "../../../src/base/clock.ts";
import { notImplemented } from "../../../src/base/errors.ts";
import { hexId } from "../../../src/base/id.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { createEngine } from "../../../src/engine/engine.ts";
import { containerConfig, hostConfig, networkingConfig } from "../../../src/engine/shapes.ts";
import type { ContainerCreate, Engine } from "../../../src/engine/types.ts";
import type { Endpoint, NetworkController, NetworkEvent, NetworkSpec, Sandbox } from "../../../src/network/types.ts";
import type {
  ContainerSpec,
  ExecSpec,
  ExitStatus,
  Image,
  OutputChunk,
  Runtime,
  StartedProcess,
} from "../../../src/runtime/types.ts";

export class FakeProcess implements StartedProcess {
  static nextPid = 1000;
  readonly pid = FakeProcess.nextPid++;
  readonly input = new PassThrough();
  inputClosed = false;
  readonly #output = new Emitter<OutputChunk>();
  readonly #exit = deferred<ExitStatus>();
  readonly #drained = deferred<void>();
  readonly exit = this.#exit.promise;
  readonly io = {
    onOutput: (listener: (chunk: OutputChunk) => void) => this.#output.on(listener),
    drained: this.#drained.promise,
    stdin: this.input,
    closeStdin: async () => {
      this.inputClosed = true;
    },
  };

  say(text: string, stream: "stdout" | "stderr" = "stdout", at = 1_700_000_000_000): void {
    this.#output.emit({ stream, data: Buffer.from(text), at });
  }

  end(exitCode: number, oomKilled = false): void {
    this.#drained.resolve();
    this.#exit.resolve({ exitCode, exitedAt: "2024-01-01T00:00:00Z", oomKilled });
  }
}

export const busybox: Image = {
  id: `sha256:${"ab".repeat(32)}`,
  references: ["docker.io/library/alpine:latest"],
  repoDigests: [],
  created: "2024-01-01T00:00:00Z",
  size: 1000,
  config: { Cmd: ["sh"], Env: ["PATH=/bin", "A=image"], Labels: { from: "image" } },
  layers: ["sha256:layer"],
  os: "linux",
  architecture: "amd64",
  history: [],
};

export class FakeRuntime implements Runtime {
  readonly ociRuntimes = [{ name: "runc", path: "/usr/bin/runc" }];
  readonly specs = new Map<string, ContainerSpec>();
  readonly processes = new Map<string, FakeProcess>();
  readonly signals: { id: string; signal: number }[] = [];
  readonly execs: { spec: ExecSpec; process: FakeProcess }[] = [];
  readonly removed: string[] = [];
  /** What a signal does; by default the process obeys at once. */
  onSignal: (process: FakeProcess, signal: number) => void = (process, signal) => process.end(128 + signal);
  failStart: Error | undefined;
  onExec: (process: FakeProcess, spec: ExecSpec) => void = () => {};
  readonly images: Runtime["images"] = {
    list: async () => [busybox],
    find: async (name) => (["alpine", "alpine:latest", busybox.id].includes(name) ? busybox : undefined),
    load: async () => [],
    importTar: async () => busybox.id,
    save: async () => {},
    tag: async () => {},
    remove: async (_name, { inUse }) => {
      const user = inUse(busybox.id);
      if (user) throw new Error(`in use by ${user}`);
      return [{ Untagged: "docker.io/library/alpine:latest" }];
    },
    pull: async () => {
      throw notImplemented("pull");
    },
    distribution: async () => {
      throw notImplemented("distribution");
    },
    push: async () => ({ tag: "latest", digest: busybox.id, size: 1 }),
    commit: async () => busybox.id,
    login: async () => {},
  };
  version = async () => ({
    containerd: "1",
    containerdCommit: "c",
    runtime: "runc",
    runtimeVersion: "1",
    runtimeCommit: "c",
  });
  changes = async () => [];
  async create(spec: ContainerSpec): Promise<void> {
    this.specs.set(spec.id, spec);
  }
  async start(spec: ContainerSpec): Promise<StartedProcess> {
    if (this.failStart) throw this.failStart;
    this.specs.set(spec.id, spec);
    const process = new FakeProcess();
    this.processes.set(spec.id, process);
    return process;
  }
  adopt = async (id: string): Promise<StartedProcess | undefined> => this.processes.get(id);
  async exec(_id: string, spec: ExecSpec): Promise<StartedProcess> {
    const process = new FakeProcess();
    this.execs.push({ spec, process });
    setImmediate(() => this.onExec(process, spec));
    return process;
  }
  async kill(id: string, signal: number): Promise<void> {
    this.signals.push({ id, signal });
    const process = this.processes.get(id);
    if (process) this.onSignal(process, signal);
  }
  resize = async () => {};
  pause = async (id: string) => void this.paused.add(id);
  unpause = async (id: string) => void this.paused.delete(id);
  update = async () => {};
  stats = async () => {
    throw new Error("no stats");
  };
  pids = async () => [];
  async remove(id: string): Promise<void> {
    this.removed.push(id);
    this.specs.delete(id);
    this.processes.delete(id);
  }
  /** Their shims do not answer. */
  readonly silent = new Set<string>();
  /** Held still. */
  readonly paused = new Set<string>();
  list = async () =>
    [...this.specs.keys()].map((id) => {
      const there = this.processes.has(id);
      const silent = this.silent.has(id);
      return { id, running: there && !silent, paused: this.paused.has(id), silent, task: there, pid: 1 };
    });
  async end(id: string): Promise<void> {
    this.processes.delete(id);
  }
  sweep = () => {};
  mountImage = async () => {};
  withRootfs: Runtime["withRootfs"] = async (_id, fn) => fn("/nonexistent");
  userOf = async () => ({ uid: 0, gid: 0 });
  writableSize = async () => 42;
  async [Symbol.asyncDispose](): Promise<void> {}
}

const network = (name: string, driver: NetworkSpec["driver"]): NetworkSpec => ({
  id: hexId(),
  name,
  driver,
  scope: "local",
  created: "2024-01-01T00:00:00Z",
  enableIPv4: true,
  enableIPv6: false,
  internal: false,
  attachable: false,
  ingress: false,
  configOnly: false,
  configFrom: "",
  ipam: { driver: "default", options: null, config: [{ subnet: "172.17.0.0/16", gateway: "172.17.0.1" }] },
  options: {},
  labels: {},
});

/** The parts of the network room that the engine uses, as far as a test without kernel needs them. */
export function fakeNetwork(): NetworkController & { readonly sandboxes: Map<string, Endpoint[]>; alive: string[] } {
  const networks = new Map<string, NetworkSpec>();
  for (const spec of [network("bridge", "bridge"), network("host", "host"), network("none", "null")]) {
    networks.set(spec.id, spec);
  }
  const sandboxes = new Map<string, Endpoint[]>();
  const box = (id: string): Sandbox | undefined =>
    sandboxes.has(id) ? { id, path: `/netns/${id.slice(0, 4)}` } : undefined;
  const fake = {
    sandboxes,
    alive: [] as string[],
    events: new Emitter<NetworkEvent>(),
    drivers: () => ["bridge" as const],
    create: async (spec: NetworkSpec) => {
      networks.set(spec.id, spec);
      return spec;
    },
    remove: async (id: string) => void networks.delete(id),
    get: (id: string) => networks.get(id),
    list: () => [...networks.values()],
    endpoints: () => [],
    peers: () => [],
    services: () => [],
    createSandbox: async ({ id }: { id: string }) => {
      sandboxes.set(id, []);
      return { id, path: `/netns/${id.slice(0, 4)}` };
    },
    removeSandbox: async (id: string) => void sandboxes.delete(id),
    sandbox: box,
    connect: async (sandboxId: string, request: { networkId: string; name: string; aliases: string[] }) => {
      const endpoint: Endpoint = {
        id: hexId(),
        networkId: request.networkId,
        sandboxId,
        name: request.name,
        aliases: request.aliases,
        ifName: "eth0",
        mac: "02:00:00:00:00:01",
        ipv4: "172.17.0.2/16",
        ipv6: "",
        gateway: "172.17.0.1",
        gateway6: "",
      };
      sandboxes.get(sandboxId)?.push(endpoint);
      return endpoint;
    },
    disconnect: async (sandboxId: string, networkId: string) => {
      sandboxes.set(
        sandboxId,
        (sandboxes.get(sandboxId) ?? []).filter((e) => e.networkId !== networkId),
      );
    },
    sandboxEndpoints: (id: string) => sandboxes.get(id) ?? [],
    publishedPorts: () => [],
    files: () => ({ hosts: "127.0.0.1\tlocalhost\n", resolvConf: "nameserver 127.0.0.11\n" }),
    renameEndpoints: async (id: string, name: string) => {
      sandboxes.set(
        id,
        (sandboxes.get(id) ?? []).map((endpoint) => ({ ...endpoint, name })),
      );
    },
    setActivity: async () => {},
    told: async () => [],
    isSilent: () => undefined,
    isListening: () => true,
    busyConnections: () => 0,
    restore: async (alive: ReadonlySet<string>) => void fake.alive.push(...alive),
    startCluster: async () => {},
    setKeys: async () => {},
    setManagers: () => {},
    setLoadBalancers: async () => {},
    stopCluster: async () => {},
    reconcile: async () => [],
    paths: () => [],
    fullConnectionTables: () => [],
    explain: () => [],
    view: {
      differences: async () => [],
      repairs: () => ({ total: 0, byKind: {}, recent: [] }),
      gossip: () => undefined,
      networks: async () => [],
      services: () => [],
      ports: () => [],
      trace: async () => undefined,
    },
    [Symbol.asyncDispose]: async () => {},
  };
  return fake;
}

export interface TestHost extends AsyncDisposable {
  engine: Engine;
  readonly runtime: FakeRuntime;
  readonly network: ReturnType<typeof fakeNetwork>;
  readonly clock: VirtualClock;
  readonly root: string;
  /** As after `kill -9`: a new engine on the same state, runtime and network. */
  restart(): Promise<void>;
}

export async function testHost(): Promise<TestHost> {
  const root = mkdtempSync(join(tmpdir(), "skein-engine-"));
  const runtime = new FakeRuntime();
  const net = fakeNetwork();
  const clock = new VirtualClock(1_700_000_000_000);
  const make = () =>
    createEngine({
      runtime,
      network: net,
      root: join(root, "data"),
      run: join(root, "run"),
      log: nullLogger,
      clock,
      hostname: "host-1",
      api: { max: "1.51", min: "1.24" },
    });
  const host: TestHost = {
    engine: await make(),
    runtime,
    network: net,
    clock,
    root,
    async restart() {
      host.engine = await make();
    },
    async [Symbol.asyncDispose]() {
      await host.engine[Symbol.asyncDispose]();
      rmSync(root, { recursive: true, force: true });
    },
  };
  return host;
}

/** A request as the CLI sends it, with these fields. */
export function request(
  fields: { name?: string; config?: object; host?: object; networks?: object } = {},
): ContainerCreate {
  return {
    name: fields.name ?? "",
    config: containerConfig({ Image: "alpine", ...fields.config }, ""),
    hostConfig: hostConfig({ ...fields.host }, ""),
    networking: networkingConfig({ EndpointsConfig: fields.networks ?? {} }, ""),
  };
}

/** Lets what has been set going come to rest. */
export async function settle(rounds = 5): Promise<void> {
  for (let i = 0; i < rounds; i++) await new Promise((resolve) => setImmediate(resolve));
}

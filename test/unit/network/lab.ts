/** Hosts in namespaces on one switch, for the root tests of this room. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { createNetNs, destroyNetNs, openNetNs } from "../../../src/kernel/netns.ts";
import { openRtnl } from "../../../src/kernel/rtnl.ts";
import { writeSysctl } from "../../../src/kernel/sysctl.ts";
import type { NetNs } from "../../../src/kernel/types.ts";

export interface TestHost {
  readonly name: string;
  readonly address: string;
  readonly netnsDir: string;
  call<T = unknown>(method: string, ...args: unknown[]): Promise<T>;
  /** Duration of the last call inside the host, ms. */
  lastMs: number;
  /** Runs a command in the host's namespace, or in one pinned by it. Never rejects. */
  run(command: string, pin?: string): Promise<{ code: number; out: string }>;
  kill(): Promise<void>;
  signal(name: NodeJS.Signals): void;
  start(): Promise<void>;
}

export interface TestLab extends AsyncDisposable {
  readonly hosts: TestHost[];
  readonly dir: string;
  /** In the switch's namespace, which has 10.98.0.254: an outside client. */
  client(command: string): Promise<{ code: number; out: string }>;
}

const program = new URL("./host.ts", import.meta.url).pathname;

export async function testLab(names: string[], tag: string): Promise<TestLab> {
  const dir = mkdtempSync(join(tmpdir(), `nw-${tag}-`));
  const pins = join(dir, "hosts");
  mkdirSync(pins);
  const resolvConf = join(dir, "resolv.conf");
  writeFileSync(resolvConf, "");
  const sw = createNetNs(join(pins, "switch"));
  using rtnl = openRtnl(sw);
  const bridge = rtnl.addLink({ kind: "bridge", name: "sw", up: true });
  rtnl.addAddr(bridge.index, "10.98.0.254", 24);
  const hosts = names.map((name, index) => {
    const ns = createNetNs(join(pins, name));
    const address = `10.98.0.${index + 1}`;
    rtnl.addLink({
      kind: "veth",
      name,
      master: bridge.index,
      up: true,
      peer: { name: "eth0", ns, up: true },
    });
    using inside = openRtnl(ns);
    const eth0 = inside.link("eth0");
    if (!eth0) throw new Error("no eth0");
    inside.addAddr(eth0.index, address, 24);
    inside.setRoute({ dst: "default", gateway: "10.98.0.254", link: eth0.index });
    return host(name, address, ns, dir, resolvConf);
  });
  writeSysctl("net.ipv4.ip_forward", 1, sw);
  for (const one of hosts) await one.start();
  return {
    hosts,
    dir,
    client: (command) => runIn(sw, command),
    async [Symbol.asyncDispose]() {
      for (const one of hosts) {
        await one.kill();
        for (const pin of listPins(one.netnsDir)) destroyNetNs(join(one.netnsDir, pin));
        destroyNetNs(join(pins, one.name));
      }
      sw[Symbol.dispose]();
      destroyNetNs(join(pins, "switch"));
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

const listPins = (path: string) => (existsSync(path) ? readdirSync(path) : []);

function runIn(ns: NetNs, command: string): Promise<{ code: number; out: string }> {
  return new Promise((resolve) => {
    ns.run(() => {
      execFile("sh", ["-c", command], { timeout: 20_000 }, (error, stdout, stderr) => {
        resolve({ code: error ? Number(error.code ?? 1) : 0, out: stdout + stderr });
      });
    });
  });
}

function host(name: string, address: string, ns: NetNs, dir: string, resolvConf: string): TestHost {
  const netnsDir = join(dir, `${name}-netns`);
  let child: ChildProcess | undefined;
  let next = 1;
  const waiting = new Map<number, (message: { result?: unknown; error?: string; ms?: number }) => void>();
  const self: TestHost = {
    name,
    address,
    netnsDir,
    lastMs: 0,
    async start() {
      const args = [program, join(dir, `${name}-state`), netnsDir, resolvConf];
      const made = ns.run(() => spawn(process.execPath, args, { stdio: ["pipe", "pipe", "pipe"] }));
      child = made;
      made.stderr?.on("data", (chunk) => {
        if (process.env.NW_DEBUG) process.stderr.write(`[${name}] ${chunk}`);
      });
      const ready = Promise.withResolvers<void>();
      createInterface({ input: made.stdout as NodeJS.ReadableStream }).on("line", (line) => {
        const message = JSON.parse(line);
        if (message.ready) ready.resolve();
        else waiting.get(message.id)?.(message);
      });
      made.once("exit", (code, signal) => {
        ready.reject(new Error(`host ${name} ended: ${code ?? signal}`));
        for (const settle of waiting.values()) settle({ error: `host ${name} ended` });
        waiting.clear();
      });
      await ready.promise;
    },
    call<T>(method: string, ...args: unknown[]) {
      return new Promise<T>((resolve, reject) => {
        const id = next++;
        waiting.set(id, (message) => {
          waiting.delete(id);
          self.lastMs = message.ms ?? 0;
          if (message.error !== undefined) reject(new Error(message.error));
          else resolve(message.result as T);
        });
        child?.stdin?.write(`${JSON.stringify({ id, method, args })}\n`);
      });
    },
    run(command, pin) {
      if (pin === undefined) return runIn(ns, command);
      const inner = openNetNs(join(netnsDir, pin));
      return runIn(inner, command).finally(() => inner[Symbol.dispose]());
    },
    signal(name) {
      child?.kill(name);
    },
    kill() {
      return new Promise((resolve) => {
        if (!child || child.exitCode !== null || child.signalCode !== null) return resolve();
        child.once("exit", () => resolve());
        child.kill("SIGKILL");
      });
    },
  };
  return self;
}

/** Polls until `check` gives something. */
export async function eventually<T>(check: () => Promise<T | undefined | false>, ms = 8000): Promise<T> {
  const end = Date.now() + ms;
  for (;;) {
    const result = await check();
    if (result !== undefined && result !== false) return result;
    if (Date.now() > end) throw new Error("it did not happen in time");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** A whole skeind as a worker in a swarm whose manager is a real dockerd: containers, networks, logs, updates. */
import assert from "node:assert/strict";
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { archiveOf } from "../../src/lab/image/library.ts";
import { Dockerd, dockerdMissing, eventually } from "./support/dockerd.ts";

const run = promisify(execFile);
const root = fileURLToPath(new URL("../..", import.meta.url));
const ns = "tg-skein";
const bridge = "tg-bridge";
const link = "tg-link";
const host = "tg-skein";

/** Our daemon in a namespace of its own, with a /run that nobody else sees. */
class Skeind implements AsyncDisposable {
  readonly dir = mkdtempSync(join(tmpdir(), "tg-"));
  #child: ChildProcess | undefined;

  async start(): Promise<void> {
    const ip = (...args: string[]) => execFileSync("ip", args);
    ip("netns", "add", ns);
    ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", ns);
    ip("link", "set", link, "master", bridge, "up");
    ip("-n", ns, "link", "set", "lo", "up");
    ip("-n", ns, "addr", "add", "10.211.9.3/24", "dev", "eth0");
    ip("-n", ns, "link", "set", "eth0", "up");
    const log = openSync(join(this.dir, "log"), "a");
    const options = `-D -H unix://${this.dir}/sock --data-root ${this.dir}/data --run-dir /run/skein --cgroup-parent /tg --hostname ${host}`;
    const script = `mount --make-rprivate /; mount -t tmpfs tmpfs /run; exec ${root}/bin/skeind ${options}`;
    this.#child = spawn("nsenter", [`--net=/run/netns/${ns}`, "unshare", "-m", "sh", "-c", script], {
      stdio: ["ignore", log, log],
    });
    await eventually("skeind answers", async () => (await this.docker("version")) !== "");
  }

  async docker(...args: string[]): Promise<string> {
    const { stdout } = await run("docker", ["-H", `unix://${this.dir}/sock`, ...args], { timeout: 30_000 });
    return stdout.trim();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.docker("swarm", "leave").catch(() => {});
    const child = this.#child;
    if (child && child.exitCode === null) {
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      await ended;
    }
    execFileSync("sh", ["-c", `ip netns del ${ns} 2>/dev/null; ip link del ${link} 2>/dev/null; true`]);
    rmSync(this.dir, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
  }
}

describe("skeind as a worker of a real dockerd", { skip: dockerdMissing() ?? false, timeout: 240_000 }, () => {
  let manager: Dockerd;
  let worker: Skeind;
  const states = async (service: string) =>
    (
      await manager.docker(
        "service",
        "ps",
        "--no-trunc",
        "--format",
        "{{.DesiredState}} {{.CurrentState}} {{.Error}}",
        service,
      )
    ).split("\n");
  const allRunning = (service: string, count: number) =>
    eventually(`${count} tasks of ${service} run`, async () => {
      const wanted = (await states(service)).filter((line) => line.startsWith("Running "));
      return wanted.length === count && wanted.every((line) => line.startsWith("Running Running"));
    });

  before(async () => {
    execFileSync("sh", ["-c", `ip link del ${bridge} 2>/dev/null; ip netns del ${ns} 2>/dev/null; true`]);
    execFileSync("ip", ["link", "add", bridge, "type", "bridge"]);
    execFileSync("ip", ["link", "set", bridge, "up"]);
    manager = new Dockerd("tg", "10.211.9", { bridge });
    worker = new Skeind();
    const archive = await archiveOf(join(root, ".cache", "images"), "basic");
    await Promise.all([manager.start(), worker.start()]);
    await Promise.all([manager.docker("load", "-q", "-i", archive), worker.docker("load", "-q", "-i", archive)]);
    await manager.docker("swarm", "init", "--advertise-addr", manager.address);
    const token = await manager.docker("swarm", "join-token", "-q", "worker");
    await worker.docker("swarm", "join", "--token", token, `${manager.address}:2377`);
  });

  after(async () => {
    await worker[Symbol.asyncDispose]();
    await manager[Symbol.asyncDispose]();
    execFileSync("sh", ["-c", `ip link del ${bridge} 2>/dev/null; true`]);
  });

  it("runs tasks with secrets, templates and health, and hands over their logs", async () => {
    const secret = join(worker.dir, "secret");
    execFileSync("sh", ["-c", `echo hush > ${secret}`]);
    await manager.docker("secret", "create", "s1", secret);
    await manager.docker("network", "create", "-d", "overlay", "--attachable", "net1");
    await manager.docker(
      ...[
        "service",
        "create",
        "--detach",
        "--no-resolve-image",
        "--name",
        "web",
        "--replicas",
        "2",
        "--network",
        "net1",
      ],
      ...[
        "--secret",
        "s1",
        "--env",
        "WHERE={{.Node.Hostname}}/{{.Task.Slot}}",
        "--constraint",
        `node.hostname==${host}`,
      ],
      ...["--health-cmd", "true", "--health-interval", "500ms", "--stop-signal", "SIGKILL", "alpine:latest"],
      ...["sh", "-c", "cat /run/secrets/s1; echo $WHERE; exec sleep 1000"],
    );
    await allRunning("web", 2);
    const logs = await eventually("both tasks have spoken", async () => {
      const text = await manager.docker("service", "logs", "web");
      return text.includes(`${host}/1`) && text.includes(`${host}/2`) ? text : undefined;
    });
    assert.equal(logs.match(/\| hush$/gm)?.length, 2);
  });

  it("is found by name from a container beside the manager, and finds it", async () => {
    const out = await manager.docker(
      ...["run", "--rm", "--network", "net1", "alpine:latest", "sh", "-c"],
      "nslookup tasks.web; ping -c 1 -W 3 tasks.web",
    );
    assert.equal(out.match(/^Address: 10\.0\.1\.\d+$/gm)?.length, 2);
    assert.match(out, / 0% packet loss/);
    await manager.docker("run", "-d", "--name", "beside", "--network", "net1", "alpine:latest", "sleep", "1000");
    const task = (await worker.docker("ps", "-q")).split("\n")[0] ?? "";
    await eventually("the task reaches the manager's container by name", async () =>
      (await worker.docker("exec", task, "ping", "-c", "1", "-W", "2", "beside")).includes(" 0% packet loss"),
    );
    await manager.docker("rm", "-f", "beside");
  });

  it("follows an update, tells exit codes, and is drained", async () => {
    await manager.docker("service", "update", "--detach", "--quiet", "--no-resolve-image", "--env-add", "NEW=1", "web");
    await eventually(
      "the update is over",
      async () =>
        (await manager.docker("service", "inspect", "--format", "{{.UpdateStatus.State}}", "web")) === "completed",
      60_000,
    );
    await allRunning("web", 2);
    await manager.docker(
      ...["service", "create", "--detach", "--no-resolve-image", "--name", "bad", "--restart-condition", "none"],
      ...["--constraint", `node.hostname==${host}`, "alpine:latest", "sh", "-c", "exit 7"],
    );
    await eventually("the exit code is told", async () =>
      (await states("bad")).some((line) => line.includes("task: non-zero exit (7)")),
    );
    await manager.docker("node", "update", "--availability", "drain", host);
    await eventually("nothing runs here", async () => (await worker.docker("ps", "-q")) === "", 30_000);
    await manager.docker("service", "rm", "web", "bad");
    await eventually("nothing is left here", async () => (await worker.docker("ps", "-aq")) === "", 30_000);
  });
});

/**
 * A real dockerd as a worker of our manager: it joins, becomes ready, runs a service's tasks, is drained and leaves.
 * Needs root, dockerd 20.10 and the docker CLI. Everything it makes is named mg-*.
 */
import assert from "node:assert/strict";
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { create } from "@bufbuild/protobuf";
import { LogSubscriptionOptionsSchema } from "#proto/docker/swarmkit/logbroker_pb.js";
import {
  ClusterSpecSchema,
  NetworkSpecSchema,
  NodeSpec_Availability,
  ServiceSpecSchema,
} from "#proto/docker/swarmkit/specs_pb.js";
import { NodeStatus_State, TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { systemClock } from "../../src/base/clock.ts";
import { createLogger } from "../../src/base/log.ts";
import { issuerOf } from "../../src/swarm/ca/certificates.ts";
import { bootstrapCluster, startManager } from "../../src/swarm/manager/manager.ts";
import type { Manager, ManagerOptions } from "../../src/swarm/manager/types.ts";

const NS = "mg-w1";
const LINK = "mg-m0";
const HOST_IP = "10.254.77.1";
const WORKER_IP = "10.254.77.2";
const root = process.getuid?.() === 0;

let dir = "";
let dockerd: ChildProcess | undefined;
let manager: Manager | undefined;

const run = (command: string, ...args: string[]) =>
  execFileSync(command, args, { stdio: ["ignore", "pipe", "pipe"] }).toString();
/** The manager lives in this process: whoever waits for dockerd must not block it. */
const docker = async (...args: string[]) =>
  (await promisify(execFile)("/usr/bin/docker", ["-H", `unix://${dir}/docker.sock`, ...args])).stdout;
const quietly = (command: string, ...args: string[]) => {
  try {
    run(command, ...args);
  } catch {
    // It was not there.
  }
};

async function until<T>(
  what: string,
  seconds: number,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<T> {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`${what} did not happen within ${seconds} s`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

/** A root file system with busybox and what it is linked with. */
function busyboxTar(): string {
  const rootfs = join(dir, "rootfs");
  const copy = (path: string) => {
    mkdirSync(dirname(join(rootfs, path)), { recursive: true });
    copyFileSync(path, join(rootfs, path));
  };
  copy("/bin/busybox");
  for (const [, path] of run("ldd", "/bin/busybox").matchAll(/(\/\S+\.so\S*)/g)) if (path) copy(path);
  for (const applet of ["sh", "sleep", "echo"]) symlinkSync("/bin/busybox", join(rootfs, "bin", applet));
  const tar = join(dir, "busybox.tar");
  run("tar", "-C", rootfs, "-cf", tar, ".");
  return tar;
}

function startDockerd(): ChildProcess {
  const log = openSync(join(dir, "dockerd.log"), "a");
  const daemon = [
    "exec /usr/sbin/dockerd",
    `--data-root ${dir}/data --exec-root ${dir}/exec --pidfile ${dir}/docker.pid -H unix://${dir}/docker.sock`,
    "--storage-driver vfs",
  ].join(" ");
  // No name server: dockerd gives up on the registry at once and takes the image it has.
  const script = `mount -t tmpfs tmpfs /run && mount --bind /dev/null /etc/resolv.conf && ${daemon}`;
  const args = [`--net=/run/netns/${NS}`, "unshare", "-m", "sh", "-c", script];
  return spawn("nsenter", args, { stdio: ["ignore", log, log] });
}

const options = (): ManagerOptions => ({
  stateDir: join(dir, "swarm"),
  listenAddr: `${HOST_IP}:2377`,
  advertiseAddr: `${HOST_IP}:2377`,
  log: createLogger((line) => process.env.MG_VERBOSE && console.log(line), "debug"),
  clock: systemClock,
});

before(async () => {
  if (!root) return;
  dir = mkdtempSync(join(tmpdir(), "mg-"));
  quietly("ip", "netns", "del", NS);
  quietly("ip", "link", "del", LINK);
  run("ip", "netns", "add", NS);
  run("ip", "link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", NS);
  run("ip", "addr", "add", `${HOST_IP}/24`, "dev", LINK);
  run("ip", "link", "set", LINK, "up");
  run("ip", "-n", NS, "addr", "add", `${WORKER_IP}/24`, "dev", "eth0");
  run("ip", "-n", NS, "link", "set", "eth0", "up");
  run("ip", "-n", NS, "link", "set", "lo", "up");
  run("ip", "-n", NS, "route", "add", "default", "via", HOST_IP);
  dockerd = startDockerd();
  await bootstrapCluster(join(dir, "swarm"));
  manager = await startManager({
    ...options(),
    bootstrap: {
      clusterSpec: create(ClusterSpecSchema),
      defaultAddressPool: [],
      subnetSize: 0,
      dataPathPort: 0,
      forceNewCluster: false,
    },
  });
});

after(async () => {
  if (!root) return;
  await manager?.close();
  if (dockerd?.exitCode === null) {
    const gone = new Promise((done) => dockerd?.once("exit", done));
    dockerd.kill("SIGTERM");
    await gone;
  }
  quietly("ip", "link", "del", LINK);
  quietly("ip", "netns", "del", NS);
  // dockerd leaves namespaces of overlay networks mounted below its exec root when the swarm was not left.
  for (const line of readFileSync("/proc/self/mounts", "utf8").split("\n").reverse()) {
    const target = line.split(" ")[1];
    if (target?.startsWith(`${dir}/`)) quietly("umount", "-l", target);
  }
  if (!process.env.MG_KEEP) rmSync(dir, { recursive: true, force: true });
});

test("a real dockerd joins as a worker, runs tasks, is drained and leaves", {
  skip: !root,
  timeout: 180_000,
}, async () => {
  assert.ok(manager);
  let { control } = manager;
  await until("dockerd", 30, async () => {
    try {
      return await docker("version");
    } catch {
      return undefined;
    }
  });
  await docker("import", busyboxTar(), "mg-busybox:1");

  const token = control.cluster().rootCa?.joinTokens?.worker;
  assert.ok(token);
  await assert.rejects(
    docker("swarm", "join", "--token", `${token.slice(0, -4)}0000`, `${HOST_IP}:2377`),
    /A valid join token is necessary to join this cluster/,
  );
  const joining = Date.now();
  assert.match(await docker("swarm", "join", "--token", token, `${HOST_IP}:2377`), /joined a swarm as a worker/);
  const node = await until("the worker's readiness", 10, () =>
    control.nodes().find(({ status }) => status?.state === NodeStatus_State.READY),
  );
  console.log(`joined and ready in ${Date.now() - joining} ms`);
  assert.equal(node.status?.addr, WORKER_IP);
  assert.ok(node.description?.hostname);
  assert.match(
    await docker("info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.NodeID}}"),
    new RegExp(`active ${node.id}`),
  );
  await until("the ingress address", 5, () => control.node(node.id)?.attachments.length === 1);

  const network = await control.createNetwork(
    create(NetworkSpecSchema, { annotations: { name: "mg-net" }, driverConfig: { name: "overlay" }, attachable: true }),
  );
  const specOf = (replicas: bigint, text: string) =>
    create(ServiceSpecSchema, {
      annotations: { name: "mg-web" },
      mode: { case: "replicated", value: { replicas } },
      task: {
        runtime: {
          case: "container",
          value: {
            image: "mg-busybox:1",
            command: ["sh", "-c", "echo hello; exec sleep 1000"],
            env: [`TEXT=${text}`],
            stopGracePeriod: { seconds: 1n },
          },
        },
        networks: [{ target: "mg-net" }],
      },
      endpoint: { ports: [{ targetPort: 80, publishedPort: 0 }] },
    });
  const creating = Date.now();
  let service = await control.createService(specOf(2n, "one"));
  const wanted = () =>
    control.tasks().filter((task) => task.serviceId === service.id && task.desiredState <= TaskState.RUNNING);
  const running = (count: number) => () => {
    const tasks = wanted();
    return tasks.length === count && tasks.every((task) => task.status?.state === TaskState.RUNNING) && tasks;
  };
  const explain = () =>
    JSON.stringify(control.tasks().map((task) => [task.status?.state, task.status?.message, task.status?.err]));
  const first = await until("two running tasks", 40, running(2)).catch((error) => {
    throw new Error(`${error.message}: ${explain()}`);
  });
  console.log(`two tasks running in ${Date.now() - creating} ms`);
  assert.equal(control.network(network.id)?.ipam?.configs[0]?.subnet, "10.0.1.0/24");
  const endpoint = control.service(service.id)?.endpoint;
  assert.equal(endpoint?.virtualIps.length, 2);
  assert.equal(endpoint?.ports[0]?.publishedPort, 30000);
  const [task] = first;
  assert.ok(task);
  const containerId =
    task.status?.runtimeStatus.case === "container" ? task.status.runtimeStatus.value.containerId : "";
  assert.equal((await docker("inspect", "--format", "{{.State.Running}}", containerId)).trim(), "true");
  const addresses = await docker(
    "inspect",
    "--format",
    "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}",
    containerId,
  );
  const own = task.networks.find((attachment) => attachment.network?.id === network.id)?.addresses[0]?.split("/")[0];
  assert.ok(own && addresses.includes(own), `${addresses} has ${own}`);

  await assert.rejects(control.removeNetwork(network.id), /is in use by service/);

  // A container killed behind our back is replaced.
  await docker("kill", containerId);
  await until("the replacement", 30, () => {
    const tasks = running(2)();
    return tasks ? tasks.every(({ id }) => id !== task.id) : undefined;
  });

  // An update rolls through.
  service = control.service(service.id) ?? service;
  await control.updateService(service.id, service.meta?.version?.index ?? 0n, specOf(2n, "two"), false);
  await until("the update", 60, () => control.service(service.id)?.updateStatus?.message === "update completed");
  assert.ok(running(2)());

  const logs = await Array.fromAsync(
    control.logs(
      { serviceIds: [service.id], nodeIds: [], taskIds: [] },
      create(LogSubscriptionOptionsSchema, { follow: false, tail: 0n }),
      AbortSignal.timeout(10_000),
    ),
  );
  const lines = logs.map((message) => new TextDecoder().decode(message.data).trim());
  assert.ok(lines.length >= 2 && lines.every((line) => line === "hello"), JSON.stringify(lines));

  // The manager starts again: the worker comes back, nothing was restarted.
  const before = wanted().map(({ id }) => id);
  await manager.close();
  manager = await startManager(options());
  control = manager.control;
  await until("the worker's return", 30, () => control.node(node.id)?.status?.state === NodeStatus_State.READY);
  assert.deepEqual(
    wanted()
      .map(({ id }) => id)
      .sort(),
    before.sort(),
  );
  assert.ok(running(2)());

  // A new root CA: the worker renews its certificate and shows it.
  const cluster = control.cluster();
  assert.ok(cluster.spec?.caConfig);
  const rotated = { ...cluster.spec, caConfig: { ...cluster.spec.caConfig, forceRotate: 1n } };
  const none = { worker: false, manager: false, unlockKey: false };
  await control.updateCluster(cluster.meta?.version?.index ?? 0n, rotated, none);
  const newRoot = new TextDecoder().decode(control.cluster().rootCa?.rootRotation?.caCert);
  const { publicKey } = issuerOf(newRoot);
  const issuerKey = () => control.node(node.id)?.description?.tlsInfo?.certIssuerPublicKey ?? new Uint8Array();
  await until("the worker's new certificate", 40, () => Buffer.compare(issuerKey(), publicKey) === 0);
  assert.ok(running(2)());

  // Drained: its tasks end and wait for a node, and say what for.
  const drained = control.node(node.id);
  assert.ok(drained?.spec);
  await control.updateNode(node.id, drained.meta?.version?.index ?? 0n, {
    ...drained.spec,
    availability: NodeSpec_Availability.DRAIN,
  });
  await until("the drain", 30, async () => (await docker("ps", "-q")).trim() === "");
  await until("the reason", 5, () => wanted().every(({ status }) => status?.err.startsWith("no suitable node (")));
  await assert.rejects(control.removeNode(node.id, false), /is not down and can't be removed/);

  await control.removeService(service.id);
  await until("the removal of the tasks", 20, () => control.tasks().length === 0);
  await control.removeNetwork(network.id);

  await docker("swarm", "leave");
  await until("the loss of the node", 30, () => control.node(node.id)?.status?.state === NodeStatus_State.DOWN);
  await control.removeNode(node.id, false);
  assert.equal(control.node(node.id), undefined);
});

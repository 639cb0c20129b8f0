import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ContainerSpecSchema } from "#proto/docker/swarmkit/specs_pb.js";
import { networkCreate } from "../../../src/engine/shapes.ts";
import { taskAttachments } from "../../../src/engine/swarm/attachments.ts";
import { checkMounts, containerCreate } from "../../../src/engine/swarm/container.ts";
import { fromNetworkCreate } from "../../../src/engine/swarm/network-spec.ts";
import { registryAuth, timestampOf } from "../../../src/engine/swarm/task-io.ts";
import { makeTask } from "./host.ts";

const spec = (init: object = {}) => create(ContainerSpecSchema, { image: "nginx", ...init });
const made = (container: object = {}, task = makeTask()) =>
  containerCreate(task, spec(container), { attachments: [], files: [] });

test("endpoints of a task: the user's network first, VIPs plain, ingress ports on ingress only", () => {
  const attachments = taskAttachments(makeTask(), new Map([["netid", "10.0.1.3/24"]]));
  assert.deepEqual(
    attachments.map(({ network, lbAddress, request }) => [network.name, lbAddress, request.ipv4, request.name]),
    [
      ["net1", "10.0.1.3/24", "10.0.1.5/24", "web.1.task1"],
      ["ingress", undefined, "10.0.0.9/24", "web.1.task1"],
    ],
  );
  const [own, ingress] = attachments;
  assert.deepEqual(own?.request.service, {
    id: "svc1",
    name: "web",
    vip: "10.0.1.2",
    aliases: ["www"],
    ingressPorts: [],
  });
  assert.deepEqual(ingress?.request.service?.ingressPorts, [
    { name: "", protocol: "tcp", targetPort: 80, publishedPort: 8080 },
  ]);
  assert.deepEqual(own?.network.ipam.config, [{ subnet: "10.0.1.0/24", gateway: "10.0.1.1" }]);
  assert.equal(own?.network.options["com.docker.network.driver.overlay.vxlanid_list"], "4097");
});

test("a network named twice is one", () => {
  const { networks } = makeTask();
  const twice = makeTask({ networks: [...networks, ...networks] });
  assert.deepEqual(taskAttachments(twice, new Map()), taskAttachments(makeTask(), new Map()));
});

test("bridge and host are chosen by network mode, not attached; with the host's there is no other", () => {
  const host = {
    network: {
      id: "h",
      spec: { annotations: { name: "host", labels: { "com.docker.swarm.predefined": "true" } } },
      driverState: { name: "host" },
    },
  };
  const predefined = makeTask({ networks: [host] });
  const [own, ingress] = ["net1", "ingress"].map((name) =>
    makeTask().networks.find(({ network }) => network?.spec?.annotations?.name === name),
  );
  assert.ok(own && ingress);
  assert.throws(() => taskAttachments(makeTask({ networks: [host, own] }), new Map()), /sharing network namespace/);
  assert.throws(() => taskAttachments(makeTask({ networks: [host, ingress] }), new Map()), /disconnected from host/);
  assert.deepEqual(taskAttachments(predefined, new Map()), []);
  assert.equal(made({}, predefined).hostConfig.NetworkMode, "host");
  assert.equal(made().hostConfig.NetworkMode, "default");
});

test("the container of a task: name, labels, command, ports, limits", () => {
  const task = makeTask({
    spec: {
      runtime: { case: "container", value: { image: "nginx" } },
      resources: { limits: { nanoCpus: 5n, memoryBytes: 1000n }, swapBytes: 24n },
      placement: { platforms: [{ os: "linux", architecture: "amd64" }] },
    },
    logDriver: { name: "local", options: { "max-size": "1m" } },
    assignedGenericResources: [
      { resource: { case: "namedResourceSpec", value: { kind: "gpu", value: "a" } } },
      { resource: { case: "namedResourceSpec", value: { kind: "gpu", value: "b" } } },
    ],
  });
  const { name, config, hostConfig, platform } = made(
    {
      labels: { "com.docker.swarm.task.id": "forged", mine: "1" },
      args: ["sleep", "1"],
      env: ["A=1"],
      stopGracePeriod: { seconds: 2n, nanos: 1 },
      hosts: ["1.1.1.1 a b", "broken"],
      healthcheck: { test: ["CMD", "x"], interval: { seconds: 3n }, retries: 2 },
      privileges: { noNewPrivileges: true, seccomp: { mode: 1 } },
      init: true,
      pidsLimit: 9n,
    },
    task,
  );
  assert.equal(name, "web.1.task1");
  assert.equal(platform, "linux/amd64");
  assert.deepEqual(
    { ...config.Labels },
    {
      mine: "1",
      "com.docker.swarm.task": "",
      "com.docker.swarm.task.id": "task1",
      "com.docker.swarm.task.name": "web.1.task1",
      "com.docker.swarm.node.id": "node1",
      "com.docker.swarm.service.id": "svc1",
      "com.docker.swarm.service.name": "web",
    },
  );
  assert.deepEqual([config.Entrypoint, config.Cmd, config.StopTimeout], [undefined, ["sleep", "1"], 3]);
  assert.deepEqual(config.Env, ["A=1", "DOCKER_RESOURCE_GPU=a,b"]);
  assert.equal(config.Healthcheck?.Interval, 3e9);
  assert.deepEqual({ ...hostConfig.PortBindings }, { "53/udp": [{ HostIp: "", HostPort: "5353" }] });
  assert.deepEqual(hostConfig.ExtraHosts, ["a:1.1.1.1", "b:1.1.1.1"]);
  assert.deepEqual(hostConfig.SecurityOpt, ["seccomp=unconfined", "no-new-privileges=true"]);
  assert.deepEqual(
    [hostConfig.Memory, hostConfig.MemorySwap, hostConfig.NanoCpus, hostConfig.PidsLimit, hostConfig.Init],
    [1000, 1024, 5, 9, true],
  );
  assert.deepEqual([hostConfig.LogConfig.Type, hostConfig.LogConfig.Config["max-size"]], ["local", "1m"]);
});

test("a command replaces the entrypoint", () => {
  const { config } = made({ command: ["/bin/a"], args: ["b"] });
  assert.deepEqual([config.Entrypoint, config.Cmd], [["/bin/a"], ["b"]]);
});

test("mounts are checked before anything is made", () => {
  const check =
    (...mounts: object[]) =>
    () =>
      checkMounts(spec({ mounts }).mounts);
  assert.throws(
    check({ type: 0, source: "rel", target: "/a" }),
    /invalid bind mount source, must be an absolute path: rel/,
  );
  assert.throws(check({ type: 1, source: "/abs", target: "/a" }), /invalid volume mount source/);
  assert.throws(check({ type: 2, source: "x", target: "/a" }), /invalid tmpfs source, source must be empty/);
  assert.throws(check({ type: 1, target: "a" }), /invalid mount target/);
  assert.throws(check({ type: 1, target: "/a" }, { type: 1, target: "/a" }), /duplicate mount point: \/a/);
  assert.throws(() => made({ mounts: [{ type: 4, source: "v", target: "/a" }] }), /invalid mount type: cluster/);
});

test("network create: host bits, and what is refused", () => {
  const parse = (json: object) => fromNetworkCreate(networkCreate({ Name: "n", Driver: "overlay", ...json }, ""));
  const network = parse({
    Attachable: true,
    IPAM: { Config: [{ Subnet: "172.19.0.1/24", Gateway: "172.19.0.9", IPRange: "172.19.0.0/28" }] },
    Options: { "com.docker.network.driver.mtu": "1400" },
    Labels: { a: "b" },
  });
  assert.deepEqual(
    network.ipam?.configs.map(({ subnet, range, gateway }) => [subnet, range, gateway]),
    [["172.19.0.1/24", "172.19.0.0/28", "172.19.0.9"]],
  );
  assert.equal(network.ipam?.driver?.name, "default");
  assert.equal(network.attachable, true);
  assert.throws(
    () => parse({ Options: { encrypted: "" } }),
    (error: { status?: number }) => error.status === 501,
  );
  assert.throws(() => parse({ Name: "host" }), /host is a pre-defined network and cannot be created/);
  assert.throws(() => parse({ EnableIPv4: false }), /without IPv4/);
});

test("credentials and times", () => {
  const encoded = Buffer.from(JSON.stringify({ username: "u", password: "p", Extra: 1 })).toString("base64url");
  assert.deepEqual(registryAuth(encoded), { username: "u", password: "p" });
  assert.equal(registryAuth("%%%"), undefined);
  const { seconds, nanos } = timestampOf("2026-01-02T03:04:05.000000007Z");
  assert.deepEqual([seconds, nanos], [1767323045n, 7]);
});

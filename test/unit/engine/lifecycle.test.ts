import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { SkeinError, unavailable } from "../../../src/base/errors.ts";
import { volumeCreate } from "../../../src/engine/shapes.ts";
import { request, settle, type TestHost, testHost } from "./fakes.ts";

const start = async (host: TestHost, fields: Parameters<typeof request>[0] = {}) => {
  const { Id } = await host.engine.containers.create(request(fields));
  await host.engine.containers.start(Id);
  const process = host.runtime.processes.get(Id);
  assert.ok(process);
  return { id: Id, process };
};
const code = (wanted: string) => (error: unknown) => error instanceof SkeinError && error.code === wanted;

test("a container goes from created over running to exited, with Docker's configuration rules", async () => {
  await using host = await testHost();
  const { containers } = host.engine;
  const { Id } = await containers.create(request({ name: "/web", config: { Env: ["A=mine"], Cmd: ["sleep", "1"] } }));
  assert.equal(containers.state("web").status, "created");
  await containers.start("web");
  const spec = host.runtime.specs.get(Id);
  assert.deepEqual(spec?.args, ["sleep", "1"]);
  assert.deepEqual(spec?.env, ["PATH=/bin", `HOSTNAME=${Id.slice(0, 12)}`, "A=mine"]);
  assert.equal(spec?.hostname, Id.slice(0, 12));
  assert.ok(spec?.netnsPath);
  const { exit } = containers.wait(Id.slice(0, 12), "not-running");
  host.runtime.processes.get(Id)?.end(3);
  assert.deepEqual(await exit, { StatusCode: 3 });
  const state = containers.state("web");
  assert.equal(state.status, "exited");
  assert.equal(state.exitCode, 3);
  assert.equal(host.network.sandboxes.size, 0, "the sandbox is gone");
  await assert.rejects(containers.stop("web"), code("notModified"));
});

test("names are unique, and Docker's words say who holds one", async () => {
  await using host = await testHost();
  const { containers } = host.engine;
  const { Id } = await containers.create(request({ name: "a1" }));
  await assert.rejects(
    containers.create(request({ name: "a1" })),
    new RegExp(`Conflict. The container name "/a1" is already in use by container "${Id}"`),
  );
  await assert.rejects(containers.create(request({ name: "-x" })), /Invalid container name \(-x\)/);
  assert.throws(() => containers.state("nope"), /No such container: nope/);
  await containers.rename("a1", "b1");
  await containers.create(request({ name: "a1" }));
  await assert.rejects(containers.rename("a1", "b1"), /already in use/);
});

test("an unknown image is a 404 that makes the CLI pull, and leaves nothing", async () => {
  await using host = await testHost();
  await assert.rejects(
    host.engine.containers.create(request({ name: "x1", config: { Image: "nope" } })),
    (error) => error instanceof SkeinError && error.status === 404 && error.message === "No such image: nope:latest",
  );
  await host.engine.containers.create(request({ name: "x1" }));
});

test("where nothing can be written containers end, are stopped and removed all the same", async () => {
  await using host = await testHost();
  const { containers } = host.engine;
  const [ending, stopped] = [await start(host, { name: "ending" }), await start(host, { name: "stopped" })];
  const dir = join(host.root, "data/containers");
  for (const { id } of [ending, stopped]) {
    assert.ok(existsSync(join(dir, id)));
    rmSync(join(dir, id), { recursive: true });
    writeFileSync(join(dir, id), "no directory: nothing can be written into it");
  }
  const { exit } = containers.wait(ending.id, "not-running");
  ending.process.end(3);
  assert.deepEqual(await exit, { StatusCode: 3 });
  host.runtime.onSignal = (process) => process.end(143);
  await containers.stop(stopped.id);
  assert.equal(containers.state(stopped.id).status, "exited");
  for (const { id } of [ending, stopped]) await containers.remove(id, { force: false, volumes: false });
  assert.deepEqual(await containers.list({ all: true, size: false, filters: new Map() }), []);
});

test("stop sends the stop signal and, when the grace is over, SIGKILL", async () => {
  await using host = await testHost();
  const { id } = await start(host, { config: { StopSignal: "SIGUSR1" } });
  host.runtime.onSignal = (process, signal) => {
    if (signal === 9) process.end(137);
  };
  const stopping = host.engine.containers.stop(id, { timeout: 5 });
  await settle();
  assert.deepEqual(
    host.runtime.signals.map((s) => s.signal),
    [10],
  );
  await host.clock.advanceAsync(4_900);
  assert.equal(host.runtime.signals.length, 1);
  await host.clock.advanceAsync(200);
  await stopping;
  assert.deepEqual(
    host.runtime.signals.map((s) => s.signal),
    [10, 9],
  );
  assert.equal(host.engine.containers.state(id).exitCode, 137);
});

test("restart policies back off, count, and end when the user stops", async () => {
  await using host = await testHost();
  const { id, process } = await start(host, { host: { RestartPolicy: { Name: "always" } } });
  process.end(1);
  await settle();
  assert.equal(host.engine.containers.state(id).status, "restarting");
  await host.clock.advanceAsync(100);
  await settle();
  assert.equal(host.engine.containers.state(id).status, "running");
  host.runtime.processes.get(id)?.end(1);
  await settle();
  await host.clock.advanceAsync(199);
  assert.equal(host.engine.containers.state(id).status, "restarting", "the second wait is 200 ms");
  await host.clock.advanceAsync(1);
  await settle();
  assert.equal(host.engine.containers.state(id).status, "running");
  assert.equal((await host.engine.containers.inspect(id)).RestartCount, 2);
  await host.engine.containers.stop(id);
  await host.clock.advanceAsync(60_000);
  assert.equal(host.engine.containers.state(id).status, "exited");
});

test("on-failure gives up after its number of tries", async () => {
  await using host = await testHost();
  const { id, process } = await start(host, { host: { RestartPolicy: { Name: "on-failure", MaximumRetryCount: 1 } } });
  process.end(1);
  await settle();
  await host.clock.advanceAsync(100);
  await settle();
  host.runtime.processes.get(id)?.end(1);
  await settle();
  assert.equal(host.engine.containers.state(id).status, "exited");
});

test("--rm removes the container, its anonymous volumes and nothing else", async () => {
  await using host = await testHost();
  const { volumes } = host.engine;
  const { id, process } = await start(host, {
    config: { Volumes: { "/data": {} } },
    host: { AutoRemove: true, Binds: ["named:/keep"] },
  });
  assert.equal((await volumes.list(new Map())).Volumes.length, 2);
  const { exit } = host.engine.containers.wait(id, "removed");
  process.end(0);
  assert.deepEqual(await exit, { StatusCode: 0 });
  assert.throws(() => host.engine.containers.state(id), /No such container/);
  assert.deepEqual(
    (await volumes.list(new Map())).Volumes.map((v) => v.Name),
    ["named"],
  );
  assert.equal(existsSync(join(host.root, "data/containers", id)), false);
});

test("--rm while containerd is away: its layer goes when it is back", async () => {
  await using host = await testHost();
  const { id, process } = await start(host, { host: { AutoRemove: true } });
  let away = true;
  const remove = host.runtime.remove.bind(host.runtime);
  host.runtime.remove = async (one) => {
    if (away) throw unavailable("containerd does not answer");
    await remove(one);
  };
  process.end(0);
  await settle();
  assert.throws(() => host.engine.containers.state(id), /No such container/);
  away = false;
  await host.clock.advanceAsync(2_000);
  assert.deepEqual(host.runtime.removed, [id]);
});

test("a start that fails is told with its exit code and leaves no network behind", async () => {
  await using host = await testHost();
  host.runtime.failStart = new Error(
    'OCI runtime create failed: exec: "nope": executable file not found in $PATH: unknown',
  );
  const { Id } = await host.engine.containers.create(request());
  await assert.rejects(host.engine.containers.start(Id), code("invalid"));
  const state = host.engine.containers.state(Id);
  assert.equal(state.status, "created");
  assert.equal(state.exitCode, 127);
  assert.equal(host.network.sandboxes.size, 0);
});

test("a running container is removed only by force", async () => {
  await using host = await testHost();
  const { id } = await start(host, { name: "web" });
  await assert.rejects(
    host.engine.containers.remove(id, { force: false, volumes: false }),
    /cannot remove container "web": container is running: stop the container before removing or force remove/,
  );
  await host.engine.containers.remove(id, { force: true, volumes: false });
  assert.deepEqual(host.runtime.removed, [id]);
  await host.engine.containers.create(request({ name: "web" }));
});

test("after kill -9 what runs is adopted, what died is told, what nobody knows is swept", async () => {
  await using host = await testHost();
  const alive = await start(host, { name: "alive" });
  const dead = await start(host, { name: "dead" });
  const gone = await start(host, { name: "gone", host: { AutoRemove: true } });
  host.runtime.processes.delete(dead.id);
  host.runtime.processes.delete(gone.id);
  host.runtime.specs.set("stranger", { ...(host.runtime.specs.get(alive.id) ?? assert.fail()), id: "stranger" });
  await host.restart();
  const { containers } = host.engine;
  assert.equal(containers.state("alive").status, "running");
  assert.equal(containers.state("alive").pid, alive.process.pid);
  assert.equal(containers.state("dead").status, "exited");
  assert.equal(containers.state("dead").exitCode, 255);
  assert.throws(() => containers.state("gone"), /No such container/);
  assert.ok(host.runtime.removed.includes("stranger"));
  assert.deepEqual(host.network.alive, [alive.id]);
  alive.process.say("still here\n");
  alive.process.end(0);
  await settle();
  assert.equal(containers.state("alive").status, "exited");
  assert.match(
    readFileSync(join(host.root, "data/containers", alive.id, `${alive.id}-json.log`), "utf8"),
    /still here/,
  );
});

test("after kill -9 a container whose shim does not answer keeps nobody waiting, and is adopted when it does", async () => {
  await using host = await testHost();
  const sick = await start(host, { name: "sick" });
  const well = await start(host, { name: "well" });
  host.runtime.silent.add(sick.id);
  const { adopt } = host.runtime;
  host.runtime.adopt = async (id) => {
    if (host.runtime.silent.has(id)) throw unavailable("the shim does not answer");
    return await adopt(id);
  };
  const started = host.restart();
  for (let seconds = 0; seconds < 11; seconds++) await host.clock.advanceAsync(1_000);
  await started;
  const { containers } = host.engine;
  assert.deepEqual(new Set(host.network.alive), new Set([sick.id, well.id]), "its network is not taken away");
  assert.equal(containers.state("well").status, "running");
  assert.equal(containers.state("sick").status, "running");
  host.runtime.silent.delete(sick.id);
  await host.clock.advanceAsync(5_000);
  await settle();
  sick.process.end(3);
  await settle();
  assert.equal(containers.state("sick").exitCode, 3);
});

test("killed between a task and its own word of it: the task is ended, the container stays and can be started", async () => {
  await using host = await testHost();
  const { Id: id } = await host.engine.containers.create(request({ name: "web" }));
  await host.runtime.start(host.runtime.specs.get(id) ?? assert.fail());
  await host.restart();
  assert.equal(host.runtime.processes.has(id), false);
  assert.deepEqual(host.network.alive, []);
  assert.equal(host.engine.containers.state("web").status, "created");
  await host.engine.containers.start(id);
  assert.equal(host.engine.containers.state("web").status, "running");
});

test("killed in the middle of a restart by policy: the task is ended, the policy starts another one", async () => {
  await using host = await testHost();
  const { id, process } = await start(host, { host: { RestartPolicy: { Name: "always" } } });
  process.end(1);
  host.runtime.processes.delete(id);
  await settle();
  assert.equal(host.engine.containers.state(id).status, "restarting");
  const lost = await host.runtime.start(host.runtime.specs.get(id) ?? assert.fail());
  await host.restart();
  assert.equal(host.runtime.processes.has(id), false, "nobody knows of the first");
  await host.clock.advanceAsync(1);
  await settle();
  assert.equal(host.engine.containers.state(id).status, "running");
  assert.notEqual(host.runtime.processes.get(id)?.pid, lost.pid);
});

test("killed in the middle of a creation: neither the container nor its name stays", async () => {
  await using host = await testHost();
  host.runtime.create = async (spec) => {
    host.runtime.specs.set(spec.id, spec);
    await host.restart();
    throw new Error("the daemon is gone");
  };
  const making = host.engine.containers.create(request({ name: "web" }));
  await assert.rejects(making);
  assert.equal(host.runtime.removed.length > 0, true);
  assert.throws(() => host.engine.containers.state("web"), /No such container/);
  host.runtime.create = async () => {};
  await host.engine.containers.create(request({ name: "web" }));
});

test("killed in the middle of pause, unpause or commit: the container goes on, and its state says so", async () => {
  await using host = await testHost();
  const held = await start(host, { name: "held" });
  const thawed = await start(host, { name: "thawed" });
  const paused = await start(host, { name: "paused" });
  await host.engine.containers.pause("thawed");
  await host.engine.containers.pause("paused");
  await host.runtime.pause(held.id);
  await host.runtime.unpause(thawed.id);
  await host.restart();
  const { containers } = host.engine;
  assert.deepEqual([...host.runtime.paused], [paused.id]);
  assert.deepEqual(
    ["held", "thawed", "paused"].map((name) => containers.state(name).status),
    ["running", "running", "paused"],
  );
  await host.restart();
  assert.equal(host.engine.containers.state("thawed").status, "running", "it is on disk");
});

test("killed in the middle of network connect, disconnect or rename: what the record says is true", async () => {
  await using host = await testHost();
  const { id } = await start(host, { name: "web" });
  const [bridge] = host.network.sandboxEndpoints(id);
  assert.ok(bridge);
  await host.network.connect(id, { networkId: "half", name: "web", aliases: [], driverOptions: {} });
  await host.network.renameEndpoints(id, "other");
  await host.restart();
  assert.deepEqual(
    host.network.sandboxEndpoints(id).map(({ networkId, name }) => [networkId, name]),
    [[bridge.networkId, "web"]],
  );
});

test("a disconnection that fails leaves the record as it was; the record goes first", async () => {
  await using host = await testHost();
  const { id } = await start(host, { name: "web" });
  const file = join(host.root, "data/containers", id, "container.json");
  const networks = () => Object.keys(JSON.parse(readFileSync(file, "utf8")).networks);
  let seen: string[] = [];
  const { disconnect } = host.network;
  host.network.disconnect = async () => {
    seen = networks();
    throw new Error("kernel says no");
  };
  await assert.rejects(host.engine.containers.disconnect("web", "bridge", false), /kernel says no/);
  assert.deepEqual([seen, networks()], [[], ["bridge"]]);
  host.network.disconnect = disconnect;
  await host.engine.containers.disconnect("web", "bridge", false);
  assert.deepEqual(networks(), []);
});

test("killed in the middle of a volume's removal: its files come back in no volume", async () => {
  await using host = await testHost();
  const dir = join(host.root, "data/volumes");
  const { Mountpoint: path } = await host.engine.volumes.create(volumeCreate({ Name: "data" }, ""));
  writeFileSync(join(String(path), "old"), "");
  renameSync(join(dir, "data"), join(dir, ".removed-1"));
  await host.restart();
  assert.deepEqual(readdirSync(dir), []);
  await host.engine.volumes.create(volumeCreate({ Name: "data" }, ""));
  assert.deepEqual(readdirSync(String(path)), []);
  await host.engine.volumes.remove("data", false);
  assert.deepEqual(readdirSync(dir), []);
});

test("restart policies apply when the daemon starts", async () => {
  await using host = await testHost();
  const always = await start(host, { name: "always", host: { RestartPolicy: { Name: "always" } } });
  const stopped = await start(host, { name: "stopped", host: { RestartPolicy: { Name: "unless-stopped" } } });
  await host.engine.containers.stop(stopped.id);
  host.runtime.processes.clear();
  await host.restart();
  await host.clock.advanceAsync(1);
  await settle();
  assert.equal(host.engine.containers.state("always").status, "running");
  assert.equal(host.engine.containers.state("stopped").status, "exited");
  assert.notEqual(host.runtime.processes.get(always.id), always.process);
});

test("health: failures make it unhealthy, a success healthy, each change is an event", async () => {
  await using host = await testHost();
  const seen: string[] = [];
  host.engine.events.stream.on((event) => {
    if (event.action.startsWith("health_status")) seen.push(event.action);
  });
  let exitCode = 1;
  host.runtime.onExec = (process) => process.end(exitCode);
  const { id } = await start(host, {
    config: { Healthcheck: { Test: ["CMD", "probe"], Interval: 1e9, Timeout: 1e9, Retries: 2 } },
  });
  const round = async () => {
    await host.clock.advanceAsync(1000);
    await settle(10);
  };
  assert.equal(host.engine.containers.state(id).health, "starting");
  await round();
  assert.equal(host.engine.containers.state(id).health, "starting");
  await round();
  assert.equal(host.engine.containers.state(id).health, "unhealthy");
  exitCode = 0;
  await round();
  assert.equal(host.engine.containers.state(id).health, "healthy");
  assert.deepEqual(seen, ["health_status: unhealthy", "health_status: healthy"]);
});

test("options that Skein does not do are refused by name", async () => {
  await using host = await testHost();
  const refused = (fields: Parameters<typeof request>[0], message: RegExp) =>
    assert.rejects(host.engine.containers.create(request(fields)), message);
  await refused({ host: { DeviceRequests: [{}] } }, /does not support DeviceRequests/);
  await refused({ host: { UsernsMode: "remap" } }, /does not support UsernsMode/);
  await refused({ host: { RestartPolicy: { Name: "sometimes" } } }, /unknown policy 'sometimes'/);
  await refused({ host: { Memory: 1024 } }, /Minimum memory limit allowed is 6MB/);
  await refused({ host: { Binds: ["a/b:/c"] } }, /invalid characters for a local volume name/);
  await refused({ host: { NetworkMode: "bridge" }, networks: { bridge: { Aliases: ["x"] } } }, /user-defined networks/);
});

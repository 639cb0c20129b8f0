import assert from "node:assert/strict";
import { request } from "node:http";
import { test } from "node:test";
import { NodeStatus_State, TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { createUnframer } from "../../../src/api/http/stdcopy.ts";
import { startFake } from "./server.ts";

interface Answer {
  status: number;
  headers: Record<string, unknown>;
  body: Buffer;
  json: unknown;
}

function call(
  path: string,
  method: string,
  url: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const payload = body === undefined ? undefined : JSON.stringify(body);
    const sent = request(
      {
        socketPath: path,
        method,
        path: url,
        headers: { ...(payload && { "content-type": "application/json" }), ...headers },
      },
      (response) => {
        const parts: Buffer[] = [];
        response.on("data", (part) => parts.push(part));
        response.on("end", () => {
          const all = Buffer.concat(parts);
          let json: unknown;
          try {
            json = JSON.parse(all.toString());
          } catch {}
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body: all, json });
        });
      },
    );
    sent.on("error", reject);
    sent.end(payload);
  });
}

const web = { Name: "web", TaskTemplate: { ContainerSpec: { Image: "nginx" } }, Mode: { Replicated: { Replicas: 2 } } };
const filters = (value: object) => `filters=${encodeURIComponent(JSON.stringify(value))}`;

async function withSwarm() {
  const fake = await startFake();
  await call(fake.path, "POST", "/swarm/init", { ListenAddr: "0.0.0.0:2377" });
  const api = (method: string, url: string, body?: unknown, headers?: Record<string, string>) =>
    call(fake.path, method, url, body, headers);
  return { fake, api, swarm: fake.swarm, [Symbol.asyncDispose]: () => fake[Symbol.asyncDispose]() };
}

test("outside a swarm every manager's route is a 503 with Docker's words", async () => {
  await using fake = await startFake();
  for (const url of [
    "/swarm",
    "/nodes",
    "/services",
    "/tasks",
    "/secrets",
    "/configs",
    "/services/x",
    "/swarm/unlockkey",
  ]) {
    const answer = await call(fake.path, "GET", url);
    assert.equal(answer.status, 503, url);
    assert.match(JSON.stringify(answer.json), /This node is not a swarm manager\./);
  }
  assert.equal((await call(fake.path, "POST", "/swarm/leave")).status, 503);
});

test("init hands the node resolved addresses, checked pools and a full spec", async () => {
  await using s = await withSwarm();
  const [init] = s.swarm.inits;
  assert.equal(init?.listenAddr, "0.0.0.0:2377");
  assert.equal(init?.advertiseAddr, "10.0.0.1:2377");
  assert.equal(init?.dataPathPort, 4789);
  assert.equal(init?.spec.caConfig?.nodeCertExpiry?.seconds, 7776000n);
  const again = await s.api("POST", "/swarm/init", { ListenAddr: "0.0.0.0:2377" });
  assert.equal(again.status, 503);
  assert.match(String(again.body), /already part of a swarm/);
  const swarm = (await s.api("GET", "/swarm")).json as { JoinTokens: unknown; Spec: { Name: string } };
  assert.deepEqual(swarm.JoinTokens, { Worker: "SWMTKN-1-w", Manager: "SWMTKN-1-m" });
  assert.equal(swarm.Spec.Name, "default");
});

test("older clients cannot name pools or ports", async () => {
  await using fake = await startFake();
  await call(fake.path, "POST", "/v1.38/swarm/init", { DefaultAddrPool: ["junk"], DataPathPort: 1 });
  assert.deepEqual(fake.swarm.inits[0]?.defaultAddressPool, []);
  assert.equal(fake.swarm.inits[0]?.dataPathPort, 4789);
});

test("swarm update: version and rotation", async () => {
  await using s = await withSwarm();
  const version = Number(s.swarm.cluster?.meta?.version?.index);
  assert.equal((await s.api("POST", "/swarm/update", {})).status, 400);
  assert.match(String((await s.api("POST", "/swarm/update?version=1", {})).body), /update out of sequence/);
  assert.match(
    String((await s.api("POST", `/swarm/update?version=${version}&rotateWorkerToken=perhaps`, {})).body),
    /invalid value for rotateWorkerToken: perhaps/,
  );
  const answer = await s.api("POST", `/swarm/update?version=${version}&rotateWorkerToken=true`, { Name: "default" });
  assert.equal(answer.status, 200);
  assert.deepEqual(s.swarm.rotations.at(-1), { worker: true, manager: false, unlockKey: false });
});

test("services: create, find by name, id and prefix, ambiguity, remove", async () => {
  await using s = await withSwarm();
  const created = await s.api("POST", "/services/create", web);
  assert.equal(created.status, 201);
  const { ID: id } = created.json as { ID: string };
  assert.deepEqual(Object.keys(created.json as object), ["ID"]);
  for (const ref of [id, "web", id.slice(0, 8)]) {
    assert.equal(((await s.api("GET", `/services/${ref}`)).json as { ID: string }).ID, id, ref);
  }
  const missing = await s.api("GET", "/services/nope");
  assert.equal(missing.status, 404);
  assert.deepEqual(missing.json, { message: "service nope not found" });
  // Two ids that begin alike.
  for (const service of [...s.swarm.services.values()]) {
    s.swarm.services.set("aaa1", { ...service, id: "aaa1", spec: undefined });
    s.swarm.services.set("aaa2", { ...service, id: "aaa2", spec: undefined });
  }
  const ambiguous = await s.api("GET", "/services/aaa");
  assert.equal(ambiguous.status, 400);
  assert.deepEqual(ambiguous.json, { message: "service aaa is ambiguous (2 matches found)" });
  assert.equal((await s.api("DELETE", "/services/web")).status, 200);
  assert.equal((await s.api("GET", `/services/${id}`)).status, 404);
});

test("a service without a name gets one", async () => {
  await using s = await withSwarm();
  await s.api("POST", "/services/create", { ...web, Name: "" });
  assert.match([...s.swarm.services.values()][0]?.spec?.annotations?.name ?? "", /^[a-z]+_[a-z]+/);
});

test("networks of services: names become ids, a local network is refused with its reason", async () => {
  await using s = await withSwarm();
  const ingress = [...s.swarm.networks.values()].find((network) => network.spec?.ingress);
  const on = (target: string) => ({
    ...web,
    Name: `on-${target}`,
    TaskTemplate: { ...web.TaskTemplate, Networks: [{ Target: target }] },
  });
  await s.api("POST", "/services/create", on("ingress"));
  assert.equal([...s.swarm.services.values()][0]?.spec?.task?.networks[0]?.target, ingress?.id);
  const local = await s.api("POST", "/services/create", on("mybridge"));
  assert.equal(local.status, 403);
  assert.match(String(local.body), /cannot be used with services. Only networks scoped to the swarm/);
  assert.equal((await s.api("POST", "/services/create", on("nowhere"))).status, 404);
});

test("registry credentials are kept over updates", async () => {
  await using s = await withSwarm();
  const auth = (which: "spec" | "previousSpec") => {
    const runtime = [...s.swarm.services.values()][0]?.[which]?.task?.runtime;
    return runtime?.case === "container" ? runtime.value.pullOptions?.registryAuth : undefined;
  };
  const version = () => [...s.swarm.services.values()][0]?.meta?.version?.index;
  await s.api("POST", "/services/create", web, { "x-registry-auth": "first" });
  assert.equal(auth("spec"), "first");
  await s.api("POST", `/services/web/update?version=${version()}`, web);
  assert.equal(auth("spec"), "first");
  await s.api("POST", `/services/web/update?version=${version()}`, web, { "x-registry-auth": "second" });
  assert.equal(auth("spec"), "second");
  await s.api("POST", `/services/web/update?version=${version()}&registryAuthFrom=previous-spec`, web);
  assert.equal(auth("spec"), "first");
  const odd = await s.api("POST", `/services/web/update?version=${version()}&registryAuthFrom=moon`, web);
  assert.match(String(odd.body), /unsupported registryAuthFrom value/);
  assert.match(
    String((await s.api("POST", "/services/web/update?version=x", web)).body),
    /invalid service version 'x'/,
  );
  assert.match(
    String((await s.api("POST", `/services/web/update?version=${version()}&rollback=far`, web)).body),
    /unrecognized rollback option far/,
  );
});

test("old clients are told that the image was not pinned, and later fields are dropped for them", async () => {
  await using s = await withSwarm();
  const spec = structuredClone(web) as typeof web & { TaskTemplate: { ContainerSpec: { Sysctls?: object } } };
  spec.TaskTemplate.ContainerSpec.Sysctls = { a: "b" };
  const answer = await s.api("POST", "/v1.29/services/create", spec);
  assert.match(
    String((answer.json as { Warnings: string[] }).Warnings[0]),
    /^image nginx could not be accessed on a registry to record\nits digest/,
  );
  const runtime = [...s.swarm.services.values()][0]?.spec?.task?.runtime;
  assert.deepEqual(runtime?.case === "container" && { ...runtime.value.sysctls }, {});
});

test("the replicas column", async () => {
  await using s = await withSwarm();
  await s.api("POST", "/services/create", web);
  const [task] = s.swarm.tasks.values();
  if (task?.status) task.status.state = TaskState.PREPARING;
  const status = async () =>
    ((await s.api("GET", "/services?status=true")).json as { ServiceStatus: unknown }[])[0]?.ServiceStatus;
  assert.deepEqual(await status(), { RunningTasks: 1, DesiredTasks: 2, CompletedTasks: 0 });
  for (const node of s.swarm.nodes.values()) if (node.status) node.status.state = NodeStatus_State.DOWN;
  assert.deepEqual(await status(), { RunningTasks: 0, DesiredTasks: 2, CompletedTasks: 0 });
  const plain = (await s.api("GET", "/v1.40/services?status=true")).json as { ServiceStatus?: unknown }[];
  assert.equal(plain[0]?.ServiceStatus, undefined);
});

test("filters of lists", async () => {
  await using s = await withSwarm();
  await s.api("POST", "/services/create", { ...web, Labels: { env: "prod" } });
  await s.api("POST", "/services/create", { ...web, Name: "job", Mode: { GlobalJob: {} } });
  const names = async (value: object) =>
    ((await s.api("GET", `/services?${filters(value)}`)).json as { Spec: { Name: string } }[]).map((x) => x.Spec.Name);
  assert.deepEqual(await names({ name: ["we"] }), ["web"]);
  assert.deepEqual(await names({ label: ["env"] }), ["web"]);
  assert.deepEqual(await names({ label: ["env=dev"] }), []);
  assert.deepEqual(await names({ mode: ["global-job"] }), ["job"]);
  assert.match(
    String((await s.api("GET", `/services?${filters({ colour: ["red"] })}`)).body),
    /invalid filter 'colour'/,
  );
  const tasks = async (value: object) => ((await s.api("GET", `/tasks?${filters(value)}`)).json as unknown[]).length;
  assert.equal(await tasks({ service: ["web"] }), 2);
  assert.equal(await tasks({ service: ["web"], "desired-state": ["shutdown"] }), 0);
  assert.equal(await tasks({ name: ["web.1"] }), 1);
  assert.equal(await tasks({ label: ["env=prod"] }), 2, "the labels of the service");
  assert.equal(await tasks({ node: ["host-a"], "_up-to-date": ["true"] }), 3);
  assert.equal((await s.api("GET", `/tasks?${filters({ service: ["nope"] })}`)).status, 404);
  assert.match(
    String((await s.api("GET", `/tasks?${filters({ "desired-state": ["512"] })}`)).body),
    /Invalid desired-state filter: '512'/,
  );
});

test("logs: framed, with details and times, tail checked first", async () => {
  await using s = await withSwarm();
  await s.api("POST", "/services/create", web);
  const answer = await s.api("GET", "/services/web/logs?stdout=1&stderr=1&details=1&timestamps=1");
  assert.equal(answer.headers["content-type"], "application/vnd.docker.multiplexed-stream");
  const [first, second] = createUnframer()(answer.body);
  const task = [...s.swarm.tasks.values()][0];
  assert.equal(first?.stream, "stdout");
  assert.equal(second?.stream, "stderr");
  assert.equal(
    String(first?.data),
    `2026-05-28T20:26:42.000000005Z com.docker.swarm.node.id=${task?.nodeId},com.docker.swarm.service.id=${task?.serviceId},com.docker.swarm.task.id=${task?.id} line 0\n`,
  );
  assert.equal(
    (await s.api("GET", "/v1.41/services/web/logs?stdout=1")).headers["content-type"],
    "application/vnd.docker.raw-stream",
  );
  assert.match(String((await s.api("GET", "/services/web/logs")).body), /you must choose at least one stream/);
  assert.match(
    String((await s.api("GET", "/services/web/logs?stdout=1&tail=-3")).body),
    /negative tail values not supported/,
  );
});

test("secrets do not tell their data, configs do", async () => {
  await using s = await withSwarm();
  const data = Buffer.from("abc").toString("base64");
  assert.equal((await s.api("POST", "/secrets/create", { Name: "s", Data: data })).status, 201);
  await s.api("POST", "/configs/create", { Name: "c", Data: data });
  assert.equal(((await s.api("GET", "/secrets/s")).json as { Spec: { Data?: string } }).Spec.Data, undefined);
  assert.equal(((await s.api("GET", "/configs/c")).json as { Spec: { Data?: string } }).Spec.Data, data);
  assert.equal((await s.api("DELETE", "/secrets/s")).status, 204);
  assert.equal((await s.api("GET", "/secrets/s")).status, 404);
});

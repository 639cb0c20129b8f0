import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { json } from "../../../src/api/http/reply.ts";
import { Router, route } from "../../../src/api/http/router.ts";
import { createHttpServer } from "../../../src/api/http/server.ts";
import { listenTls } from "../../../src/api/http/tls.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { ask, targetOf } from "../../../src/cli/show/client.ts";
import { ago, fields, table } from "../../../src/cli/show/table.ts";
import { networkText, onePortText, serviceText, statusText } from "../../../src/cli/show/text.ts";
import type { StatusView } from "../../../src/engine/view/types.ts";
import type { NetworkLook } from "../../../src/network/view/types.ts";
import { writeCertificates } from "../../support/certificates.ts";

test("the engine is found as docker finds it", () => {
  assert.deepEqual(targetOf(undefined, {}), { kind: "unix", path: "/run/skein/docker.sock" });
  assert.deepEqual(targetOf(undefined, { DOCKER_HOST: "unix:///a/b.sock" }), { kind: "unix", path: "/a/b.sock" });
  assert.deepEqual(targetOf("unix:///c", { DOCKER_HOST: "unix:///a" }), { kind: "unix", path: "/c" });
  assert.deepEqual(targetOf("tcp://192.0.2.1:99", {}), { kind: "tcp", host: "192.0.2.1", port: 99, certs: undefined });
  assert.deepEqual(targetOf("tcp://[::1]", {}), { kind: "tcp", host: "::1", port: 2375, certs: undefined });
  assert.deepEqual(targetOf("tcp://h", { DOCKER_TLS_VERIFY: "1", DOCKER_CERT_PATH: "/k" }), {
    kind: "tcp",
    host: "h",
    port: 2376,
    certs: "/k",
  });
  for (const bad of ["ssh://host", "npipe:////./pipe", "/run/docker.sock", "unix://relative"]) {
    assert.throws(() => targetOf(bad, {}), /expected unix:/, bad);
  }
});

test("an engine that is not ours, a word of refusal, and nobody at all", async () => {
  const server = createServer((request, response) => {
    const ours = request.url?.startsWith("/ours");
    response.setHeader("Server", ours ? "Skein/0.1.0 (linux)" : "Docker/20.10 (linux)");
    response.statusCode = request.url === "/ours/well" ? 200 : 404;
    response.end(request.url === "/ours/well" ? '{"a":1}' : '{"message":"network nix not found"}');
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address ? address.port : 0;
  const target = targetOf(`tcp://127.0.0.1:${port}`, {});
  try {
    assert.deepEqual(await ask(target, "/ours/well"), { a: 1 });
    await assert.rejects(ask(target, "/ours/x"), /^SkeinError: network nix not found$/);
    await assert.rejects(ask(target, "/x"), /is not Skein/);
  } finally {
    server.close();
  }
  await assert.rejects(ask(target, "/ours/well"), /no engine answers at tcp:/);
});

test("an engine on TCP is asked with the client's certificate, and only one of our CA is believed", async () => {
  const dir = mkdtempSync(join(tmpdir(), "skein-show-"));
  const certificates = async (name: string) => {
    mkdirSync(join(dir, name));
    const { server, client } = await writeCertificates(join(dir, name), ["server", "client"], ["127.0.0.1"]);
    copyFileSync(client.cert, join(dir, name, "cert.pem"));
    copyFileSync(client.key, join(dir, name, "key.pem"));
    return server;
  };
  const ours = await certificates("ours");
  await certificates("others");
  const router = new Router().add([route("GET", "/skein/v1/status", () => json({ well: true }))]);
  const headers = () => ({ Server: "Skein/0.1.0 (linux)" });
  const server = createHttpServer({ router, log: nullLogger, tls: ours, headers });
  const front = await listenTls(server, { host: "127.0.0.1", port: 0 }, nullLogger);
  const target = (name: string) =>
    targetOf(`tcp://127.0.0.1:${front.port}`, { DOCKER_TLS_VERIFY: "1", DOCKER_CERT_PATH: join(dir, name) });
  try {
    assert.deepEqual(await ask(target("ours"), "/skein/v1/status"), { well: true });
    await assert.rejects(
      ask(target("others"), "/skein/v1/status"),
      /no engine answers at tcp:.*: .*(certificate|signature)/i,
    );
    await assert.rejects(ask(target("none"), "/skein/v1/status"), /ENOENT.*ca\.pem/);
  } finally {
    await front[Symbol.asyncDispose]();
    server.close();
    rmSync(dir, { recursive: true });
  }
});

test("tables are as wide as they must be; fields without a value are left out", () => {
  assert.equal(
    table(
      ["A", "LONG"],
      [
        ["abc", ""],
        ["d", "e"],
      ],
    ),
    "A    LONG\nabc  -\nd    e\n",
  );
  assert.equal(table(["A"], []), "");
  assert.equal(
    fields([
      ["a", "1"],
      ["bcd", undefined],
      ["ef", "2"],
    ]),
    "a   1\nef  2\n",
  );
  assert.deepEqual([1000, 119_000, 121_000, 7_200_000, 200_000_000].map(ago), ["1 s", "119 s", "2 min", "2 h", "2 d"]);
});

const status: StatusView = {
  host: {
    name: "manager",
    version: "0.1.0",
    kernel: "6.1",
    startedAt: "1970-01-01T00:00:00.000Z",
    containers: { running: 2, total: 3 },
  },
  swarm: {
    state: "active",
    role: "leader",
    nodeId: "abcdefghijklmnop",
    address: "192.0.2.1",
    dataPath: "192.0.2.1:4789",
    error: "",
    managers: ["192.0.2.1:2377"],
    nodes: [
      {
        id: "abcdefghijklmnop",
        hostname: "manager",
        address: "192.0.2.1",
        role: "leader",
        state: "ready",
        availability: "active",
        reachable: true,
        engine: "0.1.0",
      },
    ],
  },
  gossip: { health: 0, alive: 2, suspect: 1, dead: 0, keys: 3 },
  networks: { overlay: 2, local: 4, endpoints: 5 },
  kernel: { namespaces: 6, differences: [], repairs: { total: 2, byKind: { fdb: 2 } } },
  paths: [],
  warnings: ["192.0.2.3 does not answer gossip: its tasks get no new connections from here"],
};

test("the summary", () => {
  assert.equal(
    statusText(status, 60_000),
    `host        manager, Skein 0.1.0, up 60 s, Linux 6.1
containers  2 running of 3
swarm       active, leader, node abcdefghijkl
address     192.0.2.1, data path 192.0.2.1:4789
managers    192.0.2.1:2377
gossip      2 alive, 1 suspect, 0 dead; health 0 (0 is well); 3 keys
networks    2 overlay, 4 local; 5 endpoints on this host
kernel      6 namespaces, as planned; mended 2 since the start (2 fdb)

nodes
  HOSTNAME  ADDRESS    ROLE    STATE  AVAILABILITY  ENGINE  ID
  manager   192.0.2.1  leader  ready  active        0.1.0   abcdefghijkl

warnings
  192.0.2.3 does not answer gossip: its tasks get no new connections from here
`,
  );
});

const network: NetworkLook = {
  id: "n1",
  name: "net1",
  driver: "overlay",
  scope: "swarm",
  ingress: false,
  internal: false,
  subnets: [{ subnet: "10.0.1.0/24", gateway: "10.0.1.1", vni: 4097 }],
  mtu: 1450,
  namespace: "/run/docker/netns/1-n1",
  here: [],
  elsewhere: [
    {
      endpointId: "e",
      name: "web.1.x",
      service: "web",
      address: "10.0.1.5",
      address6: "",
      mac: "02:42:00:00:00:05",
      host: "192.0.2.2",
      announcedBy: { node: "aabb", address: "192.0.2.2", state: "suspect" },
      state: "suspended",
      doubted: false,
      unused: "",
      neighbour: "ok",
      fdb: "missing",
    },
  ],
  hosts: [],
  links: [],
  differences: ["set fdb 02:42:00:00:00:05 to 192.0.2.2 on vxlan0"],
  repairs: [{ at: 1000, namespace: "overlay/n1", difference: "set neighbour 10.0.1.5" }],
};

test("a network: what is not as planned stands out, and so does who told it", () => {
  assert.equal(
    networkText(network, 4000),
    `network    net1  n1
kind       overlay, swarm
subnet     10.0.1.0/24 gateway 10.0.1.1 VNI 4097
mtu        1450
namespace  /run/docker/netns/1-n1
kernel     not as planned: set fdb 02:42:00:00:00:05 to 192.0.2.2 on vxlan0

endpoints elsewhere
  NAME     ADDRESS   MAC                HOST       TOLD BY         STATE      NEIGHBOUR  FDB
  web.1.x  10.0.1.5  02:42:00:00:00:05  192.0.2.2  aabb (suspect)  suspended  ok         missing

mended
  AGO  WHAT
  3 s  set neighbour 10.0.1.5
`,
  );
});

test("a service that only the managers know; a port of the mesh with nobody behind it", () => {
  const text = serviceText({
    id: "s",
    name: "web",
    networks: [],
    ports: [],
    tasks: [{ id: "t", name: "web.1.t", node: "", state: "pending", message: "no suitable node", announced: false }],
  });
  assert.match(text, /no network of this node tells of its tasks/);
  assert.match(text, /web\.1\.t {2}- {5}pending {2}no {12}no suitable node/);
  const port = onePortText({
    kind: "mesh",
    protocol: "tcp",
    port: 8080,
    policy: "local",
    proxy: false,
    services: ["web"],
    target: [80],
    door: { gateway: "172.18.0.2", ingress: "10.0.0.2", leg: "" },
    backends: [],
    names: {},
  });
  assert.match(port, /^policy +local: only tasks of this host are asked$/m);
  assert.match(port, /one of 0 tasks, chosen at random: refused/);
});

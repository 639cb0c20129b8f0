/**
 * Random requests for every route of the API, over a host in memory: never a 500, never an answer that is not Docker's
 * shape of an error, never a hang, nothing half-made. Seeded: a failure names the request and its seed.
 * `SKEIN_FUZZ=2000` makes that many per route (25 in the suite), `SKEIN_FUZZ_SEED` another run of them.
 */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { request as httpRequest, type IncomingMessage, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { listenUnix } from "../../../src/api/http/listen.ts";
import type { Route } from "../../../src/api/http/router.ts";
import { apiRoutes, createApi } from "../../../src/api/index.ts";
import { conflict } from "../../../src/base/errors.ts";
import { type Logger, nullLogger } from "../../../src/base/log.ts";
import { FakeSwarm } from "../api-swarm/fake.ts";
import { oneInterface } from "../api-swarm/server.ts";
import { fullService } from "../api-swarm/specs.ts";
import { type TestHost, testHost } from "../engine/fakes.ts";
import { Dice, hostileTar, mutate } from "./mutate.ts";

const PER_ROUTE = Number(process.env.SKEIN_FUZZ ?? 25);
const SEED = Number(process.env.SKEIN_FUZZ_SEED ?? 1);
const ANSWER_MS = 5_000;
const BODY_MS = 20;

let host: TestHost;
let server: Server;
let dir: string;
let socketPath: string;
const logged: string[] = [];
const unhandled: unknown[] = [];
const onUnhandled = (reason: unknown) => void unhandled.push(reason);
const log: Logger = {
  ...nullLogger,
  error: (message, fields) => void logged.push(`${message} ${JSON.stringify(fields)}`),
};

before(async () => {
  process.on("unhandledRejection", onUnhandled);
  host = await testHost();
  dir = mkdtempSync(join(tmpdir(), "skein-fuzz-"));
  mkdirSync(join(dir, "root/etc"), { recursive: true });
  const { runtime } = host;
  runtime.withRootfs = async (_id, fn) => fn(join(dir, "root"));
  runtime.images.remove = async () => {
    throw conflict("in use");
  };
  runtime.stats = async () => {
    throw conflict("no stats");
  };
  const swarm = new FakeSwarm();
  host.engine.connectSwarm(swarm.node, {
    list: () => [],
    predefined: () => undefined,
    create: async () => {
      throw conflict("no swarm networks here");
    },
    remove: async () => {},
    attachments: async () => [],
  });
  socketPath = join(dir, "s.sock");
  server = createApi({ engine: host.engine, log, interfaces: () => oneInterface });
  await listenUnix(server, socketPath);
});
after(async () => {
  process.off("unhandledRejection", onUnhandled);
  server.close();
  server.closeAllConnections();
  await host[Symbol.asyncDispose]();
  rmSync(dir, { recursive: true, force: true });
});

interface Sent {
  readonly method: string;
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body: Buffer | undefined;
}

/** The status and what came of the body in a moment: streams that go on are left. */
function send(sent: Sent): Promise<{ status: number; body: string; done: boolean }> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("no answer")), ANSWER_MS);
    const client = httpRequest({ socketPath, method: sent.method, path: sent.path, headers: sent.headers });
    const finish = (status: number, body: string, done: boolean) => {
      clearTimeout(timer);
      client.destroy();
      resolve({ status, body, done });
    };
    client.on("error", (error) => {
      clearTimeout(timer);
      reject(error);
    });
    client.on("upgrade", (response, socket) => {
      socket.destroy();
      finish(response.statusCode ?? 0, "", false);
    });
    client.on("response", (response: IncomingMessage) => {
      let body = "";
      const left = setTimeout(() => finish(response.statusCode ?? 0, body, false), BODY_MS);
      response.on("data", (chunk: Buffer) => {
        body += chunk.toString();
      });
      response.on("error", () => {});
      response.on("end", () => {
        clearTimeout(left);
        finish(response.statusCode ?? 0, body, true);
      });
    });
    client.end(sent.body);
  });
}

const label = { a: "b" };
const endpoint = {
  IPAMConfig: { IPv4Address: "172.17.0.9" },
  Aliases: ["x"],
  MacAddress: "02:42:ac:11:00:02",
  DriverOpts: {},
};
const container = {
  Image: "alpine",
  Cmd: ["sleep", "1"],
  Entrypoint: ["sh"],
  Env: ["A=b"],
  Labels: label,
  ExposedPorts: { "80/tcp": {} },
  Volumes: { "/data": {} },
  User: "0:0",
  WorkingDir: "/w",
  StopSignal: "SIGTERM",
  StopTimeout: 1,
  Tty: false,
  OpenStdin: true,
  Healthcheck: { Test: ["CMD", "true"], Interval: 1e9, Timeout: 1e9, Retries: 2, StartPeriod: 0 },
  HostConfig: {
    Binds: ["named:/bind:ro"],
    Mounts: [{ Type: "volume", Source: "vol", Target: "/m", VolumeOptions: { NoCopy: true, Labels: label } }],
    Tmpfs: { "/t": "size=1m" },
    NetworkMode: "bridge",
    PortBindings: { "80/tcp": [{ HostIp: "127.0.0.1", HostPort: "8080-8090" }] },
    RestartPolicy: { Name: "on-failure", MaximumRetryCount: 2 },
    LogConfig: { Type: "json-file", Config: { "max-size": "1m", tag: "{{.Name}}", mode: "non-blocking" } },
    Memory: 1e8,
    MemorySwap: -1,
    NanoCpus: 1e9,
    CpusetCpus: "0",
    PidsLimit: 10,
    Ulimits: [{ Name: "nofile", Soft: 1, Hard: 2 }],
    CapAdd: ["NET_ADMIN"],
    Dns: ["1.1.1.1"],
    ExtraHosts: ["a:1.2.3.4"],
    Sysctls: { "net.ipv4.ip_forward": "1" },
    SecurityOpt: ["no-new-privileges"],
    Links: ["one:two"],
    VolumesFrom: ["one:ro"],
    IpcMode: "private",
    PidMode: "",
    UTSMode: "",
    CgroupnsMode: "private",
    BlkioDeviceReadBps: [{ Path: "/dev/null", Rate: 1 }],
    DeviceCgroupRules: ["c 1:1 rwm"],
    ShmSize: 1e6,
    ConsoleSize: [1, 2],
    Init: false,
  },
  NetworkingConfig: { EndpointsConfig: { bridge: endpoint } },
};

/** A body that a route would take, by the end of its pattern. */
const bodies: readonly (readonly [pattern: RegExp, body: unknown])[] = [
  [/^\/containers\/create$/, container],
  [/^\/containers\/.*\/update$/, { Memory: 1e8, RestartPolicy: { Name: "always" }, CpuShares: 5, PidsLimit: 1 }],
  [
    /^\/containers\/.*\/exec$/,
    { Cmd: ["x"], Env: ["A=b"], Tty: true, AttachStdin: true, DetachKeys: "ctrl-p,ctrl-q", ConsoleSize: [1, 2] },
  ],
  [/^\/exec\/.*\/start$/, { Detach: true, Tty: false, ConsoleSize: [1, 2] }],
  [
    /^\/networks\/create$/,
    {
      Name: "net",
      Driver: "bridge",
      IPAM: { Driver: "default", Config: [{ Subnet: "10.9.0.0/16", Gateway: "10.9.0.1", AuxiliaryAddresses: label }] },
      Options: label,
      Labels: label,
    },
  ],
  [/connect$/, { Container: "one", EndpointConfig: endpoint, Force: true }],
  [/^\/volumes\/create$/, { Name: "vol", Driver: "local", DriverOpts: {}, Labels: label }],
  [/^\/commit$/, { Cmd: ["x"], Env: ["a=b"], Labels: label }],
  [/^\/auth$/, { username: "a", password: "b", serveraddress: "127.0.0.1:1" }],
  [
    /^\/swarm\/init$/,
    {
      ListenAddr: "0.0.0.0:2377",
      AdvertiseAddr: "10.0.0.1",
      DefaultAddrPool: ["10.5.0.0/16"],
      SubnetSize: 24,
      Spec: { Orchestration: { TaskHistoryRetentionLimit: 1 } },
    },
  ],
  [/^\/swarm\/join$/, { ListenAddr: "0.0.0.0:2377", RemoteAddrs: ["10.0.0.2:2377"], JoinToken: "SWMTKN-1-a-b" }],
  [
    /^\/swarm\/(update|unlock)$/,
    {
      Name: "default",
      Labels: label,
      Dispatcher: { HeartbeatPeriod: 5e9 },
      CAConfig: { NodeCertExpiry: 9e15 },
      UnlockKey: "SWMKEY-1-x",
    },
  ],
  [/^\/services\//, fullService],
  [/^\/nodes\//, { Name: "n", Labels: label, Role: "worker", Availability: "drain" }],
  [/^\/(secrets|configs)\//, { Name: "s", Data: "YWJj", Labels: label, Templating: { Name: "golang" } }],
];

const QUERIES =
  "all limit size filters name platform ps_args stream one-shot t signal w h condition force v link path noOverwriteDirNonDir " +
  "copyUIDGID detachKeys stdin stdout stderr logs follow since until tail timestamps details type fromImage fromSrc tag repo " +
  "message changes digests noprune names quiet container comment author pause scope verbose version rotateWorkerToken " +
  "rollback registryAuthFrom status insertDefaults dangling";
const FILTERS =
  "label name id status network volume ancestor before since exited health is-task publish expose dangling reference until " +
  "driver scope type event container image role membership node service desired-state mode".split(" ").join(" ");
const REFS = [
  "one",
  "two",
  "alpine",
  "bridge",
  "vol",
  "nosuch",
  "a".repeat(300),
  "..",
  "%2e%2e%2f",
  "%00",
  "%zz",
  "é%F0%9F%98%80",
  "-",
  "0",
  "one%2Ftwo",
];

/** Parameters that decide on a route: asked for more often there than by chance. */
const decisive: readonly (readonly [pattern: RegExp, names: string])[] = [
  [/archive$/, "path path noOverwriteDirNonDir"],
  [/logs$/, "stdout stdout stderr since until tail follow timestamps details"],
  [/attach$/, "stdin stdout stream logs detachKeys"],
  [/wait$/, "condition"],
  [/(stop|restart)$/, "t signal"],
  [/kill$/, "signal"],
  [/rename$/, "name"],
  [/resize$/, "w h"],
  [/events$/, "since until filters"],
  [/(json|prune|networks|volumes|services|tasks|nodes|secrets|configs)$/, "filters filters all limit"],
  [/images\/create$/, "fromImage fromSrc repo tag changes"],
  [/tag$/, "repo tag"],
  [/commit$/, "container repo tag changes"],
  [/update$/, "version"],
];

function build(route: Route, dice: Dice, ids: readonly string[]): Sent {
  const path = route.pattern.replace(/:\w+\*?/g, () => dice.of([...REFS, ...ids]));
  const query = new URLSearchParams();
  for (let n = dice.below(5); n > 0; n--) {
    const own = decisive.find(([pattern]) => pattern.test(route.pattern))?.[1];
    const name = dice.of((own && dice.chance(0.7) ? own : QUERIES).split(" "));
    query.append(name, name === "filters" ? filters(dice) : dice.word());
  }
  const wanted = bodies.find(([pattern]) => pattern.test(route.pattern.replace(/:\w+\*?/g, "x")))?.[1];
  const tar = /\/(archive|load)$|images\/create$/.test(route.pattern) && route.method !== "GET";
  const body =
    route.method === "GET" || route.method === "HEAD"
      ? undefined
      : tar
        ? hostileTar(dice)
        : wanted === undefined
          ? dice.chance(0.5)
            ? undefined
            : Buffer.from(JSON.stringify(dice.value()))
          : Buffer.from(garble(JSON.stringify(mutate(wanted, dice)), dice));
  const headers: Record<string, string> = {};
  if (body) headers["content-type"] = dice.chance(0.95) ? "application/json" : dice.of(["text/html", "x", ""]);
  if (body) headers["content-length"] = String(body.length);
  if (dice.chance(0.1))
    headers["x-registry-auth"] = dice.of(["", "e30=", "!!", Buffer.from('{"username":5}').toString("base64")]);
  if (/attach$|start$/.test(route.pattern) && dice.chance(0.5))
    Object.assign(headers, { connection: "Upgrade", upgrade: "tcp" });
  const version = dice.chance(0.5) ? dice.of(["/v1.24", "/v1.41", "/v1.51", "/v9.9", "/v1.1"]) : "";
  const search = query.size ? `?${query}` : "";
  return { method: route.method, path: encodeURI(`${version}${path}`).replace(/%25/g, "%") + search, headers, body };
}

function filters(dice: Dice): string {
  const out: Record<string, unknown> = {};
  for (let n = dice.below(3); n > 0; n--) {
    const value = dice.word();
    out[dice.chance(0.9) ? dice.of(FILTERS.split(" ")) : dice.word()] = dice.of([
      [value],
      { [value]: true },
      value,
      5,
      null,
    ]);
  }
  return garble(JSON.stringify(out), dice);
}

/** Sometimes cut off, or with bytes that are no JSON. */
function garble(text: string, dice: Dice): string {
  if (!dice.chance(0.08)) return text;
  const at = dice.below(text.length + 1);
  return dice.chance(0.5)
    ? text.slice(0, at)
    : `${text.slice(0, at)}${dice.of(["\0", "}", "[", '"', "é"])}${text.slice(at)}`;
}

function judge(sent: Sent, answer: { status: number; body: string; done: boolean }): void {
  assert.notEqual(answer.status, 500, answer.body);
  assert.ok(answer.status >= 100 && answer.status < 600, String(answer.status));
  if (answer.status < 400 || sent.method === "HEAD" || !answer.done) return;
  const { message } = JSON.parse(answer.body) as { message?: unknown };
  assert.ok(typeof message === "string" && message.length > 0, `an error without words: ${answer.body}`);
  assert.doesNotMatch(
    message,
    /undefined|\[object |Cannot read prop|is not a function|ERR_/,
    "an error of the program's own",
  );
}

/** What the requests are about; an earlier one may have removed it. */
async function furnish(): Promise<void> {
  const headers = { "content-type": "application/json" };
  const body = Buffer.from(JSON.stringify({ Image: "alpine", Cmd: ["x"] }));
  for (const name of ["one", "two"]) {
    const { status } = await send({ method: "POST", path: `/containers/create?name=${name}`, headers, body });
    assert.ok(status === 201 || status === 409, String(status));
  }
  // A manager, or on its way out of a swarm by what came before.
  await send({ method: "POST", path: "/swarm/init", headers, body: Buffer.from('{"ListenAddr":"0.0.0.0:2377"}') });
  const started = await send({ method: "POST", path: "/containers/two/start", headers: {}, body: undefined });
  assert.ok(started.status === 204 || started.status === 304 || started.status === 409, JSON.stringify(started));
}

test("every route answers whatever comes", async () => {
  const routes = apiRoutes({ engine: host.engine, interfaces: () => oneInterface });
  assert.ok(routes.length > 80, `${routes.length} routes`);
  const failures: string[] = [];
  const statuses = new Map<number, number>();
  for (const [index, route] of routes.entries()) {
    await furnish();
    const ids = host.runtime.execs.map(({ spec }) => spec.execId);
    for (let n = 0; n < PER_ROUTE; n++) {
      const seed = (SEED * 1_000_003 + index * 100_003 + n) >>> 0;
      const sent = build(route, new Dice(seed), ids);
      const before = logged.length;
      try {
        const answer = await send(sent);
        statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
        judge(sent, answer);
      } catch (error) {
        failures.push(
          `${route.method} ${route.pattern} seed ${seed}: ${error instanceof Error ? error.message : error}\n` +
            `  ${sent.path.slice(0, 300)}\n  ${sent.body?.toString("utf8", 0, 600) ?? ""}\n  ${logged.slice(before).join("\n  ").slice(0, 900)}`,
        );
      }
    }
  }
  assert.equal(failures.length, 0, `${failures.length} requests\n${failures.slice(0, 12).join("\n")}`);
  assert.deepEqual(unhandled, []);
  // It did reach what lies behind the parsing.
  for (const status of [200, 201, 204, 400, 404, 409]) assert.ok(statuses.has(status), `never ${status}`);
});

test("afterwards the host is whole: every container can be listed and looked at, nothing lies outside", async () => {
  await furnish();
  const list = await send({ method: "GET", path: "/containers/json?all=1", headers: {}, body: undefined });
  assert.equal(list.status, 200);
  for (const { Id } of await host.engine.containers.list({ all: true, size: false, filters: new Map() })) {
    assert.equal(
      (await send({ method: "GET", path: `/containers/${String(Id)}/json`, headers: {}, body: undefined })).status,
      200,
    );
  }
  assert.deepEqual(readdirSync(dir).sort(), ["root", "s.sock"]);
  await host.restart();
  assert.ok((await host.engine.containers.list({ all: true, size: false, filters: new Map() })).length > 0);
});

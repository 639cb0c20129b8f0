/**
 * Every flag of `docker swarm`, `service`, `node`, `stack`, `config` and `secret`: each either does what it says or is
 * refused by name, and specs that Docker rejects are rejected in its words. At the end the help of each command is read:
 * a flag that no call here used fails. With `SKEIN_CONTROL=1` the real Docker Engine answers.
 */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { eventually } from "../interop/support/dockerd.ts";
import { clis, control, EngineHost } from "../support/engine.ts";

const [version = "", cli = "docker"] = clis[0] ?? [];
/** Flags by the command that they were given to. */
const used = new Map<string, Set<string>>();
const commands = [
  ...["init", "join", "join-token", "update", "ca", "unlock-key", "leave"].map((verb) => `swarm ${verb}`),
  ...["create", "update", "rollback", "logs", "ps", "ls", "scale", "inspect"].map((verb) => `service ${verb}`),
  ...["update", "ls", "ps", "inspect", "rm"].map((verb) => `node ${verb}`),
  ...["deploy", "ls", "ps", "services", "rm"].map((verb) => `stack ${verb}`),
  ...["create", "inspect", "ls"].flatMap((verb) => [`config ${verb}`, `secret ${verb}`]),
];

interface Flags {
  readonly long: Set<string>;
  readonly short: Map<string, string>;
}

function flagsOf(command: string): Flags {
  const help = execFileSync(cli, [...command.split(" "), "--help"], { encoding: "utf8" });
  const found = [...help.matchAll(/^ {2,}(?:-(\w), )?--([a-z0-9-]+)/gm)];
  return {
    long: new Set(found.map(([, , name = ""]) => name)),
    short: new Map(found.flatMap(([, letter, name = ""]) => (letter ? [[letter, name] as const] : []))),
  };
}

const known = new Map(commands.map((command) => [command, flagsOf(command)]));
let host: EngineHost;
const file = (name: string) => join(host.scratch, name);

async function call(args: readonly string[]) {
  const command = args.slice(0, 2).join(" ");
  const flags = known.get(command);
  const seen = used.get(command) ?? new Set();
  used.set(command, seen);
  for (const arg of args.slice(2)) {
    const name = /^--([a-z0-9-]+)/.exec(arg)?.[1] ?? flags?.short.get(/^-(\w)$/.exec(arg)?.[1] ?? "");
    if (name !== undefined) seen.add(name);
  }
  return host.attempt(...args);
}

/** What a call prints; fails when it is refused. */
async function ok(...args: string[]): Promise<string> {
  const { code, stderr, stdout } = await call(args);
  assert.equal(code, 0, `docker ${args.join(" ")}: ${stderr}${stdout}`);
  return stdout.trim();
}

async function refused(args: readonly string[], words: RegExp | string): Promise<void> {
  const { code, stderr, stdout } = await call(args);
  assert.notEqual(code, 0, `docker ${args.join(" ")} was accepted: ${stdout}`);
  const said = stderr.replace("Error response from daemon: ", "").trim();
  if (typeof words === "string") assert.equal(said, words, args.join(" "));
  else assert.match(said, words, args.join(" "));
}

/** The first lines of a call that does not end. */
async function followed(lines: number, ...args: string[]): Promise<string[]> {
  used.get(args.slice(0, 2).join(" "))?.add("follow");
  const [file = "", ...rest] = host.command(args);
  const child = spawn(file, rest, { stdio: ["ignore", "pipe", "ignore"] });
  const said: string[] = [];
  try {
    for await (const line of createInterface(child.stdout)) if (said.push(line) === lines) break;
    return said;
  } finally {
    child.kill();
  }
}

/** Many that do not depend on each other; tells all that fail. */
async function each<T>(rows: readonly T[], check: (row: T) => Promise<void>): Promise<void> {
  const failures: unknown[] = [];
  const queue = [...rows];
  const worker = async () => {
    for (let row = queue.shift(); row !== undefined; row = queue.shift()) {
      await check(row).catch((error) => failures.push(error));
    }
  };
  await Promise.all(Array.from({ length: 4 }, worker));
  if (failures.length) throw new AggregateError(failures, failures.map(String).join("\n"));
}

/** Skein refuses what the real engine of the control takes. */
const ours = (rows: readonly [string, RegExp | string][]) => (control ? [] : rows);
/** What the control's API (1.41) is too old for. */
const young = (...args: string[]) => (control ? [] : args);

before(async () => {
  host = await EngineHost.make("swflags", "10.96.42.0/24");
});
after(() => host?.[Symbol.asyncDispose]());

const notManager = /^This node is not a swarm manager\. Use "docker swarm init"/;
const digest = "SWMTKN-1-27gwpqy8zrr16lkorbxjgux3bumowvt4v6hdq9lyyb887iohs3-0054v5h7phl5wc4e458l6ckxr";

test("swarm: what is refused before there is one", async () => {
  const init = (rest: string) => `swarm init --advertise-addr ${host.address} ${rest}`;
  const addr = /address must be (a non-zero|an) IP address or network interface/;
  const rows: [string, RegExp | string][] = [
    ["swarm init --advertise-addr nosuch0", addr],
    [init("--listen-addr nonsense"), addr],
    [init("--data-path-addr nosuch0"), addr],
    [
      init("--listen-addr 1.2.3.4:2377"),
      /^manager stopped: failed to listen on remote API address: listen tcp 1\.2\.3\.4:2377: bind: cannot assign/,
    ],
    [init("--data-path-port 80"), "Datapath port number is not in valid range (1024-49151) : 80"],
    [init("--default-addr-pool nonsense"), /invalid string being converted to CIDR/],
    [
      init("--default-addr-pool 10.0.0.0/16 --default-addr-pool-mask-length 8"),
      'invalid CIDR: "10.0.0.0/16". Subnet size is too small for pool: 8',
    ],
    [init("--default-addr-pool 10.0.0.0/16 --default-addr-pool-mask-length 30"), "subnet size is out of range: 30"],
    [init("--availability nonsense"), /invalid availability "nonsense"/],
    ...ours([
      [
        init("--cert-expiry 10m"),
        "error updating cluster settings: rpc error: code = InvalidArgument desc = minimum certificate expiry time is: 1h0m0s",
      ],
      [
        init("--dispatcher-heartbeat -5s"),
        /^error updating cluster settings: .*heartbeat time period cannot be a negative duration$/,
      ],
    ]),
    ["swarm join --token x 127.0.0.1:1", "invalid join token"],
    [`swarm join --data-path-addr nosuch0 --token ${digest} 127.0.0.1:1`, addr],
    [`swarm join --listen-addr nonsense --token ${digest} 127.0.0.1:1`, addr],
    [`swarm join --availability nonsense --token ${digest} 127.0.0.1:1`, /invalid availability/],
    ...ours([[`swarm join --advertise-addr nosuch0 --token ${digest} 127.0.0.1:1`, addr]]),
    ["swarm join-token worker", notManager],
    ["swarm update --autolock", notManager],
    ["swarm ca --rotate", notManager],
    ["swarm leave --force", "This node is not part of a swarm"],
  ];
  // One at a time: each asks for the swarm's own lock.
  for (const [words, says] of rows) await refused(words.split(" "), says);
});

interface ClusterSpec {
  readonly Orchestration: { TaskHistoryRetentionLimit: number };
  readonly Raft: { SnapshotInterval: number; KeepOldSnapshots: number };
  readonly Dispatcher: { HeartbeatPeriod: number };
  readonly CAConfig: { NodeCertExpiry: number; ForceRotate?: number; ExternalCAs?: object[] };
  readonly EncryptionConfig: { AutoLockManagers: boolean };
}

const HOUR = 3600e9;
const cluster = async () =>
  JSON.parse(await host.docker("info", "-f", "{{json .Swarm.Cluster}}")) as {
    Spec: ClusterSpec;
    DataPathPort: number;
    SubnetSize: number;
    DefaultAddrPool: string[];
  };

test("swarm init, join-token, update: each flag", async () => {
  const address = host.address;
  // One that signs under another root than the swarm's is kept for when that is wanted.
  const elsewhere = { URL: "https://127.0.0.1:1/sign", cacert: root("elsewhere", 3650).cert };
  const external = `protocol=cfssl,url=${elsewhere.URL},cacert=${elsewhere.cacert}`;
  const shown = { Protocol: "cfssl", URL: elsewhere.URL, CACert: readFileSync(elsewhere.cacert, "utf8") };
  await ok(
    ...[
      "swarm",
      "init",
      "--external-ca",
      external,
      "--force-new-cluster",
      "--advertise-addr",
      address,
      "--listen-addr",
      `${address}:2377`,
    ],
    ...["--data-path-addr", address, "--data-path-port", "7777", "--availability", "drain"],
    ...["--default-addr-pool", "10.20.0.0/16", "--default-addr-pool-mask-length", "26", "--cert-expiry", "720h"],
    ...["--dispatcher-heartbeat", "7s", "--task-history-limit", "3", "--max-snapshots", "2"],
    ...["--snapshot-interval", "777", "--autolock"],
  );
  const made = await cluster();
  assert.deepEqual(made.DefaultAddrPool, ["10.20.0.0/16"]);
  assert.deepEqual([made.DataPathPort, made.SubnetSize], [7777, 26]);
  const numbers = ({ CAConfig, Dispatcher, EncryptionConfig, Orchestration, Raft }: ClusterSpec) => [
    CAConfig.NodeCertExpiry / HOUR,
    Dispatcher.HeartbeatPeriod / 1e9,
    Orchestration.TaskHistoryRetentionLimit,
    Raft.KeepOldSnapshots,
    Raft.SnapshotInterval,
    EncryptionConfig.AutoLockManagers,
  ];
  assert.deepEqual(numbers(made.Spec), [720, 7, 3, 2, 777, true]);
  assert.deepEqual(made.Spec.CAConfig.ExternalCAs, [shown]);
  assert.equal(await ok("node", "ls", "--format", "{{.Availability}}"), "Drain");
  const key = await ok("swarm", "unlock-key", "-q");
  assert.match(key, /^SWMKEY-1-/);
  assert.notEqual(await ok("swarm", "unlock-key", "--rotate", "-q"), key);
  await ok(
    ...["swarm", "update", "--cert-expiry", "100h", "--dispatcher-heartbeat", "9s", "--task-history-limit", "2"],
    ...["--max-snapshots", "5", "--snapshot-interval", "888", "--autolock=false"],
  );
  assert.deepEqual(numbers((await cluster()).Spec), [100, 9, 2, 5, 888, false]);
  await refused(
    ["swarm", "update", "--cert-expiry", "10m"],
    "rpc error: code = InvalidArgument desc = minimum certificate expiry time is: 1h0m0s",
  );
  await refused(
    ["swarm", "update", "--dispatcher-heartbeat", "-5s"],
    "rpc error: code = InvalidArgument desc = heartbeat time period cannot be a negative duration",
  );
  await ok("swarm", "update", "--external-ca", `${external},a=b`);
  assert.deepEqual((await cluster()).Spec.CAConfig.ExternalCAs, [{ ...shown, Options: { a: "b" } }]);
  const token = await ok("swarm", "join-token", "-q", "worker");
  assert.match(token, /^SWMTKN-1-\w{50}-\w{25}$/);
  assert.notEqual(await ok("swarm", "join-token", "-q", "--rotate", "worker"), token);
  await refused(
    ["swarm", "leave"],
    /You are attempting to leave the swarm on a node that is participating as a manager/,
  );
  await refused(["swarm", "join", "--token", digest, "127.0.0.1:1"], /^This node is already part of a swarm/);
});

function root(name: string, days: number): { cert: string; key: string } {
  const [cert, key] = [file(`${name}.crt`), file(`${name}.key`)];
  execFileSync("openssl", ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key]);
  execFileSync("openssl", [
    "req",
    "-x509",
    "-new",
    "-key",
    key,
    "-subj",
    `/CN=${name}`,
    "-days",
    String(days),
    "-out",
    cert,
  ]);
  return { cert, key };
}

test("swarm ca --rotate: as often as one likes, to a root of one's own, and what is refused", async () => {
  const shown = await ok("swarm", "ca");
  await ok("swarm", "ca", "--rotate", "-q", "--cert-expiry", "77h");
  assert.notEqual(await ok("swarm", "ca"), shown);
  assert.equal((await cluster()).Spec.CAConfig.NodeCertExpiry, 77 * HOUR);
  const [own, brief] = [root("own", 3650), root("brief", 300)];
  const bad = "rpc error: code = InvalidArgument desc =";
  const ca = ["swarm", "ca", "--rotate", "-q"];
  await refused([...ca, "--ca-cert", own.cert, "--ca-key", brief.key], `${bad} certificate key mismatch`);
  await refused([...ca, "--ca-cert", brief.cert, "--ca-key", brief.key], `${bad} CA certificate expires too soon`);
  await refused([...ca, "--cert-expiry", "10m"], `${bad} minimum certificate expiry time is: 1h0m0s`);
  await refused(
    [...ca, "--external-ca", "protocol=cfssl,url=https://127.0.0.1:1/sign"],
    /requires the `--ca-cert` flag/,
  );
  await ok(...ca, "--ca-cert", own.cert, "--ca-key", own.key);
  assert.equal(await ok("swarm", "ca"), readFileSync(own.cert, "utf8").trim());
  await ok("swarm", "ca", "--rotate", "-d");
  await eventually("the rotation", async () => (await ok("swarm", "ca")) !== readFileSync(own.cert, "utf8").trim());
  await eventually(
    "the node",
    async () => (await ok("node", "ls", "--format", "{{.Status}} {{.TLSStatus}}")) === "Ready Ready",
  );
  assert.equal((await cluster()).Spec.CAConfig.ForceRotate, 2);
});

/** Everything that a container can show of its service's flags. */
const look =
  "id; hostname; pwd; echo A=$A B=$B; cat /etc/hosts /etc/resolv.conf /etc/cfg; grep CapBnd /proc/self/status; " +
  "cat /proc/sys/net/ipv4/ip_default_ttl; ulimit -Sn; ulimit -Hn; cat /run/secrets/s; stat -c secret=%u:%g:%a /run/secrets/s; " +
  "stat -c config=%a /etc/cfg; touch /x 2>/dev/null || echo read-only; cat /proc/1/comm; df -k /t; exec sleep 1000";

interface ServiceSpec {
  readonly Name: string;
  readonly Labels: Record<string, string>;
  readonly TaskTemplate: Record<string, never> & { ContainerSpec: Record<string, never> };
  readonly [part: string]: unknown;
}
const specOf = async (name: string) =>
  JSON.parse(await ok("service", "inspect", "-f", "{{json .Spec}}", name)) as ServiceSpec;

test("service create: each flag that a container shows, and each that the spec does", { timeout: 60_000 }, async () => {
  const self = await ok("node", "ls", "-q");
  await ok("node", "update", "--availability", "active", "--label-add", "rack=r1", "--label-add", "gone=1", self);
  await ok("node", "update", "--label-rm", "gone", self);
  assert.equal(await ok("node", "inspect", "-f", "{{json .Spec.Labels}}", self), '{"rack":"r1"}');
  writeFileSync(file("data"), "in the file\n");
  writeFileSync(file("envs"), "# c\nB=x y\n");
  await host.docker("network", "create", "-d", "overlay", "flagnet");
  await ok("secret", "create", "-l", "a=b", "sec", file("data"));
  await ok("config", "create", "-l", "a=b", "cfg", file("data"));
  await ok(
    ...["service", "create", "-d", "-q", "--name", "all", "--entrypoint", "sh", "--cap-add", "NET_ADMIN"],
    ...[
      "--cap-drop",
      "CHOWN",
      "--config",
      "source=cfg,target=/etc/cfg,mode=0440",
      "--constraint",
      "node.role==manager",
    ],
    ...["--container-label", "cl=1", "--dns", "10.9.8.7", "--dns-option", "ndots:3", "--dns-search", "example.org"],
    ...["-e", "A=1", "--env-file", file("envs"), "--group", "777", "--health-cmd", "true", "--health-interval", "7s"],
    ...["--health-retries", "7", "--health-start-period", "2s", "--health-timeout", "3s", "--host", "friend:10.9.8.7"],
    ...["--hostname", "me-{{.Task.Slot}}", "--init", "--isolation", "default", "-l", "sl=1", "--limit-cpu", "0.5"],
    ...["--limit-memory", "64m", "--limit-pids", "99", "--log-driver", "json-file", "--log-opt", "max-size=1m"],
    ...["--mount", "type=tmpfs,target=/t,tmpfs-size=1m", "--network", "name=flagnet,alias=al", "--no-resolve-image"],
    ...[
      "--placement-pref",
      "spread=node.labels.rack",
      "-p",
      "published=8099,target=80",
      "--read-only",
      "--replicas",
      "1",
    ],
    ...["--replicas-max-per-node", "2", "--reserve-cpu", "0.1", "--reserve-memory", "16m", "--endpoint-mode", "vip"],
    ...["--restart-condition", "on-failure", "--restart-delay", "3s", "--restart-max-attempts", "4"],
    ...["--restart-window", "9s", "--rollback-delay", "1s", "--rollback-failure-action", "continue"],
    ...["--rollback-max-failure-ratio", "0.2", "--rollback-monitor", "2s", "--rollback-order", "start-first"],
    ...["--rollback-parallelism", "3", "--secret", "source=sec,target=s,uid=1234,gid=77,mode=0400"],
    ...["--stop-grace-period", "2s", "--stop-signal", "SIGUSR1", "--sysctl", "net.ipv4.ip_default_ttl=42"],
    ...["--ulimit", "nofile=99:100", "--update-delay", "1s", "--update-failure-action", "rollback"],
    ...["--update-max-failure-ratio", "0.3", "--update-monitor", "2s", "--update-order", "start-first"],
    ...["--update-parallelism", "2", "-u", "1234", "--with-registry-auth", "-w", "/tmp"],
    ...young("--health-start-interval", "9s", "--oom-score-adj", "77"),
    ...["alpine", "-c", look],
  );
  const said = await eventually("its words", async () => {
    const text = await ok("service", "logs", "--raw", "all");
    return text.includes("/t\n") || text.endsWith("/t") ? text : undefined;
  });
  for (const words of [
    /^uid=1234 gid=0\(root\) groups=0\(root\),777$/m,
    /^me-1$/m,
    /^\/tmp$/m,
    /^A=1 B=x y$/m,
    /^10\.9\.8\.7\s+friend$/m,
    /^search example\.org$/m,
    /^options .*ndots:3/m,
    /^(in the file\n.*){2}/ms,
    /^42\n99\n100$/m,
    /^secret=1234:77:400$/m,
    /^config=440$/m,
    /^read-only$/m,
    /^(docker-init|tini|init)$/m,
    /\b1024\b.*\/t$/m,
  ]) {
    assert.match(said, words);
  }
  const bounds = BigInt(`0x${/CapBnd:\s*(\w+)/.exec(said)?.[1]}`);
  assert.deepEqual([(bounds >> 12n) & 1n, bounds & 1n], [1n, 0n], "NET_ADMIN added, CHOWN dropped");
  const id = await host.docker("ps", "-q", "--filter", "label=cl=1");
  const limits =
    "{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.LogConfig.Config}} {{.Config.StopSignal}}";
  assert.equal(await host.inspect(id, limits), "500000000 67108864 99 map[max-size:1m] SIGUSR1");
  const spec = await specOf("all");
  const text = JSON.stringify(spec);
  for (const part of [
    '"Labels":{"sl":"1"}',
    '"Constraints":["node.role==manager"]',
    '"Preferences":[{"Spread":{"SpreadDescriptor":"node.labels.rack"}}]',
    '"MaxReplicas":2',
    '"Reservations":{"NanoCPUs":100000000,"MemoryBytes":16777216}',
    '"RestartPolicy":{"Condition":"on-failure","Delay":3000000000,"MaxAttempts":4,"Window":9000000000}',
    '"UpdateConfig":{"Parallelism":2,"Delay":1000000000,"FailureAction":"rollback","Monitor":2000000000,"MaxFailureRatio":0.3,"Order":"start-first"}',
    '"RollbackConfig":{"Parallelism":3,"Delay":1000000000,"FailureAction":"continue","Monitor":2000000000,"MaxFailureRatio":0.2,"Order":"start-first"}',
    '"StopGracePeriod":2000000000',
    '"DNSConfig":{"Nameservers":["10.9.8.7"],"Search":["example.org"],"Options":["ndots:3"]}',
    '"Isolation":"default"',
    '"EndpointSpec":{"Mode":"vip","Ports":[{"Protocol":"tcp","TargetPort":80,"PublishedPort":8099,"PublishMode":"ingress"}]}',
    '"Aliases":["al"]',
    ...young('"StartInterval":9000000000', '"OomScoreAdj":77'),
  ]) {
    assert.ok(text.includes(part), `${part} in ${text}`);
  }
  assert.match(
    text,
    /"Healthcheck":\{"Test":\["CMD-SHELL","true"\],"Interval":7000000000,"Timeout":3000000000,"StartPeriod":2000000000,.*?"Retries":7\}/,
  );
});

const idle = ["-d", "-q", "--replicas", "0", "--no-resolve-image"];

test("service create: modes, terminals, no health check, generic resources", async () => {
  const job = ["-d", "-q", "--no-resolve-image"];
  await each(
    [
      [
        "job",
        [...job, "--mode", "replicated-job", "--replicas", "3", "--max-concurrent", "2"],
        ["alpine", "true"],
        '"ReplicatedJob":{"MaxConcurrent":2,"TotalCompletions":3}',
      ],
      ["gjob", [...job, "--mode", "global-job"], ["alpine", "true"], '"GlobalJob":{}'],
      ["glob", [...job, "--stop-grace-period", "1s", "--mode", "global"], ["alpine", "sleep", "1000"], '"Global":{}'],
      ["tty", [...idle, "-t"], ["alpine"], '"TTY":true'],
      ["nohc", [...idle, "--no-healthcheck"], ["alpine"], '"Test":["NONE"]'],
      ["rr", [...idle, "--endpoint-mode", "dnsrr"], ["alpine"], '"Mode":"dnsrr"'],
      ["gen", [...idle, "--generic-resource", "gpu=2"], ["alpine"], '{"Kind":"gpu","Value":2}'],
    ] as const,
    async ([name, flags, rest, part]) => {
      await ok("service", "create", "--name", name, ...flags, ...rest);
      const text = JSON.stringify(await specOf(name));
      assert.ok(text.includes(part), `${part} in ${text}`);
    },
  );
  await eventually("the job", async () =>
    (await ok("service", "ls", "--filter", "name=job", "--format", "{{.Replicas}}")).includes("(3/3 completed)"),
  );
  assert.deepEqual(
    (await ok("service", "ps", "job", "--format", "{{.Name}}"))
      .split("\n")
      .map((name) => name.split(".")[1])
      .filter((slot) => /^\d$/.test(slot ?? ""))
      .sort(),
    ["1", "2"],
  );
});

test("service create: what Docker rejects is rejected in its words", { timeout: 60_000 }, async () => {
  const bad = "rpc error: code = InvalidArgument desc =";
  await ok(
    ...["service", "create", ...idle, "--name", "taken", "-p", "8082:80", "-p", "8082:80/udp"],
    ...["-p", "published=8083,target=80,mode=host", "alpine"],
  );
  const inUse = (port: number, how: string) =>
    new RegExp(`^${bad} port '${port}' is already in use by service 'taken' \\(\\w{25}\\) as ${how} port$`);
  const duplicate = `${bad} EndpointSpec: duplicate published ports provided`;
  const rows: [string, RegExp | string][] = [
    ["--name -a alpine", /name must be valid as a DNS name component|unknown shorthand flag/],
    ["--name a.b alpine", `${bad} name must be valid as a DNS name component`],
    [`--name ${"0123456789".repeat(7)} alpine`, `${bad} name must be 63 characters or fewer`],
    [
      "--name taken alpine",
      "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service taken already exists",
    ],
    ["UPPER", /^rpc error: code = InvalidArgument desc = ContainerSpec: "UPPER" is not a valid repository\/tag$/],
    ["--mode nonsense alpine", /Unknown mode: nonsense|unknown mode/i],
    ["--mode global --replicas 2 alpine", /replicas can only be used with replicated or replicated-job mode/],
    ["--mode replicated-job --update-delay 5s alpine", /update and rollback configuration is not supported for jobs/],
    ["--endpoint-mode nonsense alpine", /nonsense/],
    [
      "--endpoint-mode dnsrr -p 80:80 alpine",
      /EndpointSpec: port published with ingress mode can't be used with dnsrr mode/,
    ],
    ["-p 99999:80 alpine", /[Ii]nvalid (hostPort|port)/],
    ["-p 80:99999 alpine", /invalid containerPort: 99999|invalid port/i],
    ["-p published=99999,target=80 alpine", /value out of range/],
    ["-p 8081:80/icmp alpine", /invalid proto: icmp/i],
    ["-p published=8081,target=80,protocol=icmp alpine", /invalid protocol value '?icmp/],
    ["-p published=8081,target=80,mode=odd alpine", /invalid publish mode value \(odd\)/],
    ["-p published=8081 alpine", /missing mandatory field '?"?target/],
    ["-p 127.0.0.1:8081:80 alpine", /hostip is not supported/i],
    ["-p 8081:80 -p 8081:81 alpine", duplicate],
    ["-p 8081:80 -p published=8081,target=80,mode=host alpine", duplicate],
    ["-p published=8081,target=80,mode=host -p published=8081,target=81,mode=host alpine", duplicate],
    ["-p published=8082,target=80,mode=host alpine", inUse(8082, "an ingress")],
    ["-p 8082:81/udp alpine", inUse(8082, "an ingress")],
    ["-p 8080-8084:81 alpine", inUse(8082, "an ingress")],
    ["-p 8083:80 alpine", inUse(8083, "a host-published")],
    ["-p 8082:81 alpine", inUse(8082, "an ingress")],
    ["--limit-cpu 0.0001 alpine", `${bad} invalid cpu value 0.0001: Must be at least 0.001`],
    ["--limit-memory 1 alpine", `${bad} invalid memory value 1: Must be at least 4MiB`],
    ["--reserve-memory 1k alpine", `${bad} invalid memory value 1024: Must be at least 4MiB`],
    ["--restart-condition nonsense alpine", /nonsense/],
    ["--restart-delay -1s alpine", `${bad} TaskSpec: restart-delay cannot be negative`],
    ["--restart-window -1s alpine", `${bad} TaskSpec: restart-window cannot be negative`],
    ["--update-delay -1s alpine", `${bad} TaskSpec: update-delay cannot be negative`],
    ["--update-monitor -1s alpine", `${bad} TaskSpec: update-monitor cannot be negative`],
    [
      "--update-max-failure-ratio 2 alpine",
      `${bad} TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1`,
    ],
    ["--update-failure-action nonsense alpine", /unrecognized update failure action nonsense/],
    ["--rollback-failure-action nonsense alpine", "unrecognized update failure action nonsense"],
    ["--update-order nonsense alpine", /unrecognized update order nonsense/],
    ["--rollback-order nonsense alpine", /unrecognized (rollback|update) order nonsense/],
    ["--constraint nonsense alpine", "rpc error: code = Unknown desc = constraint expected one operator from ==, !="],
    ["--placement-pref nonsense alpine", /placement preference/],
    ["--mount type=nonsense,target=/x alpine", /nonsense/],
    ["--mount source=x alpine", /target is required/],
    [
      "--mount type=volume,source=a,target=/x --mount type=volume,source=b,target=/x alpine",
      `${bad} ContainerSpec: duplicate mount point: /x`,
    ],
    ["--network nosuch alpine", "network nosuch not found"],
    ["--network none alpine", "network none not found"],
    ["--network docker_gwbridge alpine", "network docker_gwbridge not found"],
    ["--network ingress alpine", `${bad} Service cannot be explicitly attached to the ingress network "ingress"`],
    ["--secret nosuch alpine", /secret not found: nosuch/],
    ["--config nosuch alpine", /config not found: nosuch/],
    ["--env-file /nosuch alpine", /no such file or directory/],
    ["--dns nonsense alpine", /nonsense/],
    ["--health-cmd true --no-healthcheck alpine", /--no-healthcheck conflicts with --health-\* options/],
    [
      "--health-cmd true --health-interval 1us alpine",
      `${bad} ContainerSpec: Interval in HealthConfig cannot be less than 1ms`,
    ],
    [
      "--health-cmd true --health-retries -1 alpine",
      `${bad} ContainerSpec: Retries in HealthConfig cannot be negative`,
    ],
    ["--generic-resource gpu=x alpine", /gpu/],
    ["--credential-spec nonsense alpine", /credential spec/],
    ["--mode global --replicas-max-per-node 2 alpine", /replicas-max-per-node can only be used with replicated/],
    ...ours([
      ["--credential-spec file://x alpine", /credential specs/],
      ["--isolation hyperv alpine", /isolation hyperv/],
      [
        "--hostname {{.Nonsense}} alpine",
        /^rpc error: code = InvalidArgument desc = expanding hostname failed: .*<\.Nonsense>: can't evaluate field Nonsense/,
      ],
    ]),
  ];
  await each(rows, ([words, says]) => {
    const args = words.split(" ");
    const mode = args.some((arg) => arg === "--mode" || arg === "--replicas")
      ? ["-d", "-q", "--no-resolve-image"]
      : idle;
    return refused(["service", "create", ...mode, ...args], says);
  });
  const names = (await ok("service", "ls", "--format", "{{.Name}}")).split("\n").sort();
  assert.deepEqual(names, ["all", "gen", "gjob", "glob", "job", "nohc", "rr", "taken", "tty"], "nothing was made");
  const before = JSON.stringify(await specOf("taken"));
  const updates: [string, RegExp | string][] = [
    ["--publish-add 8082:81", duplicate],
    ["--publish-add 8083:81", duplicate],
    ["--publish-add 8084:80 --endpoint-mode dnsrr", /port published with ingress mode can't be used with dnsrr mode/],
    ["--endpoint-mode odd", /invalid resolution mode: "odd"/],
    ["--network-add nosuch", "network nosuch not found"],
    ["--network-add ingress", `${bad} Service cannot be explicitly attached to the ingress network "ingress"`],
    ["--publish-add 8085:80 --limit-memory 1", `${bad} invalid memory value 1: Must be at least 4MiB`],
  ];
  await each(updates, ([words, says]) =>
    refused(["service", "update", "-d", "-q", "--no-resolve-image", ...words.split(" "), "taken"], says),
  );
  assert.equal(JSON.stringify(await specOf("taken")), before, "nothing was changed");
  // Docker takes these: the same port of another protocol, or of two services in host mode; the host's network or bridge.
  const fine = ["-p 8082:80/sctp", "-p published=8083,target=80,mode=host", "--network host", "--network bridge"];
  const made = await Promise.all(fine.map((words) => ok("service", "create", ...idle, ...words.split(" "), "alpine")));
  await ok("service", "rm", ...made);
});

test("addresses asked for on an overlay: what is none, outside, or the network's own is refused", async () => {
  const name = "asked";
  await host.docker("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.77.9.0/24", name);
  await host.docker("run", "-d", "--name", "asks", "alpine", "sleep", "1000000");
  const run = (address: string) => ["create", "--network", name, "--ip", address, "alpine"];
  for (const address of ["odd", "fe80::1"]) {
    const { code, stderr } = await host.attempt(...run(address));
    assert.notEqual(code, 0);
    assert.match(stderr, new RegExp(`invalid IPv4 address: ${address}`));
  }
  // Docker has the others found out by its managers, in twenty seconds: "attaching to network failed, …".
  const refusals: [string, string][] = [
    ["10.78.0.5", "Invalid address 10.78.0.5: It does not belong to any of this network's subnets"],
    ["10.77.9.0", "Address already in use"],
    ["10.77.9.1", "Address already in use"],
    ["10.77.9.255", "Address already in use"],
  ];
  for (const [address, says] of control ? [] : refusals) {
    const { code, stderr } = await host.attempt("network", "connect", "--ip", address, name, "asks");
    assert.notEqual(code, 0);
    assert.ok(
      stderr.includes(`Could not attach to network ${name}: rpc error: code = `) && stderr.includes(says),
      stderr,
    );
  }
  await host.docker("network", "connect", "--ip", "10.77.9.9", name, "asks");
  const again = await host.attempt("network", "connect", name, "asks");
  assert.match(again.stderr, /asks is already attached to network asked/);
  await host.docker("rm", "-f", "asks");
  await eventually("nobody is on it", async () => (await host.attempt("network", "rm", name)).code === 0);
});

test("service update: what is added is there, what is removed is gone", { timeout: 60_000 }, async () => {
  await ok("service", "create", ...idle, "--name", "u", "--no-healthcheck", "alpine", "true");
  const before = JSON.stringify(await specOf("u"));
  await host.docker("network", "create", "-d", "overlay", "second");
  const quick = ["service", "update", "-d", "-q", "--no-resolve-image"];
  await ok(
    ...[...quick, "--args", "sleep 9", "--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN", "--config-add", "cfg"],
    ...["--constraint-add", "node.role==manager", "--container-label-add", "cl=1", "--dns-add", "10.9.8.7"],
    ...[
      "--dns-option-add",
      "ndots:3",
      "--dns-search-add",
      "example.org",
      "--endpoint-mode",
      "vip",
      "--entrypoint",
      "sh",
    ],
    ...["--env-add", "A=1", "--generic-resource-add", "gpu=2", "--group-add", "777", "--host-add", "friend:10.9.8.7"],
    ...["--hostname", "h", "--image", "busybox", "--init", "--label-add", "l=1", "--limit-cpu", "0.5"],
    ...["--limit-memory", "64m", "--limit-pids", "99", "--log-driver", "json-file", "--log-opt", "max-size=1m"],
    ...[
      "--mount-add",
      "type=tmpfs,target=/t",
      "--network-add",
      "second",
      "--placement-pref-add",
      "spread=node.labels.rack",
    ],
    ...["--publish-add", "8100:80", "--read-only", "--replicas-max-per-node", "2", "--reserve-cpu", "0.1"],
    ...[
      "--reserve-memory",
      "16m",
      "--restart-condition",
      "none",
      "--restart-delay",
      "3s",
      "--restart-max-attempts",
      "4",
    ],
    ...["--restart-window", "9s", "--rollback-delay", "1s", "--rollback-failure-action", "continue"],
    ...["--rollback-max-failure-ratio", "0.2", "--rollback-monitor", "2s", "--rollback-order", "start-first"],
    ...["--rollback-parallelism", "3", "--secret-add", "sec", "--stop-grace-period", "4s", "--stop-signal", "SIGUSR1"],
    ...["--sysctl-add", "net.ipv4.ip_default_ttl=42", "-t", "--ulimit-add", "nofile=99:100", "--update-delay", "1s"],
    ...["--update-failure-action", "rollback", "--update-max-failure-ratio", "0.3", "--update-monitor", "2s"],
    ...[
      "--update-order",
      "start-first",
      "--update-parallelism",
      "2",
      "-u",
      "1234",
      "--with-registry-auth",
      "-w",
      "/tmp",
    ],
    ...["--isolation", "default", "--force", ...young("--oom-score-adj", "77"), "u"],
  );
  const text = JSON.stringify(await specOf("u"));
  for (const part of [
    '"Image":"busybox:latest"',
    '"Args":["sleep","9"]',
    '"Command":["sh"]',
    '"CapabilityAdd":["CAP_NET_ADMIN"]',
    '"CapabilityDrop":["CAP_CHOWN"]',
    '"ConfigName":"cfg"',
    '"SecretName":"sec"',
    '"Constraints":["node.role==manager"]',
    '"Labels":{"cl":"1"}',
    '"DNSConfig":{"Nameservers":["10.9.8.7"],"Search":["example.org"],"Options":["ndots:3"]}',
    '"Env":["A=1"]',
    '"Groups":["777"]',
    '"Hosts":["10.9.8.7 friend"]',
    '"Hostname":"h"',
    '"Init":true',
    '"Labels":{"l":"1"}',
    '"Limits":{"NanoCPUs":500000000,"MemoryBytes":67108864,"Pids":99}',
    '{"Kind":"gpu","Value":2}',
    '"LogDriver":{"Name":"json-file","Options":{"max-size":"1m"}}',
    '"Mounts":[{"Type":"tmpfs","Target":"/t"}]',
    '"PublishedPort":8100',
    '"ReadOnly":true',
    '"MaxReplicas":2',
    '"RestartPolicy":{"Condition":"none","Delay":3000000000,"MaxAttempts":4,"Window":9000000000}',
    '"Sysctls":{"net.ipv4.ip_default_ttl":"42"}',
    '"TTY":true',
    '"Ulimits":[{"Name":"nofile","Hard":100,"Soft":99}]',
    '"User":"1234"',
    '"Dir":"/tmp"',
    '"ForceUpdate":1',
    '"StopGracePeriod":4000000000,',
    '"Order":"start-first"',
  ]) {
    assert.ok(text.includes(part), `${part} in ${text}`);
  }
  await ok(
    ...[...quick, "--cap-drop", "NET_ADMIN", "--config-rm", "cfg", "--constraint-rm", "node.role==manager"],
    ...["--container-label-rm", "cl", "--dns-rm", "10.9.8.7", "--dns-option-rm", "ndots:3"],
    ...["--dns-search-rm", "example.org", "--env-rm", "A", "--generic-resource-rm", "gpu", "--group-rm", "777"],
    ...["--host-rm", "friend:10.9.8.7", "--label-rm", "l", "--mount-rm", "/t", "--network-rm", "second"],
    ...["--placement-pref-rm", "spread=node.labels.rack", "--publish-rm", "8100:80", "--secret-rm", "sec"],
    ...["--sysctl-rm", "net.ipv4.ip_default_ttl", "--ulimit-rm", "nofile"],
    ...["--health-cmd", "true", "--health-interval", "7s", "--health-retries", "7", "--health-start-period", "2s"],
    ...["--health-timeout", "3s", ...young("--health-start-interval", "9s"), "--replicas", "0", "u"],
  );
  const after = JSON.stringify(await specOf("u"));
  for (const part of [
    'NET_ADMIN"],',
    "cfg",
    "node.role",
    '"cl"',
    "10.9.8.7",
    "ndots",
    "example.org",
    '"A=1"',
    "gpu",
    '"777"',
    "friend",
    '"l"',
    '/t"',
    "spread",
    "8100",
    "SecretName",
    "ip_default_ttl",
    "nofile",
  ]) {
    assert.ok(!after.includes(part), `${part} in ${after}`);
  }
  assert.match(after, /"Healthcheck":\{"Test":\["CMD-SHELL","true"\],"Interval":7000000000/);
  await ok(...quick, "--no-healthcheck", "u");
  assert.ok(JSON.stringify(await specOf("u")).includes('"Test":["NONE"]'));
  await ok("service", "update", "-d", "--rollback", "u");
  assert.match(JSON.stringify(await specOf("u")), /"Interval":7000000000/, "as before the last update");
  await ok("service", "rollback", "-d", "-q", "u");
  assert.ok(JSON.stringify(await specOf("u")).includes('"Test":["NONE"]'), "a second rollback undoes the first");
  await refused(["service", "rollback", "-d", "taken"], /service \w{25} does not have a previous spec$/);
  assert.ok(before.includes('"Test":["NONE"]'));
  // The command line takes it and sends nothing of it.
  await ok(...quick, "--max-concurrent", "3", "job");
  if (!control) await refused([...quick, "--credential-spec", "file://x", "u"], /credential specs/);
  await refused([...quick, "--image", "UPPER", "u"], /is not a valid repository\/tag/);
  await refused(["service", "update", "-d", "nosuch"], /service nosuch not found/);
});

test("service logs, ps, ls, scale, inspect: each flag", { timeout: 60_000 }, async () => {
  const said = "for i in 1 2 3; do echo line $i; done; echo \"$(head -c 4 /dev/zero | tr '\\0' x)\"; exec sleep 1000";
  await ok(
    "service",
    "create",
    "-q",
    "--no-resolve-image",
    "--stop-grace-period",
    "1s",
    "--name",
    "talk",
    "alpine",
    "sh",
    "-c",
    said,
  );
  const lines = async (...flags: string[]) => (await ok("service", "logs", ...flags, "talk")).split("\n");
  await eventually("its lines", async () => (await lines("--raw")).length === 4);
  assert.deepEqual(await lines("--raw", "-n", "2"), ["line 3", "xxxx"]);
  assert.match((await lines("-t", "--raw", "--tail", "1"))[0] ?? "", /^\d{4}-\d\d-\d\dT[\d:.]+Z xxxx$/);
  const named = (await lines("--tail", "1"))[0] ?? "";
  assert.match(named, /^talk\.1\.\w{12}@host\s+\| xxxx$/);
  assert.match((await lines("--tail", "1", "--no-trunc"))[0] ?? "", /^talk\.1\.\w{25}@host\s+\| xxxx$/);
  assert.match((await lines("--tail", "1", "--no-task-ids"))[0] ?? "", /^talk\.1@host\s+\| xxxx$/);
  assert.match((await lines("--tail", "1", "--no-resolve"))[0] ?? "", /^\w{25}\.1\.\w{12}@\w{25}\s+\| xxxx$/);
  assert.match((await lines("--tail", "1", "--details"))[0] ?? "", /^talk\.1\.\w{12}@host\s+\| {2}xxxx$/);
  assert.equal((await lines("--raw", "--since", "2099-01-01T00:00:00"))[0], "");
  assert.equal((await followed(4, "service", "logs", "-f", "--raw", "talk")).at(-1), "xxxx");
  const ps = (...flags: string[]) => ok("service", "ps", ...flags, "talk");
  const [id = ""] = (await ps("-q", "--no-trunc")).split("\n");
  assert.match(id, /^\w{25}$/);
  assert.equal(await ps("-q"), id);
  assert.equal(await ps("--format", "{{.Node}}"), "host");
  assert.match(await ps("--no-resolve", "--format", "{{.Node}}"), /^\w{25}$/);
  assert.equal(await ps("-f", "desired-state=shutdown", "--format", "{{.ID}}"), "");
  await refused(["service", "ps", "-f", "nonsense=1", "talk"], /nonsense/);
  assert.equal(
    await ok("service", "ls", "-q", "-f", "name=talk"),
    (await ok("service", "inspect", "-f", "{{.ID}}", "talk")).slice(0, 12),
  );
  await refused(["service", "ls", "-f", "nonsense=1"], /nonsense/);
  assert.match(await ok("service", "inspect", "--pretty", "talk"), /^Name:\s+talk$/m);
  await ok("service", "scale", "-d", "talk=0");
  await eventually(
    "no task",
    async () => (await ok("service", "ls", "-f", "name=talk", "--format", "{{.Replicas}}")) === "0/0",
  );
  await refused(["service", "scale", "glob=2"], /scale can only be used with replicated/);
  await ok("service", "rm", "talk");
});

test("node: each flag", async () => {
  const self = await ok("node", "ls", "-q");
  assert.equal(
    await ok("node", "ls", "-f", "role=manager", "--format", "{{.Hostname}} {{.ManagerStatus}}"),
    "host Leader",
  );
  await refused(["node", "ls", "-f", "nonsense=1"], /nonsense/);
  assert.match(await ok("node", "ps", "-f", "desired-state=running", "--format", "{{.Name}}", "self"), /all\.1/);
  assert.match(await ok("node", "ps", "-q", "--no-trunc"), /^\w{25}$/m);
  assert.match(await ok("node", "ps", "--no-resolve", "--format", "{{.Name}}"), /\w{25}\.1/);
  assert.match(await ok("node", "inspect", "--pretty", "self"), /^Status:\n State:\s+Ready/m);
  await refused(
    ["node", "update", "--role", "worker", self],
    "rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the swarm",
  );
  await refused(["node", "update", "--role", "nonsense", self], /invalid [Rr]ole:? "nonsense"/);
  await refused(["node", "update", "--availability", "nonsense", self], /invalid [Aa]vailability:? "nonsense"/);
  await refused(
    ["node", "rm", self],
    /is a cluster manager and is a member of the raft cluster\. It must be demoted to worker before removal/,
  );
  await refused(["node", "rm", "--force", self], /It must be demoted to worker before removal/);
  await refused(["node", "inspect", "nosuch"], /No such node: nosuch|node nosuch not found/);
});

test("config and secret: each flag", async () => {
  for (const kind of ["config", "secret"]) {
    const name = kind === "config" ? "cfg" : "sec";
    assert.equal(await ok(kind, "ls", "-f", "label=a=b", "--format", "{{.Name}}"), name);
    assert.match(await ok(kind, "ls", "-q"), /^\w{25}$/);
    await refused([kind, "ls", "-f", "nonsense=1"], /nonsense/);
    assert.equal(await ok(kind, "inspect", "-f", "{{json .Spec.Labels}}", name), '{"a":"b"}');
    assert.match(await ok(kind, "inspect", "--pretty", name), new RegExp(`^Name:\\s+${name}$`, "m"));
    await ok(kind, "create", "--template-driver", "golang", `${name}-t`, file("data"));
    assert.equal(await ok(kind, "inspect", "-f", "{{.Spec.Templating.Name}}", `${name}-t`), "golang");
    const taken = `rpc error: code = AlreadyExists desc = ${kind} ${name} already exists`;
    await refused([kind, "create", name, file("data")], taken);
    await refused([kind, "create", "-bad-", file("data")], /invalid name|unknown shorthand/);
    await refused([kind, "rm", name], new RegExp(`${kind} '${name}' is in use by the following service`));
    await ok(kind, "rm", `${name}-t`);
  }
  await refused(["secret", "create", "--driver", "nosuch", "driven"], /nosuch|secret drivers/);
});

test("stack: each flag", { timeout: 60_000 }, async () => {
  const compose = (services: Record<string, unknown>) => JSON.stringify({ version: "3.8", services });
  const one = { image: "alpine", command: "sleep 1000", stop_grace_period: "1s", deploy: { replicas: 0 } };
  writeFileSync(file("two.json"), compose({ a: one, b: one }));
  writeFileSync(file("one.json"), compose({ a: one }));
  const deploy = async (...flags: string[]) => {
    const has = known.get("stack deploy")?.long;
    const wanted = flags.filter(
      (flag) => !/^--(detach|quiet)/.test(flag) || has?.has(/^--([a-z]+)/.exec(flag)?.[1] ?? ""),
    );
    await ok("stack", "deploy", ...wanted, "st");
  };
  await deploy("-c", file("two.json"), "--detach=true", "--quiet", "--resolve-image", "never", "--with-registry-auth");
  assert.equal(await ok("stack", "services", "--format", "{{.Name}}", "st"), "st_a\nst_b");
  assert.equal(
    await ok("stack", "services", "-q", "-f", "name=st_a", "st"),
    (await ok("service", "inspect", "-f", "{{.ID}}", "st_a")).slice(0, 12),
  );
  assert.equal(await ok("stack", "ls", "--format", "{{.Name}} {{.Services}}"), "st 2");
  await deploy("-c", file("one.json"), "--detach=true", "--prune", "--resolve-image", "never");
  assert.equal(await ok("stack", "services", "--format", "{{.Name}}", "st"), "st_a");
  await ok("service", "scale", "-d", "st_a=1");
  await eventually("its task", async () => (await ok("stack", "ps", "--format", "{{.Node}}", "st")) !== "");
  assert.match(await ok("stack", "ps", "-q", "--no-trunc", "st"), /^\w{25}$/);
  assert.equal(await ok("stack", "ps", "--format", "{{.Name}}", "-f", "desired-state=running", "st"), "st_a.1");
  assert.match(await ok("stack", "ps", "--no-resolve", "--format", "{{.Node}}", "st"), /^\w{25}$/);
  await ok("stack", "rm", ...(known.get("stack rm")?.long.has("detach") ? ["--detach=true"] : []), "st");
  assert.equal(await ok("stack", "ls", "--format", "{{.Name}}"), "");
});

test("every flag of every command was used", async () => {
  await ok("swarm", "leave", "--force");
  const left = [...known].flatMap(([command, { long }]) =>
    [...long].filter((flag) => flag !== "help" && !used.get(command)?.has(flag)).map((flag) => `${command} --${flag}`),
  );
  // What the control is too old for, and what it takes that Skein refuses.
  const excused = control
    ? /start-interval|oom-score-adj|external-ca|credential-spec|swarm join --advertise-addr/
    : /^$/;
  assert.deepEqual(
    left.filter((flag) => !excused.test(flag)),
    [],
    version,
  );
});

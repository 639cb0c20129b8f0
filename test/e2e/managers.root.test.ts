/**
 * Three managers and a worker, driven by the stock CLI: managers come and go, the leader dies, the quorum is lost and
 * comes back, a swarm begins anew from one manager.
 */
import assert from "node:assert/strict";
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { after, before, test } from "node:test";
import { startDaemon } from "../../src/lab/host.ts";
import { hostOf } from "../../src/lab/lab.ts";
import { end, run, signal } from "../../src/lab/process.ts";
import { setCable } from "../../src/lab/switch.ts";
import { type DataKey, forgetUnlockKey, readCredentials, unlockKeys } from "../../src/swarm/ca/files.ts";
import { parseUnlockKey } from "../../src/swarm/ca/seal.ts";
import { opened, valuesIn } from "../support/etcd-file.ts";
import { eventually, TestLab } from "../support/lab.ts";

const root = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");
const names = ["m1", "m2", "m3", "w1"];
const managers = ["m1", "m2", "m3"];
const noLeader = /The swarm does not have a leader\. It's possible that too few managers are online\./;
let lab: TestLab;

before(async () => {
  lab = await TestLab.up("mgr", "10.81.0.0/24", { names });
});
after(async () => {
  await lab?.[Symbol.asyncDispose]();
});

const address = (host: string) => lab.host(host).address;

function daemonOf(host: string) {
  const daemon = lab.lab.state.running[host]?.daemon;
  assert.ok(daemon, `no skeind runs on ${host}`);
  return daemon;
}

const kill = async (host: string) => assert.ok(await end(daemonOf(host), "SIGKILL", 5_000));

async function start(host: string): Promise<void> {
  const { host: spec, state } = hostOf(lab.lab, host);
  lab.lab.state.running[host] = await startDaemon(spec, state);
}

/** Name, status and manager status of each node, as a host tells them; undefined while it does not. */
async function nodes(host: string): Promise<Map<string, string> | undefined> {
  const { code, stdout } = await lab.try(
    host,
    "node",
    "ls",
    "--format",
    "{{.Hostname}} {{.Status}} {{.ManagerStatus}}",
  );
  if (code !== 0) return undefined;
  return new Map(
    stdout
      .trim()
      .split("\n")
      .map((line) => [line.split(" ")[0] ?? "", line.split(" ").slice(1).join(" ").trim()]),
  );
}

async function leaderOf(host: string): Promise<string | undefined> {
  return [...((await nodes(host)) ?? [])].find(([, text]) => text.endsWith("Leader"))?.[0];
}

/** Containers of all hosts: none of them may be started anew by what happens to managers. */
async function containers(): Promise<string[]> {
  const lists = await Promise.all(
    names.map((host) => lab.ok(host, "ps", "-q", "--no-trunc", "--filter", "name=still")),
  );
  return lists.flatMap((list) => list.split("\n").filter(Boolean)).sort();
}

/** No container was started anew; when one was, the tasks' history tells why. */
async function unchanged(before: readonly string[]): Promise<void> {
  const now = await containers();
  if (now.join() === before.join()) return;
  const format = "{{.Name}} {{.Node}} {{.DesiredState}} {{.CurrentState}} {{.Error}}";
  const { stdout } = await lab.try("m1", "service", "ps", "--no-trunc", "--format", format, "still");
  assert.deepEqual(now, before, stdout);
}

async function others(host: string): Promise<string> {
  const other = managers.find((name) => name !== host);
  assert.ok(other);
  return other;
}

/** `docker swarm unlock` reads the key from its standard input. */
const unlock = (host: string, key: string) =>
  run(["docker", "-H", `unix://${lab.host(host).socket}`, "swarm", "unlock"], { input: Buffer.from(`${key}\n`) });

const swarmDir = (host: string) => `${lab.host(host).stateDir}/swarm`;
const member = (host: string) => `${swarmDir(host)}/etcd/data/member`;

/** What these keys open in a manager's database, and in its log. */
function openedOn(host: string, keys: readonly DataKey[]): { db: string[]; log: string[] } {
  const names = (path: string) => {
    const found = valuesIn(path);
    return keys.flatMap(({ key }) =>
      opened(found, key).map(({ object, plain }) => `${object} ${plain.toString("latin1")}`),
    );
  };
  const logs = readdirSync(`${member(host)}/wal`).filter((name) => name.endsWith(".wal"));
  return { db: names(`${member(host)}/snap/db`), log: logs.flatMap((name) => names(`${member(host)}/wal/${name}`)) };
}

/** The data keys on a copy of a manager's disk, opened with an unlock key. */
function keysOnCopy(host: string, unlockKey: string): readonly DataKey[] {
  const copy = `${lab.host(host).stateDir}/copy`;
  cpSync(`${swarmDir(host)}/certificates`, `${copy}/certificates`, { recursive: true });
  try {
    assert.ok(unlockKeys(copy, parseUnlockKey(unlockKey)));
    return readCredentials(copy)?.dataKeys ?? [];
  } finally {
    forgetUnlockKey(copy);
    rmSync(copy, { recursive: true });
  }
}

/** Docker's `secret create NAME -`. */
async function createSecret(host: string, name: string, payload: string): Promise<void> {
  const command = ["docker", "-H", `unix://${lab.host(host).socket}`, "secret", "create", name, "-"];
  const { code, stderr } = await run(command, { input: Buffer.from(payload) });
  assert.equal(code, 0, stderr);
}

test("managers join by their token, and every one of them answers", async () => {
  // Docker's heartbeat: with ours a host that is frozen or cut off for seconds is rightly given up.
  await lab.ok("m1", "swarm", "init", "--advertise-addr", address("m1"), "--dispatcher-heartbeat", "5s");
  const token = await lab.ok("m1", "swarm", "join-token", "-q", "manager");
  for (const host of ["m2", "m3"]) {
    const said = await lab.ok(host, "swarm", "join", "--token", token, `${address("m1")}:2377`);
    assert.equal(said, "This node joined a swarm as a manager.");
  }
  const workers = await lab.ok("m3", "swarm", "join-token", "-q", "worker");
  await lab.ok("w1", "swarm", "join", "--token", workers, `${address("m2")}:2377`);
  for (const host of managers) {
    await eventually(`${host} sees all nodes`, async () => {
      const seen = await nodes(host);
      return seen?.size === 4 && [...seen.values()].every((text) => text.startsWith("Ready"));
    });
    const seen = await nodes(host);
    assert.deepEqual(
      names.map((name) => seen?.get(name)),
      ["Ready Leader", "Ready Reachable", "Ready Reachable", "Ready"],
    );
  }
});

test("a manager that does not lead takes writes, reads its own, and gives logs", async () => {
  await lab.ok("m2", "network", "create", "-d", "overlay", "ov");
  assert.match(await lab.ok("m2", "network", "ls"), /ov/);
  const script = "echo alive; exec sleep 100000";
  await lab.ok(
    "m3",
    "service",
    "create",
    "-q",
    "--name",
    "still",
    "--network",
    "ov",
    "--replicas",
    "8",
    "--stop-grace-period",
    "1s",
    "skein/box",
    "sh",
    "-c",
    script,
  );
  await eventually("8 tasks run", async () => (await lab.ok("m2", "service", "ls")).includes("8/8"));
  // Running is what a task is before its first line.
  const lines = async () => (await lab.ok("m2", "service", "logs", "--raw", "still")).split("\n").sort();
  await eventually("each has told", async () => (await lines()).join() === Array(8).fill("alive").join());
  const twice = await lab.try("m2", "network", "create", "-d", "overlay", "ov");
  assert.match(twice.stderr, /already exists/);
});

test("the leader is killed, frozen, or cut off: another one leads within seconds and nothing is started anew", async () => {
  const before = await containers();
  assert.equal(before.length, 8);
  const ways = [
    { how: (host: string) => kill(host), back: (host: string) => start(host) },
    {
      how: async (host: string) => signal(daemonOf(host), "SIGSTOP"),
      back: async (host: string) => signal(daemonOf(host), "SIGCONT"),
    },
    {
      how: async (host: string) => setCable(lab.host(host), false),
      back: async (host: string) => setCable(lab.host(host), true),
    },
  ];
  for (const { how, back } of ways) {
    const old = await leaderOf("m1");
    assert.ok(old);
    const witness = await others(old);
    const began = Date.now();
    await how(old);
    await eventually(
      "another one leads",
      async () => {
        const leader = await leaderOf(witness);
        return leader !== undefined && leader !== old;
      },
      20_000,
    );
    const tookMs = Date.now() - began;
    assert.ok(tookMs < 12_000, `it took ${tookMs} ms`);
    await lab.ok(witness, "service", "update", "-d", "--label-add", `was=${old}`, "still");
    await back(old);
    await eventually(
      `${old} is back as a follower`,
      async () => {
        const seen = await nodes(old);
        return seen?.get(old) === "Ready Reachable" && [...seen.values()].every((text) => text.startsWith("Ready"));
      },
      30_000,
    );
  }
  await unchanged(before);
});

test("without a quorum nothing is changed and nothing is lost; with it again everything goes on", async () => {
  const before = await containers();
  // The leader is left alone: what it is asked for must not come true later, when it has been refused.
  const left = await leaderOf("m1");
  assert.ok(left);
  const [first, second] = managers.filter((name) => name !== left);
  assert.ok(first && second);
  await Promise.all([kill(first), kill(second)]);
  const refused = await lab.try(left, "service", "scale", "-d", "still=9");
  assert.match(refused.stderr, noLeader);
  assert.match((await lab.try(left, "node", "ls")).stderr, noLeader);
  assert.equal((await lab.ok(left, "info", "--format", "{{.Swarm.LocalNodeState}}")).trim(), "active");
  await start(second);
  await eventually("a leader is there", async () => (await leaderOf(left)) !== undefined, 30_000);
  await start(first);
  await eventually(
    "all are there",
    async () => {
      const seen = await nodes(first);
      return seen && managers.every((host) => /^Ready (Reachable|Leader)$/.test(seen.get(host) ?? ""));
    },
    60_000,
  );
  assert.match(await lab.ok(left, "service", "ls"), /8\/8/);
  await unchanged(before);
});

test("locked: each manager's keys follow the swarm's, and open with the newest key only", async () => {
  const before = await containers();
  const keys = () =>
    managers.map((host) => readFileSync(`${lab.host(host).stateDir}/swarm/certificates/swarm-node.key`, "utf8"));
  const locked = (text: string) => !/PRIVATE KEY|DATA KEY/.test(text);
  const inTheClear = readCredentials(swarmDir("m1"))?.dataKeys ?? [];
  assert.notEqual(openedOn("m1", inTheClear).db.length, 0);
  const first = /SWMKEY-1-\S+/.exec(await lab.ok("m2", "swarm", "update", "--autolock=true"))?.[0];
  assert.ok(first);
  await eventually("all are locked", async () => keys().every(locked));
  const under = keys();
  await eventually("one data key is left", async () => keysOnCopy("m3", first).length === 1);
  const copied = keysOnCopy("m3", first);
  const second = await lab.ok("m3", "swarm", "unlock-key", "--rotate", "-q");
  await eventually("all are locked anew", async () => keys().every((text, i) => locked(text) && text !== under[i]));
  const leads = await leaderOf("m1");
  const follower = managers.find((host) => host !== leads);
  assert.ok(follower);
  await kill(follower);
  assert.ok(leads);
  await createSecret(leads, "new", "made-after-the-copies");
  // One that is away when keys change opens with the unlock key it knows, and asks the others for the data key.
  await lab.ok(leads, "swarm", "unlock-key", "--rotate", "-q");
  await start(follower);
  assert.match((await unlock(follower, first)).stderr, /invalid key provided/);
  assert.equal((await unlock(follower, second)).code, 0);
  await eventually("it serves", async () => (await nodes(follower))?.size === names.length);
  const old = [...inTheClear, ...copied];
  for (const host of managers) {
    await eventually(`old keys open nothing in the database of ${host}`, async () => {
      return openedOn(host, old).db.length === 0;
    });
    assert.ok(!openedOn(host, old).log.some((text) => text.includes("made-after")));
  }
  await lab.ok(follower, "swarm", "update", "--autolock=false");
  await eventually("all are in the clear", async () => !keys().some(locked));
  for (const host of managers) {
    const now = await eventually(`${host} has one data key`, async () => {
      const { dataKeys } = readCredentials(swarmDir(host)) ?? {};
      return dataKeys?.length === 1 && dataKeys;
    });
    assert.ok(
      openedOn(host, now).db.some((text) => text.includes("made-after-the-copies")),
      "the file is read rightly",
    );
  }
  await eventually("all are reachable", async () => {
    const list = await nodes(follower);
    return managers.every((host) => /^Ready (Leader|Reachable)$/.test(list?.get(host) ?? ""));
  });
  await unchanged(before);
});

test("demoted, also as the leader, promoted again: its containers stay", async () => {
  const before = await containers();
  const leader = await leaderOf("m1");
  assert.ok(leader);
  const witness = await others(leader);
  await lab.ok(witness, "node", "demote", leader);
  await eventually(
    `${leader} is a worker`,
    async () => /Worker nodes can't be used to view or modify/.test((await lab.try(leader, "node", "ls")).stderr),
    30_000,
  );
  assert.equal(await lab.ok(leader, "info", "--format", "{{.Swarm.ControlAvailable}}"), "false");
  await eventually("it is no manager in the list", async () => (await nodes(witness))?.get(leader) === "Ready");
  await eventually("it is promoted", async () => (await lab.try(witness, "node", "promote", leader)).code === 0);
  await eventually(`${leader} is a manager`, async () => (await nodes(leader))?.get(leader) === "Ready Reachable");
  await eventually("the worker is promoted", async () => (await lab.try(witness, "node", "promote", "w1")).code === 0);
  await eventually("w1 is a manager", async () => (await nodes("w1"))?.get("w1") === "Ready Reachable");
  // Demoted and promoted again while it hears no manager: it never was a worker, but the others have removed its member.
  const deaf = `table inet deaf {
    chain in { type filter hook input priority -300; iifname != "lo" tcp dport 2377 drop; iifname != "lo" tcp sport 2377 drop; }
    chain out { type filter hook output priority -300; oifname != "lo" tcp dport 2377 drop; oifname != "lo" tcp sport 2377 drop; }
  }`;
  assert.equal((await lab.in("w1", "nft", deaf)).code, 0);
  await eventually("w1 is to be a worker", async () => (await lab.try(witness, "node", "demote", "w1")).code === 0);
  await eventually("its member is removed", async () => /^\w+$/.test((await nodes(witness))?.get("w1") ?? ""));
  await eventually("w1 is to be a manager", async () => (await lab.try(witness, "node", "promote", "w1")).code === 0);
  assert.equal((await lab.in("w1", "nft", "delete table inet deaf")).code, 0);
  await eventually("w1 is a manager again", async () => (await nodes("w1"))?.get("w1") === "Ready Reachable");
  await eventually("w1 is demoted", async () => (await lab.try("w1", "node", "demote", "w1")).code === 0);
  await eventually("w1 is a worker", async () => (await nodes(witness))?.get("w1") === "Ready");
  await unchanged(before);
});

test("a manager leaves: the others keep their quorum, and it can be removed", async () => {
  const without = await lab.try("m3", "swarm", "leave");
  assert.match(without.stderr, /participating as a manager/);
  await lab.ok("m3", "swarm", "leave", "--force");
  // It may have led: who leads now, and what that one knows, takes a moment.
  await eventually("it is no manager in the list", async () => {
    const status = (await nodes("m1"))?.get("m3");
    return status !== undefined && !/Reachable|Leader/.test(status);
  });
  await lab.ok("m1", "node", "rm", "--force", "m3");
  await lab.ok("m2", "service", "scale", "-d", "still=8");
});

test("one manager is left: a new swarm is forced from its data, and the other comes back as a worker", async () => {
  await kill("m2");
  await eventually("there is no quorum", async () => noLeader.test((await lab.try("m1", "node", "ls")).stderr));
  await lab.ok("m1", "swarm", "init", "--force-new-cluster", "--advertise-addr", address("m1"));
  assert.equal((await nodes("m1"))?.get("m1")?.endsWith("Leader"), true);
  assert.match(await lab.ok("m1", "service", "ls"), /still/);
  const last = await lab.try("m1", "node", "demote", "m1");
  assert.match(last.stderr, /attempting to demote the last manager of the swarm/);
  await start("m2");
  await eventually("m2 is a worker", async () => (await nodes("m1"))?.get("m2") === "Ready", 60_000);
  await eventually("8 tasks run", async () => (await lab.ok("m1", "service", "ls")).includes("8/8"), 60_000);
});

test("locked: a restarted manager gives nothing away until it is unlocked", async () => {
  await createSecret("m1", "kept", "payload-of-the-secret");
  await lab.ok(
    "m1",
    "service",
    "create",
    "-q",
    "--name",
    "reader",
    "--constraint",
    "node.hostname==m1",
    "--secret",
    "kept",
    "skein/box",
    "sleep",
    "100000",
  );
  const before = readCredentials(swarmDir("m1"))?.dataKeys ?? [];
  const set = await lab.ok("m1", "swarm", "update", "--autolock=true");
  const key = /SWMKEY-1-\S+/.exec(set)?.[0];
  assert.ok(key, set);
  assert.match(await lab.ok("m1", "swarm", "unlock-key"), new RegExp(key.replace(/[+/]/g, ".")));
  const state = `${lab.host("m1").stateDir}/swarm`;
  const keyFile = readFileSync(`${state}/certificates/swarm-node.key`, "utf8");
  assert.doesNotMatch(keyFile, /PRIVATE KEY|DATA KEY/);
  assert.doesNotMatch(readFileSync(`${state}/etcd/data/member/snap/db`, "latin1"), /PRIVATE KEY|skein\/box/);
  await eventually("the old key opens nothing", async () => openedOn("m1", before).db.length === 0);
  assert.equal(await end(daemonOf("m1"), "SIGTERM", 15_000), true);
  await start("m1");
  assert.equal(await lab.ok("m1", "info", "--format", "{{.Swarm.LocalNodeState}}"), "locked");
  // Nothing of all that is on the disk, the containers of tasks among it, tells a secret or a key.
  // Libraries of TLS in images hold keys of their own, for their self-tests.
  const elsewhere = ["--devices=skip", "--exclude-dir=blobs", "--exclude=*.so.*"];
  const grep = (pattern: string) =>
    run(["env", "LC_ALL=C", "grep", "-rlazP", ...elsewhere, pattern, lab.host("m1").stateDir]);
  const pem = "-----BEGIN ([A-Z]+ )*(PRIVATE|DATA) KEY[ 0-9]*-----(\\n|\\\\n)[A-Za-z0-9+/]{40}";
  assert.equal((await grep(`payload-of-the-secret|${pem}`)).stdout, "");
  assert.match((await grep("SKEIN LOCKED KEYS")).stdout, /swarm-node\.key/);
  assert.match(
    (await lab.try("m1", "service", "ls")).stderr,
    /Swarm is encrypted and needs to be unlocked before it can be used/,
  );
  const wrong = `${key.slice(0, -4)}AAAA`;
  assert.match((await unlock("m1", wrong)).stderr, /invalid key provided/);
  assert.equal((await unlock("m1", key)).code, 0);
  await eventually("it serves", async () => (await lab.try("m1", "service", "ls")).stdout.includes("still"));
  assert.equal(
    await lab.ok(
      "m1",
      "exec",
      (await lab.ok("m1", "ps", "-q", "--filter", "name=reader")).trim(),
      "cat",
      "/run/secrets/kept",
    ),
    "payload-of-the-secret",
  );
  await lab.ok("m1", "service", "rm", "reader");
  const rotated = await lab.ok("m1", "swarm", "unlock-key", "--rotate", "-q");
  assert.notEqual(rotated, key);
  await lab.ok("m1", "swarm", "update", "--autolock=false");
  await eventually("the key is in the clear", async () =>
    readFileSync(`${state}/certificates/swarm-node.key`, "utf8").includes("PRIVATE KEY"),
  );
});

test("backup and restore: what was lost with the manager's disk is there again", async () => {
  const { stateDir } = lab.host("m1");
  const file = `${stateDir}/kept.tar`;
  const skein = (...args: string[]) => run([`${root}/bin/skein`, "swarm", ...args, "--data-root", stateDir]);
  const stop = () => end(daemonOf("m1"), "SIGTERM", 15_000);
  assert.match((await skein("backup", file)).stderr, /the swarm's state in \S+ is in use\nskein: stop skeind first/);
  assert.ok(!existsSync(file));
  assert.match((await run([`${root}/bin/skein`, "swarm", "backup", file])).stderr, /there is no manager's state/);
  await stop();
  const made = await skein("backup", file);
  assert.equal(made.code, 0, made.stderr);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.match((await skein("backup", file)).stderr, /kept\.tar exists/);
  assert.match((await skein("restore", file)).stderr, /holds the state of a swarm already/);
  await start("m1");
  await eventually("it serves", async () => (await lab.try("m1", "service", "ls")).stdout.includes("8/8"), 60_000);
  await lab.ok("m1", "service", "create", "-d", "-q", "--name", "later", "skein/box", "sleep", "1000");
  await stop();
  rmSync(`${stateDir}/swarm`, { recursive: true });
  assert.match((await skein("restore", `${root}/package.json`)).stderr, /tar: |no backup of a manager/);
  const restored = await skein("restore", file);
  assert.equal(restored.code, 0, restored.stderr);
  await start("m1");
  await eventually(
    "it serves again",
    async () => (await lab.try("m1", "service", "ls")).stdout.includes("8/8"),
    60_000,
  );
  assert.doesNotMatch(await lab.ok("m1", "service", "ls"), /later/);
  await lab.ok("m1", "service", "scale", "-d", "still=9");
  await eventually("9 tasks run", async () => (await lab.ok("m1", "service", "ls")).includes("9/9"), 60_000);
  await eventually("the worker is back", async () => (await nodes("m1"))?.get("w1") === "Ready", 60_000);
});

/**
 * Our memberlist among real ones: `serf` agents (hashicorp's own memberlist, encrypted) on loopback
 * addresses. Skipped where serf is not installed. Takes about a minute of real time.
 */
import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process";
import { after, before, test } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { promisify } from "node:util";
import { nullLogger } from "../../../src/base/log.ts";
import { createGossip } from "../../../src/gossip/gossip.ts";
import { dockerConfig } from "../../../src/gossip/memberlist/config.ts";
import { openTransport } from "../../../src/gossip/transport.ts";
import type { Gossip, NodeEvent, Transport } from "../../../src/gossip/types.ts";

const run = promisify(execFile);
const port = 17946;
const key = Buffer.from("0123456789abcdef");
/** Serf speaks versions 2 to 5 of its own protocol inside; nodes that do not are refused. */
const config = { ...dockerConfig, vsn: Uint8Array.of(1, 5, 2, 2, 5, 4) };
const installed = spawnSync("serf", ["version"]).status === 0;

interface Agent {
  readonly process: ChildProcess;
  readonly rpc: string;
  readonly log: string[];
}

const agents = new Map<number, Agent>();
let us: Gossip;
let transport: Transport;
const events: NodeEvent[] = [];
/** Packets to these addresses are lost on our side; streams pass. */
const deaf = new Set<string>();

const addressOf = (host: number) => `127.0.8.${host}`;

function startAgent(host: number): void {
  const rpc = `${addressOf(host)}:17373`;
  const child = spawn("serf", [
    "agent",
    `-node=serf${host}`,
    `-bind=${addressOf(host)}:${port}`,
    `-rpc-addr=${rpc}`,
    `-encrypt=${key.toString("base64")}`,
    "-log-level=debug",
    ...(host > 1 ? [`-retry-join=${addressOf(1)}:${port}`, "-retry-interval=1s"] : []),
  ]);
  const log: string[] = [];
  child.stdout.on("data", (text) => log.push(String(text)));
  child.stderr.on("data", (text) => log.push(String(text)));
  agents.set(host, { process: child, rpc, log });
}

async function serfMembers(host: number): Promise<Map<string, string>> {
  const { stdout } = await run("serf", ["members", `-rpc-addr=${agents.get(host)?.rpc}`, "-format=json"]);
  const { members } = JSON.parse(stdout) as { members: { name: string; status: string }[] };
  return new Map(members.map((member) => [member.name, member.status]));
}

async function until(condition: () => boolean | Promise<boolean>, seconds: number, what: string): Promise<void> {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    if (await Promise.resolve(condition()).catch(() => false)) return;
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`);
    await wait(100);
  }
}

const happened = (kind: NodeEvent["kind"], host: number) =>
  events.some((event) => event.kind === kind && event.address === addressOf(host));

if (installed) {
  before(async () => {
    for (const host of [1, 2, 3, 4]) startAgent(host);
    const sockets = await openTransport(addressOf(100), port);
    transport = {
      address: sockets.address,
      port: sockets.port,
      send: (address, at, packet) => {
        if (!deaf.has(address)) sockets.send(address, at, packet);
      },
      onPacket: (listener) => sockets.onPacket(listener),
      onStream: (listener) => sockets.onStream(listener),
      dial: (...target) => sockets.dial(...target),
      [Symbol.asyncDispose]: () => sockets[Symbol.asyncDispose](),
    };
    const at = addressOf(100);
    us = await createGossip(
      {
        bindAddress: at,
        advertiseAddress: at,
        name: "skein",
        keys: [{ key, lamportTime: 1n }],
        log: nullLogger,
        transport,
      },
      config,
    );
    us.onNode((event) => events.push(event));
  });
  after(async () => {
    await us[Symbol.asyncDispose]();
    for (const { process: child } of agents.values()) child.kill("SIGKILL");
  });
}

const options = { skip: installed ? false : "serf is not installed" };

test("joins real nodes and is seen by them", options, async () => {
  us.setBootstrap([`${addressOf(1)}:${port}`]);
  await until(() => us.peers().length === 5, 10, "we see all four");
  for (const host of [1, 2, 3, 4]) {
    await until(async () => (await serfMembers(host)).get("skein") === "alive", 10, `serf${host} sees us`);
  }
});

test("stays trusted for ten seconds of probes and gossip", options, async () => {
  await wait(10_000);
  assert.ok(!events.some((event) => event.kind === "suspect"), JSON.stringify(events));
  assert.equal(us.stats().health, 0);
  for (const reason of ["undecryptable", "crc", "malformed", "truncatedCompound", "streamMalformed"]) {
    assert.equal(us.stats()[`dropped.${reason}`] ?? 0, 0, reason);
  }
  for (const { log } of agents.values()) {
    const bad = log
      .join("")
      .split("\n")
      .filter((line) => /skein|127\.0\.8\.100/.test(line) && /suspect|ERR|fail/i.test(line));
    assert.deepEqual(bad, []);
  }
});

test("vouching through others works in both directions when UDP to one of them is lost", options, async () => {
  deaf.add(addressOf(2));
  await wait(12_000);
  deaf.clear();
  assert.ok(!happened("suspect", 2), "we heard through the others that serf2 lives");
  assert.equal(us.stats().udpBlocked ?? 0, 0, "others answered for it, not only its own TCP");
  assert.equal((await serfMembers(2)).get("skein"), "alive");
});

test("a killed node is suspected and failed", options, async () => {
  agents.get(3)?.process.kill("SIGKILL");
  await until(() => happened("suspect", 3), 15, "suspicion");
  await until(() => happened("failed", 3), 30, "failure");
});

test("a node that leaves is left", options, async () => {
  await run("serf", ["leave", `-rpc-addr=${agents.get(4)?.rpc}`]);
  await until(() => happened("left", 4), 10, "departure");
  assert.ok(!happened("failed", 4));
});

test("our departure is believed at once", options, async () => {
  await us.leave();
  for (const host of [1, 2]) {
    await until(async () => (await serfMembers(host)).get("skein") !== "alive", 3, `serf${host} saw us go`);
  }
});

/** Virtual addresses with real packets: a caller and two tasks on one switch. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { openConntrack } from "../../../../src/kernel/conntrack.ts";
import { openNft } from "../../../../src/kernel/nft.ts";
import { abortTcp } from "../../../../src/kernel/sockdiag.ts";
import { tcpConnectIn } from "../../../../src/kernel/socket.ts";
import { renderVips, updateVip } from "../../../../src/network/balancer/vip.ts";
import { INIT, INIT_ACK, SctpSocket, TAG } from "./sctp.ts";
import { askTcp, askUdp, Lab } from "./wires.ts";

async function overlay(lab: Lab) {
  const overlay = lab.namespace();
  lab.bridge(overlay, "br0");
  const [caller, a, b] = [lab.namespace(), lab.namespace(), lab.namespace()];
  lab.plug(caller, "eth0", ["10.0.1.3/24"], overlay, "br0");
  lab.plug(a, "eth0", ["10.0.1.4/24"], overlay, "br0");
  lab.plug(b, "eth0", ["10.0.1.5/24"], overlay, "br0");
  await lab.serve(a, 80, "a");
  await lab.serve(b, 80, "b");
  return { caller, a, b };
}

async function until(what: () => boolean): Promise<void> {
  for (let wait = 0; !what(); wait++) {
    assert.ok(wait < 400, "it did not happen in time");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const web = { id: "web", vip: "10.0.1.2", backends: ["10.0.1.4", "10.0.1.5"] };

test("a VIP leads to every task, over TCP, UDP and ping, with the caller's own address", async () => {
  await using lab = new Lab();
  const { caller } = await overlay(lab);
  lab.nft(caller, renderVips([web, { id: "none", vip: "10.0.1.9", backends: [] }]));
  const answers = new Set<string>();
  for (let i = 0; i < 20; i++) {
    answers.add(await askTcp(caller, "10.0.1.2", 80));
    answers.add(await askUdp(caller, "10.0.1.2", 80));
  }
  assert.deepEqual([...answers].sort(), ["a 10.0.1.3", "b 10.0.1.3"]);
  caller.run(() => execFileSync("ping", ["-c1", "-W1", "10.0.1.2"]));
  assert.equal(await askTcp(caller, "10.0.1.9", 80), "ECONNREFUSED");
  assert.equal(await askUdp(caller, "10.0.1.9", 80), "ECONNREFUSED");
});

test("a VIP in IPv6 is as one in IPv4", async () => {
  await using lab = new Lab();
  const overlay = lab.namespace();
  lab.bridge(overlay, "br0");
  const [caller, a, b] = [lab.namespace(), lab.namespace(), lab.namespace()];
  lab.plug(caller, "eth0", ["fd00:1::3/64"], overlay, "br0");
  lab.plug(a, "eth0", ["fd00:1::4/64"], overlay, "br0");
  lab.plug(b, "eth0", ["fd00:1::5/64"], overlay, "br0");
  await lab.serve(a, 80, "a", "fd00:1::4");
  await lab.serve(b, 80, "b", "fd00:1::5");
  const six = { id: "web", vip: "fd00:1::2", backends: ["fd00:1::4", "fd00:1::5"] };
  lab.nft(caller, renderVips([six, { id: "none", vip: "fd00:1::9", backends: [] }], 6));
  const answers = new Set<string>();
  for (let i = 0; i < 20; i++) {
    answers.add(await askTcp(caller, "fd00:1::2", 80));
    answers.add(await askUdp(caller, "fd00:1::2", 80));
  }
  assert.deepEqual([...answers].sort(), ["a fd00:1::3", "b fd00:1::3"]);
  caller.run(() => execFileSync("ping", ["-6", "-c1", "-W1", "fd00:1::2"]));
  assert.equal(await askTcp(caller, "fd00:1::9", 80), "ECONNREFUSED");
  assert.equal(await askUdp(caller, "fd00:1::9", 80), "ECONNREFUSED");
  lab.nft(a, renderVips([{ ...six, backends: ["fd00:1::4"] }], 6));
  assert.equal(await askTcp(a, "fd00:1::2", 80), "a fd00:1::4", "a task reaches itself");
});

test("connections spread evenly over ten tasks", async () => {
  await using lab = new Lab();
  const switch_ = lab.namespace();
  lab.bridge(switch_, "br0");
  const [caller, tasks] = [lab.namespace(), lab.namespace()];
  lab.plug(caller, "eth0", ["10.0.1.3/24"], switch_, "br0");
  const backends = Array.from({ length: 10 }, (_, i) => `10.0.1.${10 + i}`);
  lab.plug(
    tasks,
    "eth0",
    backends.map((address) => `${address}/24`),
    switch_,
    "br0",
  );
  for (const address of backends) await lab.serve(tasks, 80, address, address);
  lab.nft(caller, renderVips([{ ...web, backends }]));
  const counts = new Map<string, number>();
  const rounds = 500;
  for (let i = 0; i < rounds; i++) {
    const answer = await askUdp(caller, "10.0.1.2", 80);
    counts.set(answer, (counts.get(answer) ?? 0) + 1);
  }
  assert.equal(counts.size, 10);
  const expected = rounds / 10;
  const chiSquare = [...counts.values()].reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
  // Nine degrees of freedom: beyond 33.7 once in ten thousand fair runs.
  assert.ok(chiSquare < 33.7, `chi-square ${chiSquare}`);
});

test("a task can call its own service and reach itself", async () => {
  await using lab = new Lab();
  const { a } = await overlay(lab);
  lab.nft(a, renderVips([{ ...web, backends: ["10.0.1.4"] }]));
  assert.equal(await askTcp(a, "10.0.1.2", 80), "a 10.0.1.4");
  assert.equal(await askUdp(a, "10.0.1.2", 80), "a 10.0.1.4");
});

test("small updates: added, moved, changed, removed; a gone task's connections are reset, not stuck", async () => {
  await using lab = new Lab();
  const { caller } = await overlay(lab);
  using nft = openNft(caller);
  nft.run(renderVips([]));
  const one = { ...web, backends: ["10.0.1.4"] };
  nft.run(updateVip(undefined, one));
  assert.equal(await askTcp(caller, "10.0.1.2", 80), "a 10.0.1.3");

  const socket = tcpConnectIn(caller, "10.0.1.2", 80);
  const failure = new Promise<string>((resolve) =>
    socket.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "")),
  );
  socket.write("?");
  await new Promise((resolve) => socket.once("data", resolve));
  const other = { ...web, backends: ["10.0.1.5"] };
  nft.run(updateVip(one, other));
  assert.equal(await askTcp(caller, "10.0.1.2", 80), "b 10.0.1.3");
  using conntrack = openConntrack(caller);
  assert.ok(conntrack.flush({ family: 4, origDst: one.vip, replySrc: "10.0.1.4" }) >= 1);
  socket.write("?");
  assert.equal(await failure, "ECONNRESET");

  const moved = { ...other, vip: "10.0.1.8" };
  nft.run(updateVip(other, moved));
  assert.equal(await askTcp(caller, "10.0.1.8", 80), "b 10.0.1.3");
  nft.run(updateVip(moved, undefined));
  const text = JSON.stringify(nft.list("table ip skein-vips"));
  assert.ok(!text.includes("svc-web") && !text.includes("10.0.1"));
});

test("an open connection stays where it is whatever becomes of the other tasks, and when its own takes no new ones", async () => {
  await using lab = new Lab();
  const { caller } = await overlay(lab);
  using nft = openNft(caller);
  const with_ = (...backends: string[]) => ({ ...web, backends });
  let now = with_("10.0.1.4");
  nft.run(renderVips([now]));
  const socket = tcpConnectIn(caller, "10.0.1.2", 80);
  const ask = () =>
    new Promise<string>((resolve) => {
      socket.once("data", (bytes) => resolve(bytes.toString()));
      socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? ""));
      socket.write("?");
    });
  assert.equal(await ask(), "a 10.0.1.3");
  for (const next of [with_("10.0.1.4", "10.0.1.5"), with_("10.0.1.5", "10.0.1.77"), with_("10.0.1.5"), with_()]) {
    nft.run(updateVip(now, next));
    now = next;
    assert.equal(await ask(), "a 10.0.1.3", JSON.stringify(next.backends));
  }
  nft.run(renderVips([with_("10.0.1.5")]));
  assert.equal(await ask(), "a 10.0.1.3", "the whole table replaced");
  socket.destroy();
});

test("a program that only waits for a gone task is told at once; one that was never answered tries another task", async () => {
  await using lab = new Lab();
  const { caller, b } = await overlay(lab);
  lab.nft(b, "add table ip silence; add chain ip silence in { type filter hook input priority 0; policy drop; }");
  lab.nft(caller, renderVips([{ ...web, backends: ["10.0.1.4"] }]));
  const waiting = tcpConnectIn(caller, "10.0.1.2", 80);
  const failure = new Promise<string>((resolve) =>
    waiting.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "")),
  );
  waiting.write("?");
  await new Promise((resolve) => waiting.once("data", resolve));
  lab.nft(caller, renderVips([{ ...web, backends: ["10.0.1.5"] }]));
  const trying = tcpConnectIn(caller, "10.0.1.2", 80);
  const connected = new Promise((resolve) => trying.once("connect", resolve));
  using conntrack = openConntrack(caller);
  while (conntrack.count() < 2) await new Promise((resolve) => setTimeout(resolve, 5));
  lab.nft(caller, renderVips([{ ...web, backends: ["10.0.1.4"] }]));

  const flows = conntrack.take({ family: 4, replySrc: ["10.0.1.4", "10.0.1.5"] });
  const { localPort } = waiting;
  const told = { protocol: 6, src: "10.0.1.3", dst: "10.0.1.2", dstPort: 80 };
  assert.deepEqual(
    flows.find(({ answered }) => answered),
    { ...told, srcPort: localPort, answered: true },
  );
  assert.deepEqual(
    flows.find(({ answered }) => !answered),
    { ...told, srcPort: trying.localPort, answered: false },
  );
  const answered = flows.filter((flow) => flow.answered);
  assert.equal(abortTcp(caller, answered), 1);
  assert.equal(await failure, "ECONNABORTED");
  assert.equal(abortTcp(caller, answered), 0, "no socket any more");
  await connected;
  trying.destroy();
});

test("a VIP leads to every task over SCTP, and answers come from the VIP", async () => {
  await using lab = new Lab();
  const { caller, a, b } = await overlay(lab);
  lab.nft(caller, renderVips([web]));
  using asking = new SctpSocket(caller);
  using atA = new SctpSocket(a);
  using atB = new SctpSocket(b);
  // Whoever is asked first is looked for first.
  caller.run(() => execFileSync("sh", ["-c", "ping -c1 -W1 10.0.1.4 && ping -c1 -W1 10.0.1.5"]));
  for (let port = 40_000; port < 40_020; port++) asking.send("10.0.1.2", port, 9_000, INIT);
  const [first, second] = [atA.received(), atB.received()];
  await until(() => atA.received().length + atB.received().length === 20);
  assert.ok(first.length > 0 && second.length > 0, `${first.length} and ${second.length}`);
  for (const packet of [...first, ...second]) assert.deepEqual([packet.from, packet.dstPort], ["10.0.1.3", 9_000]);
  const port = first[0]?.srcPort ?? 0;
  atA.send("10.0.1.3", 9_000, port, INIT_ACK, TAG);
  await until(() => asking.received().length > 0);
  assert.deepEqual(asking.received(), [{ from: "10.0.1.2", srcPort: 9_000, dstPort: port, chunk: INIT_ACK }]);
});

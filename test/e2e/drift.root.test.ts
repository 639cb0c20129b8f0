/**
 * What somebody breaks by hand in a host's network is found, mended and told: with `ip`, `bridge` and `nft`, against
 * a ping or a request that must work again.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { run } from "../../src/lab/process.ts";
import { inconsistencies } from "../support/consistency.ts";
import { eventually, TestLab } from "../support/lab.ts";

/** What the product promises is 30 s, its pass over everything; what is noticed from the kernel is mended at once. */
const promiseMs = 30_000;
let lab: TestLab;
let overlay = "";
let box = "";
let remote = { address: "", mac: "" };
const events: string[] = [];
let stopEvents = () => {};
const times: string[] = [];

before(async () => {
  lab = await TestLab.up("ovd", "10.82.0.0/24", { hosts: 2 });
  await lab.swarm();
  await lab.ok("manager", "network", "create", "--driver", "overlay", "--attachable", "net");
  const service = ["--name", "web", "--network", "net", "--publish", "8080:80", "--replicas", "2"];
  await lab.ok("manager", "service", "create", ...service, "skein/hello");
  for (const [host, name] of [
    ["manager", "box"],
    ["worker-1", "far"],
  ] as const) {
    await lab.ok(host, "run", "--detach", "--tty", "--name", name, "--network", "net", "skein/box");
  }
  const id = await lab.ok("manager", "network", "inspect", "--format", "{{.Id}}", "net");
  overlay = `/run/docker/netns/1-${id.slice(0, 10)}`;
  box = await lab.ok("manager", "inspect", "--format", "{{.NetworkSettings.SandboxKey}}", "box");
  const format = "{{.NetworkSettings.Networks.net.IPAddress}} {{.NetworkSettings.Networks.net.MacAddress}}";
  const [address = "", mac = ""] = (await lab.ok("worker-1", "inspect", "--format", format, "far")).split(" ");
  remote = { address, mac };
  await eventually("all is well at first", works);
  await delay(1_500);
  const socket = `unix://${lab.host("manager").socket}`;
  const reader = spawn("docker", [
    "-H",
    socket,
    "events",
    "--format",
    "{{.Action}} {{.Actor.ID}} {{.Actor.Attributes.mended}}",
  ]);
  createInterface({ input: reader.stdout }).on("line", (line) => {
    if (line.startsWith("drift ")) events.push(line);
  });
  stopEvents = () => reader.kill();
  await delay(300);
});
after(async () => {
  stopEvents();
  await lab?.[Symbol.asyncDispose]();
});

const within = (pin: string, ...command: string[]) => lab.in("manager", "nsenter", `--net=${pin}`, ...command);

/** The far container by ping and name, the service by its VIP and by its published port, the way out. */
async function works(): Promise<boolean> {
  const script = [
    `ping -c1 -W1 ${remote.address}`,
    "ping -c1 -W1 far",
    "for i in 1 2; do curl -fsm1 http://web/ || exit 1; done",
    "ping -c1 -W1 10.82.0.1",
  ].join(" && ");
  if ((await lab.try("manager", "exec", "box", "sh", "-c", script)).code !== 0) return false;
  for (let i = 0; i < 2; i++) {
    if ((await lab.in("manager", "curl", "-fsm1", "http://10.82.0.11:8080/")).code !== 0) return false;
  }
  return (await inconsistencies(lab, "net")).length === 0;
}

/** Breaks something; it must work again in time, and be told. */
async function mends(what: string, expected: RegExp, breaking: () => Promise<unknown>): Promise<void> {
  events.length = 0;
  const began = Date.now();
  await breaking();
  await eventually(`${what}: told`, async () => events.some((line) => expected.test(line)), promiseMs).catch(
    (error) => {
      throw new Error(`${error.message}: ${events.join(" | ")}`);
    },
  );
  const told = Date.now() - began;
  await eventually(`${what}: works`, works, promiseMs);
  times.push(`${what} ${told} ms`);
  await delay(1_000);
}

const cases: [string, RegExp, () => Promise<unknown>][] = [
  [
    "a forwarding entry to the wrong host",
    /^drift overlay\/.*set fdb/,
    () =>
      within(
        overlay,
        "bridge",
        "fdb",
        "replace",
        remote.mac,
        "dev",
        "vxlan0",
        "dst",
        "10.82.0.99",
        "self",
        "permanent",
      ),
  ],
  [
    "a forged forwarding entry",
    /^drift overlay\/.*delete fdb 02:42:de:ad:be:ef/,
    () =>
      within(
        overlay,
        "bridge",
        "fdb",
        "add",
        "02:42:de:ad:be:ef",
        "dev",
        "vxlan0",
        "dst",
        "10.82.0.12",
        "self",
        "permanent",
      ),
  ],
  [
    "a deleted neighbour",
    /^drift overlay\/.*set neighbour/,
    () => within(overlay, "ip", "neigh", "del", remote.address, "dev", "vxlan0"),
  ],
  ["a removed tunnel", /^drift overlay\/.*add link vxlan0/, () => within(overlay, "ip", "link", "del", "vxlan0")],
  ["a container's removed device", /^drift .*(add link|is missing)/, () => within(box, "ip", "link", "del", "eth0")],
  [
    "a bridge set down",
    /^drift overlay\/.*change link br0 up=true/,
    () => within(overlay, "ip", "link", "set", "br0", "down"),
  ],
  [
    "docker_gwbridge set down",
    /^drift host .*change link docker_gwbridge up=true/,
    () => lab.in("manager", "ip", "link", "set", "docker_gwbridge", "down"),
  ],
  [
    "a container's deleted default route",
    /^drift sandbox\/.*set route default/,
    () => within(box, "ip", "route", "del", "default"),
  ],
  [
    "a forged route in the mesh's namespace",
    /^drift sandbox\/.*delete route 10\.0\.0\.128\/25/,
    () => within("/run/docker/netns/ingress_sbox", "ip", "route", "add", "10.0.0.128/25", "via", "172.18.0.1"),
  ],
  ["the host's flushed tables", /^drift host .*load table/, () => lab.in("manager", "nft", "flush", "ruleset")],
  [
    "the mesh's flushed tables",
    /^drift sandbox\/.*(load|renew) table ip skein-mesh/,
    () => within("/run/docker/netns/ingress_sbox", "nft", "flush", "ruleset"),
  ],
  [
    "a container's flushed tables",
    /^drift sandbox\/.*load table ip skein-vips/,
    () => within(box, "nft", "flush", "ruleset"),
  ],
  [
    "a namespace's deleted name",
    /^drift overlay\/.*pin the namespace/,
    () => lab.in("manager", "sh", "-c", `umount ${overlay} && rm -f ${overlay}`),
  ],
];

for (const [what, expected, breaking] of cases) test(what, () => mends(what, expected, breaking));

test("what was mended can be looked up: by people, by programs, from inside a host", async () => {
  const skein = (...args: string[]) =>
    run(["bin/skein", "lab", "exec", "--name", "ovd", "manager", "--", "skein", ...args]);
  const status = await skein("show");
  assert.equal(status.code, 0, status.stderr);
  assert.match(status.stdout, /^swarm +active, leader/m);
  assert.match(status.stdout, /^kernel +\d+ namespaces, as planned; mended \d+ since the start \(.*\d fdb/m);
  const network = await skein("show", "network", "net", "--json");
  const parsed = JSON.parse(network.stdout) as { differences: string[]; repairs: { difference: string }[] };
  assert.deepEqual(parsed.differences, []);
  const mended = parsed.repairs.map(({ difference }) => difference).join("\n");
  for (const [what, expected] of cases) {
    const words = /^\^drift overlay\\\/\.\*(.*)/.exec(expected.source)?.[1];
    if (words) assert.match(mended, new RegExp(words), what);
  }
  const socket = `unix://${lab.host("manager").socket}`;
  const way = await run(["bin/skein", "trace", "--host", socket, "box", "far"]);
  assert.match(way.stdout, /nothing amiss/);
  const service = await run(["bin/skein", "show", "--host", socket, "service", "web"]);
  assert.match(service.stdout, /web\.1\..* serving +50 %/);
});

test("in quiet times nothing is mended", async (t) => {
  t.diagnostic(times.join("; "));
  events.length = 0;
  await delay(3_000);
  assert.deepEqual(events, []);
});

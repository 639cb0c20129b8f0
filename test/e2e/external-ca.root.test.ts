/**
 * External certificate authorities: cfssl signs what Skein's manager and a real Docker Engine ask for, under a root whose
 * key the swarm does not have; its going and coming back is survived, and the swarm returns to a key of its own.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Cfssl } from "../support/cfssl.ts";
import { eventually, TestLab } from "../support/lab.ts";

const skip = Cfssl.missing() ?? false;
let lab: TestLab;
let cfssl: Cfssl;

before(async () => {
  if (skip) return;
  const made = await TestLab.up("extca", "10.137.0.0/24", {
    names: ["m1", "m2", "docker"],
    dockerd: ["docker"],
    images: [],
  });
  lab = made;
  await lab.swarm();
  cfssl = new Cfssl(lab, "m1");
});

after(async () => {
  await cfssl?.[Symbol.asyncDispose]();
  await lab?.[Symbol.asyncDispose]();
});

const ca = (url: string) => `protocol=cfssl,url=${url}`;
const none = (which: string) =>
  `rpc error: code = InvalidArgument desc = there must be at least one valid, reachable external CA corresponding to the ${which} CA certificate`;

async function refused(args: readonly string[], words: string): Promise<void> {
  const { code, stderr } = await lab.try("m1", ...args);
  assert.notEqual(code, 0, args.join(" "));
  assert.equal(stderr.replace("Error response from daemon: ", "").trim(), words);
}

interface Cluster {
  readonly RootRotationInProgress: boolean;
  readonly Spec: { readonly CAConfig: { readonly ExternalCAs?: object[] } };
}
const cluster = async (): Promise<Cluster> =>
  JSON.parse(await lab.ok("m1", "info", "--format", "{{json .Swarm.Cluster}}"));

/** The rotation is over, and every node is there with a certificate of the swarm's root. */
const rotated = (nodes = 3) =>
  eventually("all nodes have certificates of the new root", async () => {
    if ((await cluster()).RootRotationInProgress) return false;
    const lines = (await lab.ok("m1", "node", "ls", "--format", "{{.Status}} {{.TLSStatus}}")).split("\n");
    return lines.length === nodes && lines.every((line) => line === "Ready Ready");
  });

test("what is no authority of the root is refused in Docker's words", { skip }, async () => {
  const rotate = ["swarm", "ca", "--rotate", "-q", "--ca-cert", cfssl.path("root.pem")];
  await refused([...rotate, "--external-ca", ca(cfssl.url)], none("desired"));
  await refused([...rotate, "--external-ca", ca(cfssl.url.replace("https", "http"))], none("desired"));
  await refused([...rotate, "--external-ca", "protocol=cfssl,url=nonsense"], none("desired"));
});

test("the root becomes one whose key only cfssl has: all nodes follow, Docker's too", { skip }, async () => {
  await cfssl.start(await lab.ok("m1", "swarm", "ca"));
  const rotate = ["swarm", "ca", "--rotate", "-q", "--ca-cert", cfssl.path("root.pem")];
  await lab.ok("m1", ...rotate, "--external-ca", ca(cfssl.url));
  await rotated();
  assert.equal(await lab.ok("m1", "swarm", "ca"), cfssl.rootPem.trim());
  const { Spec } = await cluster();
  assert.deepEqual(Spec.CAConfig.ExternalCAs, [{ Protocol: "cfssl", URL: cfssl.url, CACert: cfssl.rootPem }]);
  assert.match(await lab.ok("m1", "info"), new RegExp(`External CAs:\\s+cfssl: ${cfssl.url}`));
  // Who has no key needs the authority.
  await refused(["swarm", "update", "--external-ca", ca("https://10.137.0.254:1/")], none("current"));
  await lab.ok("m1", "swarm", "update", "--external-ca", ca("https://127.0.0.1:1/"), "--external-ca", ca(cfssl.url));
});

test("a node waits while the authority is away, is told why, joins and is promoted when it is back", {
  skip,
}, async () => {
  await cfssl.stop();
  await lab.ok("m2", "swarm", "leave");
  const token = await lab.ok("m1", "swarm", "join-token", "-q", "worker");
  const { address } = lab.host("m1");
  const joining = lab.try("m2", "swarm", "join", "--token", token, "--advertise-addr", lab.host("m2").address, address);
  const waiting = await eventually("the node waits", async () => {
    for (const id of (await lab.ok("m1", "node", "ls", "-q")).split("\n")) {
      const status = await lab.ok("m1", "node", "inspect", "--format", "{{.Status.State}} {{.Status.Message}}", id);
      if (status.startsWith("unknown no certificate yet")) return status;
    }
    return false;
  });
  assert.match(waiting, /127\.0\.0\.1:1\/: connect ECONNREFUSED .*; .*8888.*: connect ECONNREFUSED/);
  await cfssl.start();
  const joined = await joining;
  assert.equal(joined.code, 0, joined.stderr);
  for (const id of (await lab.ok("m1", "node", "ls", "-q", "--filter", "name=m2")).split("\n")) {
    const [state] = (await lab.ok("m1", "node", "inspect", "--format", "{{.Status.State}}", id)).split(" ");
    if (state !== "ready") await lab.ok("m1", "node", "rm", "--force", id);
  }
  await rotated();
  await lab.ok("m1", "node", "promote", "m2");
  await eventually(
    "m2 is a manager",
    async () =>
      (await lab.ok("m1", "node", "ls", "--filter", "name=m2", "--format", "{{.ManagerStatus}}")) === "Reachable",
  );
  await eventually("m2 serves users", async () => (await lab.try("m2", "node", "ls")).stdout.includes("docker"));
});

test("the swarm returns to a key of its own, which cfssl vouches for", { skip }, async () => {
  await lab.ok("m1", "swarm", "ca", "--rotate", "-q");
  await rotated();
  await cfssl.stop();
  await lab.ok("m2", "swarm", "update", "--external-ca", ca("https://127.0.0.1:1/"));
});

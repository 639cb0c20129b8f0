import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { parseTrees } from "../../../src/runtime/cgroup.ts";
import { containerdConfig, ownPaths } from "../../../src/runtime/containerd/config.ts";
import { chainIds, parseManifest } from "../../../src/runtime/images/manifest.ts";
import { familiar, normalise, parseReference } from "../../../src/runtime/images/reference.ts";
import { planRemoval } from "../../../src/runtime/images/remove.ts";
import { compressionOf, sniff } from "../../../src/runtime/images/sniff.ts";
import { parseChallenge } from "../../../src/runtime/registry/challenge.ts";
import { layersOf, readInLayers } from "../../../src/runtime/rootfs.ts";
import { parseBlkio, parseFlat, parseIoStat, throttlingOf } from "../../../src/runtime/stats.ts";
import type { Image } from "../../../src/runtime/types.ts";

test("references: Docker's defaults, and what is no reference", () => {
  const digest = `sha256:${"a".repeat(64)}`;
  const cases: [string, string][] = [
    ["alpine", "docker.io/library/alpine:latest"],
    ["alpine:3", "docker.io/library/alpine:3"],
    ["me/app", "docker.io/me/app:latest"],
    ["index.docker.io/library/alpine", "docker.io/library/alpine:latest"],
    ["localhost/x", "localhost/x:latest"],
    ["127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t"],
    ["reg.example.com/a__b/c-d.e", "reg.example.com/a__b/c-d.e:latest"],
    [`alpine@${digest}`, `docker.io/library/alpine@${digest}`],
    [`alpine:3@${digest}`, `docker.io/library/alpine@${digest}`],
  ];
  for (const [from, to] of cases) assert.equal(normalise(from), to);
  assert.equal(familiar("docker.io/library/alpine:3"), "alpine:3");
  assert.equal(familiar("docker.io/me/app:1"), "me/app:1");
  assert.equal(familiar("localhost/x:1"), "localhost/x:1");
  assert.equal(parseReference("a:b").tag, "b");
  for (const bad of [
    "",
    ":x",
    "a b",
    "A",
    "a:",
    "a@sha256:12",
    "a//b",
    "a/../b",
    `a:${"x".repeat(129)}`,
    "f".repeat(64),
  ]) {
    assert.throws(() => normalise(bad), { code: "invalid" }, bad);
  }
  assert.throws(() => normalise("Alpine"), /repository name must be lowercase/);
});

const image = (id: string, references: string[], layers: string[], repoDigests: string[] = []): Image => ({
  id: `sha256:${id.repeat(64)}`,
  references,
  repoDigests,
  created: "",
  size: 0,
  config: {},
  layers,
  os: "linux",
  architecture: "amd64",
  history: [],
});

test("removal: names go one by one, the digest with a repository's last tag, shared layers stay", () => {
  const digest = `docker.io/library/a@sha256:${"0".repeat(64)}`;
  const a = image("a", ["docker.io/library/a:1", "docker.io/library/a:2"], ["sha256:1", "sha256:2"], [digest]);
  const b = image("b", ["docker.io/library/b:1"], ["sha256:1"]);
  const free = { force: false, user: undefined };
  assert.deepEqual(planRemoval(a, "docker.io/library/a:1", [a, b], free), {
    untag: ["docker.io/library/a:1"],
    deleteImage: false,
    deletedLayers: [],
  });
  const byId = planRemoval(a, undefined, [a, b], free);
  assert.deepEqual(byId.untag, [...a.references, digest]);
  assert.deepEqual(byId.deletedLayers, [chainIds(a.layers)[1]]);
  const one = image("c", ["docker.io/library/a:1"], [], [digest]);
  assert.deepEqual(planRemoval(one, "docker.io/library/a:1", [one], free).untag, ["docker.io/library/a:1", digest]);
  assert.throws(() => planRemoval(b, undefined, [b], { force: false, user: "x" }), /must be forced/);
  assert.equal(planRemoval(b, undefined, [b], { force: true, user: "x" }).deleteImage, false);
});

test("chain ids are those of the image specification: each hashes all below", () => {
  const hash = (text: string) => `sha256:${createHash("sha256").update(text).digest("hex")}`;
  const second = hash("sha256:a sha256:b");
  assert.deepEqual(chainIds(["sha256:a", "sha256:b", "sha256:c"]), ["sha256:a", second, hash(`${second} sha256:c`)]);
});

test("a manifest that is not one is refused with the place", () => {
  assert.throws(() => parseManifest(Buffer.from('{"schemaVersion":2}')), /invalid image manifest at config/);
  assert.throws(() => parseManifest(Buffer.from("nonsense")), /invalid image manifest/);
});

test("challenges of registries", () => {
  assert.deepEqual(parseChallenge('Bearer realm="https://a/t?x=1",service="r, s",scope="repository:a/b:pull,push"'), {
    scheme: "bearer",
    parameters: { realm: "https://a/t?x=1", service: "r, s", scope: "repository:a/b:pull,push" },
  });
  assert.deepEqual(parseChallenge("Basic realm=x"), { scheme: "basic", parameters: { realm: "x" } });
});

test("compression is told from the first bytes, however they come", async () => {
  assert.equal(compressionOf(Buffer.from([0x28, 0xb5, 0x2f, 0xfd])), "zstd");
  async function* bits(): AsyncGenerator<Uint8Array> {
    for (const byte of [0x1f, 0x8b, 8, 0, 1, 2, 3, 4, 5]) yield Uint8Array.of(byte);
  }
  const { kind, stream } = await sniff(bits());
  assert.equal(kind, "gzip");
  assert.equal(Buffer.concat(await Array.fromAsync(stream)).length, 9);
});

test("account files are found through layers and links, never outside", () => {
  const dir = mkdtempSync(`${tmpdir()}/rt-layers-`);
  try {
    for (const path of ["up/etc", "low/etc", "low/usr"]) mkdirSync(`${dir}/${path}`, { recursive: true });
    writeFileSync(`${dir}/low/etc/passwd`, "low");
    writeFileSync(`${dir}/low/usr/group`, "linked");
    symlinkSync("/usr/group", `${dir}/up/etc/group`);
    symlinkSync("../../../../../../etc/hostname", `${dir}/up/etc/escape`);
    symlinkSync("loop", `${dir}/up/etc/loop`);
    const layers = layersOf([
      {
        type: "overlay",
        source: "overlay",
        options: ["index=off", `upperdir=${dir}/up`, `lowerdir=${dir}/none:${dir}/low`],
      },
    ]);
    assert.deepEqual(layers, [`${dir}/up`, `${dir}/none`, `${dir}/low`]);
    assert.equal(readInLayers(layers, "/etc/passwd"), "low");
    assert.equal(readInLayers(layers, "/etc/group"), "linked");
    for (const path of ["/etc/escape", "/etc/loop", "/etc", "/nothing/there"])
      assert.equal(readInLayers(layers, path), undefined);
    writeFileSync(`${dir}/up/etc/passwd`, "up");
    assert.equal(readInLayers(layers, "/etc/passwd"), "up");
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test("cgroup trees: v1, hybrid and unified", () => {
  const v1 =
    "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct";
  const v2 = "32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
  const hybrid = parseTrees(`${v1}\n${v2}`);
  assert.equal(hybrid.unified, false);
  assert.equal(hybrid.mounts.get("cpuacct"), "/sys/fs/cgroup/cpu,cpuacct");
  assert.equal(hybrid.roots.length, 3);
  const unified = parseTrees("32 25 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
  assert.ok(unified.unified && unified.mounts.get("") === "/sys/fs/cgroup");
});

test("figures of cgroups", () => {
  assert.deepEqual(parseFlat("cache 12\nrss 3\n\nbad\n"), { cache: 12, rss: 3 });
  assert.deepEqual(parseBlkio("8:0 Read 4096\n8:0 Total 4096\nTotal 4096\n")[0], {
    major: 8,
    minor: 0,
    op: "read",
    value: 4096,
  });
  const held = { periods: 9, throttledPeriods: 4, throttledNs: 5000 };
  assert.deepEqual(throttlingOf(parseFlat("nr_periods 9\nnr_throttled 4\nthrottled_time 5000")), held);
  assert.deepEqual(throttlingOf(parseFlat("usage_usec 1\nnr_periods 9\nnr_throttled 4\nthrottled_usec 5")), held);
  assert.deepEqual(throttlingOf({}), { periods: 0, throttledPeriods: 0, throttledNs: 0 });
  assert.deepEqual(parseIoStat("8:16 rbytes=5 wbytes=6 rios=1 wios=2 dbytes=0 dios=0"), [
    { major: 8, minor: 16, op: "read", value: 5 },
    { major: 8, minor: 16, op: "write", value: 6 },
  ]);
});

test("containerd's configuration keeps to the given directories", () => {
  const text = containerdConfig(ownPaths({ root: "/var/r", run: '/run/"q"' }), -500);
  const paths = [...text.matchAll(/= "(\/[^\n]*)"$/gm)].map(([, path]) => path);
  assert.ok(
    paths.length >= 4 && paths.every((path) => path?.startsWith("/var/r/") || path?.startsWith('/run/\\"q\\"/')),
  );
  assert.match(text, /io\.containerd\.grpc\.v1\.cri/);
});

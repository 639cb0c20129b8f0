/** What `docker run` can ask for beyond a command: checked, discarded with a warning, or handed on. */
import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { discardUnsupported, verifyLimits } from "../../../src/engine/containers/limits.ts";
import { parseLink } from "../../../src/engine/containers/links.ts";
import { mountOf } from "../../../src/engine/containers/propagation.ts";
import { detailsText, logAttributes, verifyLogAttributes } from "../../../src/engine/logs/attributes.ts";
import { hostConfig } from "../../../src/engine/shapes.ts";
import { verifyOptions } from "../../../src/engine/volumes/mounting.ts";
import { request, settle, testHost } from "./fakes.ts";

const host = (fields: object) => hostConfig(fields, "");

test("limits are refused in Docker's words", () => {
  const refuses = (fields: object, words: RegExp) => assert.throws(() => verifyLimits(host(fields)), words);
  refuses({ Memory: 5 }, /Minimum memory limit allowed is 6MB/);
  refuses({ MemoryReservation: 5 }, /Minimum memory reservation allowed is 6MB/);
  refuses({ MemorySwappiness: 101 }, /valid memory swappiness range is 0-100/);
  refuses({ NanoCpus: 1e15 }, /range of CPUs is from 0\.01 to \d+\.00/);
  refuses({ NanoCpus: 1e9, CpuQuota: 5000 }, /Nano CPUs and CPU Quota cannot both be set/);
  refuses({ CpusetCpus: "x" }, /Invalid value x for cpuset cpus/);
  refuses({ CpusetCpus: "3-1" }, /Invalid value 3-1 for cpuset cpus/);
  refuses({ CpusetCpus: "0,99998" }, /Requested CPUs are not available - requested 0,99998, available: /);
  refuses({ BlkioWeight: 5 }, /Range of blkio weight/);
  refuses({ BlkioDeviceReadBps: [{ Path: "/dev/null", Rate: -1 }] }, /invalid device rate for BlkioDeviceReadBps/);
  verifyLimits(host({ CpusetCpus: "0", NanoCpus: 1e7, MemorySwappiness: -1, OomScoreAdj: -1000 }));
});

test("ports published in the host's network are discarded with a warning", () => {
  const { warnings } = discardUnsupported(host({ NetworkMode: "host", PublishAllPorts: true }));
  assert.deepEqual(warnings, ["Published ports are discarded when using host network mode"]);
  assert.deepEqual(discardUnsupported(host({ NetworkMode: "bridge", PublishAllPorts: true })).warnings, []);
});

test("links as the command line writes them and as they are stored", () => {
  assert.deepEqual(parseLink("db:store"), { ref: "db", alias: "store" });
  assert.deepEqual(parseLink("db"), { ref: "db", alias: "db" });
  assert.deepEqual(parseLink("/db:/web/store"), { ref: "db", alias: "store" });
  for (const bad of ["", ":", "a:b:c", ":a"]) assert.throws(() => parseLink(bad), /bad format for links/);
});

test("log attributes: what is listed or matches, sorted; tags from templates", () => {
  const subject = {
    id: "ab".repeat(32),
    name: "web",
    imageId: `sha256:${"cd".repeat(32)}`,
    config: { Image: "nginx", Env: ["A=1", "B=2", "C"], Labels: { x: "1", "y.z": "2" } },
  };
  const attributes = (Config: Record<string, string>) => logAttributes({ Type: "json-file", Config }, subject);
  assert.deepEqual(attributes({}), {});
  assert.deepEqual(attributes({ labels: "x,nosuch", "env-regex": "^[BC]" }), { B: "2", x: "1" });
  assert.deepEqual(attributes({ tag: "{{.Name}}/{{ .ID }}/{{.ImageName}}" }), { tag: "web/abababababab/nginx" });
  assert.equal(detailsText({ a: "b c", d: "e=f" }), "a=b+c,d=e%3Df");
  assert.throws(() => verifyLogAttributes({ tag: "{{.Nope}}" }), /invalid log tag template: \{\{\.Nope\}\}/);
  assert.throws(() => verifyLogAttributes({ "labels-regex": "(" }), /invalid log opt regular expression/);
});

test("options of the local volume driver need one another", () => {
  verifyOptions("v", {});
  verifyOptions("v", { type: "tmpfs", device: "tmpfs" });
  assert.throws(() => verifyOptions("v", { type: "tmpfs" }), /create v: missing required option: "device"/);
  assert.throws(() => verifyOptions("v", { o: "bind" }), /create v: missing required option: "device"/);
  assert.throws(() => verifyOptions("v", { constructor: "x" }), /invalid option: "constructor"/);
  assert.throws(() => verifyOptions("v", { size: "1" }), /no quota support/);
});

test("the mount that a path lies on is the deepest, the last of equals, and never a mere prefix", () => {
  const table = [
    "1 0 0:1 / / rw shared:1 - ext4 /dev/a rw",
    "2 1 0:2 / /mnt rw master:3 - ext4 /dev/b rw",
    "3 2 0:3 / /mnt rw - tmpfs x rw",
    "4 1 0:4 / /with\\040space rw shared:9 - tmpfs x rw",
  ].join("\n");
  assert.deepEqual(mountOf("/mnt/x", table), { at: "/mnt", fields: "" });
  assert.deepEqual(mountOf("/mntx", table), { at: "/", fields: "shared:1" });
  assert.deepEqual(mountOf("/with space/x", table), { at: "/with space", fields: "shared:9" });
});

test("the client of an exec's terminal leaves without closing it; without a terminal its end of input is told", async () => {
  await using engineHost = await testHost();
  const { engine, runtime } = engineHost;
  const { Id } = await engine.containers.create(request({ name: "web" }));
  await engine.containers.start(Id);
  for (const Tty of [true, false]) {
    const config = { Cmd: ["sh"], Tty, AttachStdin: true, AttachStdout: true, AttachStderr: true };
    const shape = {
      User: "",
      Privileged: false,
      Detach: false,
      DetachKeys: "",
      Env: [],
      WorkingDir: "",
      ConsoleSize: undefined,
    };
    const { Id: exec } = await engine.containers.execCreate(Id, { ...shape, ...config });
    const session = await engine.containers.execStart(exec, { detach: false, tty: Tty });
    const input = new PassThrough();
    const over = session.run({ input, write: async () => {}, signal: new AbortController().signal });
    await settle();
    input.end();
    await settle();
    const { process } = runtime.execs.at(-1) ?? assert.fail("no exec");
    assert.equal(process.inputClosed, !Tty);
    process.end(0);
    await over;
  }
});

test("another platform than the image's is not found; what a container needs must be there", async () => {
  await using engineHost = await testHost();
  const { containers } = engineHost.engine;
  await assert.rejects(containers.create({ ...request(), platform: "linux/s390x" }), {
    code: "notFound",
    message: /does not match the specified platform: wanted linux\/s390x, actual: linux\/amd64/,
  });
  for (const fields of [{ VolumesFrom: ["nosuch"] }, { NetworkMode: "container:nosuch" }, { Links: ["nosuch:x"] }]) {
    await assert.rejects(containers.create(request({ host: fields })), {
      code: "invalid",
      message: /No such container: nosuch/,
    });
  }
  assert.deepEqual(await containers.list({ all: true, size: false, filters: new Map() }), []);
});

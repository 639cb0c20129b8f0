import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { resolveInRoot } from "../../../src/engine/containers/copyup.ts";
import { DetachScanner, parseDetachKeys } from "../../../src/engine/containers/detach.ts";
import { mergeConfig, processEnv } from "../../../src/engine/containers/merge.ts";
import { randomName } from "../../../src/engine/containers/names.ts";
import { portBindings, portList, portMap } from "../../../src/engine/containers/ports.ts";
import { restartDelay } from "../../../src/engine/containers/restart.ts";
import { parseSignal } from "../../../src/engine/containers/signals.ts";
import { next, transitions } from "../../../src/engine/containers/states.ts";
import { netCounters, parsePs, systemCpuNs } from "../../../src/engine/containers/stats.ts";
import { parseSize, securityOptions } from "../../../src/engine/containers/verify.ts";
import { fromFile, readSettings } from "../../../src/engine/daemon/settings.ts";
import { matchesEvent } from "../../../src/engine/events.ts";
import { labels, pattern, withoutLabels } from "../../../src/engine/filters.ts";
import { applyChanges } from "../../../src/engine/images/changes.ts";
import { matchesReference } from "../../../src/engine/images/images.ts";
import { familiar, parseReference, withDefaultTag } from "../../../src/engine/images/references.ts";
import { containerConfig, hostConfig } from "../../../src/engine/shapes.ts";
import { humanDuration, parseDuration, parseRfc3339, parseTimestamp, rfc3339Nano } from "../../../src/engine/time.ts";

const config = (fields: object) => containerConfig(fields, "");

test("entrypoint and command follow Docker's rules", () => {
  const image = { Entrypoint: ["/entry"], Cmd: ["default"] };
  const run = (fields: object) => {
    const { Entrypoint, Cmd } = mergeConfig(config(fields), image);
    return [Entrypoint, Cmd];
  };
  assert.deepEqual(run({}), [["/entry"], ["default"]]);
  assert.deepEqual(run({ Cmd: ["mine"] }), [["/entry"], ["mine"]]);
  assert.deepEqual(
    run({ Entrypoint: ["/mine"] }),
    [["/mine"], undefined],
    "the image's command is not for another entrypoint",
  );
  assert.deepEqual(run({ Entrypoint: [""], Cmd: ["x"] }), [undefined, ["x"]]);
  assert.throws(() => mergeConfig(config({}), {}), /no command specified/);
});

test("the process's environment", () => {
  assert.deepEqual(processEnv({ Env: ["A=1", "B", "HOSTNAME=own"], Tty: true }, "h"), [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOSTNAME=own",
    "TERM=xterm",
    "A=1",
  ]);
});

test("every transition of the table leads to a state that the table knows", () => {
  for (const ways of Object.values(transitions)) for (const to of Object.values(ways)) assert.ok(to in transitions);
  assert.equal(next("running", "exit"), "exited");
  assert.throws(() => next("exited", "pause"), /container is exited: it cannot pause/);
});

test("restart delays double up to a minute and start again after a good run", () => {
  const policy = { Name: "always", MaximumRetryCount: 0 };
  const exit = { exitCode: 1, ran: 10, manually: false, restarts: 0, lastDelay: 0 };
  assert.equal(restartDelay(policy, exit), 100);
  assert.equal(restartDelay(policy, { ...exit, lastDelay: 100 }), 200);
  assert.equal(restartDelay(policy, { ...exit, lastDelay: 50_000 }), 60_000);
  assert.equal(restartDelay(policy, { ...exit, lastDelay: 50_000, ran: 10_000 }), 100);
  assert.equal(restartDelay({ Name: "on-failure", MaximumRetryCount: 0 }, { ...exit, exitCode: 0 }), undefined);
});

test("ports of requests and of lists", () => {
  const host = hostConfig({ PortBindings: { "80/tcp": [{ HostPort: "8000-8010" }, { HostIp: "127.0.0.1" }] } }, "");
  assert.deepEqual(portBindings(config({}), host), [
    { protocol: "tcp", containerPort: 80, hostIp: "", hostPort: 8000, hostPortEnd: 8010 },
    { protocol: "tcp", containerPort: 80, hostIp: "127.0.0.1", hostPort: 0, hostPortEnd: 0 },
  ]);
  const all = hostConfig({ PublishAllPorts: true }, "");
  assert.deepEqual(portBindings(config({ ExposedPorts: { "53/udp": {} } }), all)[0]?.protocol, "udp");
  assert.throws(() => portBindings(config({}), hostConfig({ PortBindings: { "99999/tcp": [] } }, "")), /invalid port/);
  const published = [{ protocol: "tcp" as const, containerPort: 80, hostIp: "", hostPort: 8080 }];
  assert.deepEqual(portMap(["80/tcp", "443/tcp"], published), {
    "80/tcp": [
      { HostIp: "0.0.0.0", HostPort: "8080" },
      { HostIp: "::", HostPort: "8080" },
    ],
    "443/tcp": null,
  });
  assert.equal(portList(["443/tcp"], published).length, 3);
});

test("detach keys are found across chunks; broken sequences pass", () => {
  const scanner = new DetachScanner(parseDetachKeys(""));
  assert.deepEqual(scanner.push(Buffer.from("a\x10")), { pass: Buffer.from("a"), detached: false });
  assert.deepEqual(scanner.push(Buffer.from("b")).pass, Buffer.from("\x10b"));
  assert.equal(scanner.push(Buffer.from("x\x10\x11y")).detached, true);
  assert.deepEqual(parseDetachKeys("ctrl-a,b"), Buffer.from([1, 98]));
  assert.throws(() => parseDetachKeys("ctrl-é"), /Invalid detach keys/);
});

test("time in Docker's spellings", () => {
  assert.equal(rfc3339Nano(1_700_000_000_120), "2023-11-14T22:13:20.12Z");
  assert.equal(rfc3339Nano(1_700_000_000_000, 7), "2023-11-14T22:13:20.000000007Z");
  assert.equal(parseRfc3339("2023-11-14T22:13:20.5+01:00"), 1_699_996_400_500);
  assert.equal(parseDuration("1h30m"), 5_400_000);
  assert.equal(parseTimestamp("10m", 1_000_000), 400_000);
  assert.equal(parseTimestamp("1700000000.5", 0), 1_700_000_000_500);
  assert.throws(() => parseTimestamp("soon", 0), /failed to parse value as time or duration/);
  assert.deepEqual([0, 1000, 59_000, 60_000, 300_000, 3_600_000, 7_200_000, 86_400_000 * 3].map(humanDuration), [
    "Less than a second",
    "1 second",
    "59 seconds",
    "About a minute",
    "5 minutes",
    "About an hour",
    "2 hours",
    "3 days",
  ]);
});

test("signals by name and number", () => {
  assert.deepEqual(["KILL", "sigterm", "15", "RTMIN+1"].map(parseSignal), [9, 15, 15, 35]);
  assert.throws(() => parseSignal("NOPE"), /invalid signal: NOPE/);
  assert.throws(() => parseSignal("99"), /invalid signal: 99/);
});

test("sizes and security options", () => {
  assert.deepEqual(["10m", "1k", "5", "1.5g"].map(parseSize), [10485760, 1024, 5, 1610612736]);
  assert.throws(() => parseSize("x"), /invalid size/);
  assert.equal(securityOptions(["no-new-privileges"]).noNewPrivileges, true);
  assert.equal(securityOptions(["seccomp=unconfined"]).seccompUnconfined, true);
  assert.throws(() => securityOptions(["apparmor=mine"]), /apparmor=mine/);
});

test("filters", () => {
  const filters = new Map([
    ["label", ["a", "b=1"]],
    ["name", ["^we"]],
    ["label!", ["c"]],
  ]);
  assert.equal(labels(filters, { a: "", b: "1" }), true);
  assert.equal(labels(filters, { a: "", b: "2" }), false);
  assert.equal(withoutLabels(filters, { c: "" }), false);
  assert.equal(pattern(filters, "name", "web"), true);
  assert.equal(pattern(filters, "name", "aweb"), false);
  assert.equal(pattern(new Map([["name", ["("]]]), "name", "("), true, "what is no pattern is compared");
});

test("image references", () => {
  assert.equal(familiar("docker.io/library/alpine:latest"), "alpine:latest");
  assert.equal(familiar("docker.io/a/b:1"), "a/b:1");
  assert.deepEqual(parseReference("localhost:5000/a/b:c"), { repository: "localhost:5000/a/b", tag: "c", digest: "" });
  assert.equal(withDefaultTag("localhost:5000/a"), "localhost:5000/a:latest");
  assert.throws(() => parseReference("UP"), /must be lowercase/);
  assert.throws(() => parseReference("a b"), /invalid reference format/);
  assert.equal(matchesReference("a/b:1", "a/*"), true);
  assert.equal(matchesReference("a/b/c:1", "a/*"), false);
});

test("changes of an import", () => {
  const made = applyChanges({}, [
    'CMD ["a","b"]',
    'ENV X=1 Y="two words"',
    "EXPOSE 80 53/udp",
    "ENTRYPOINT run it",
    "LABEL k v w",
  ]);
  assert.deepEqual(made, {
    Cmd: ["a", "b"],
    Env: ["X=1", "Y=two words"],
    ExposedPorts: { "80/tcp": {}, "53/udp": {} },
    Entrypoint: ["/bin/sh", "-c", "run it"],
    Labels: { k: "v w" },
  });
  assert.throws(() => applyChanges({}, ["RUN x"]), /run is not a valid change command/);
});

test("links inside a root file system cannot lead out of it", () => {
  const root = mkdtempSync(join(tmpdir(), "skein-root-"));
  try {
    mkdirSync(join(root, "real"));
    symlinkSync("/real", join(root, "abs"));
    symlinkSync("../../../../etc", join(root, "up"));
    symlinkSync("loop", join(root, "loop"));
    assert.equal(resolveInRoot(root, "/abs/x"), join(root, "real/x"));
    assert.equal(resolveInRoot(root, "/up/passwd"), join(root, "etc/passwd"));
    assert.equal(resolveInRoot(root, "/../../etc"), join(root, "etc"));
    assert.equal(resolveInRoot(root, "/abs", { followLast: false }), join(root, "abs"));
    assert.throws(() => resolveInRoot(root, "/loop"), /too many levels of symbolic links/);
  } finally {
    rmSync(root, { recursive: true });
  }
});

test("figures of /proc and ps", () => {
  assert.equal(systemCpuNs("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1"), 36e7);
  const counters = netCounters("head\nhead\n  lo: 1 1 0 0 0 0 0 0 1 1\neth0: 10 1 2 3 0 0 0 0 20 2 4 5 0 0 0 0\n");
  assert.deepEqual(Object.keys(counters), ["eth0"]);
  assert.equal(counters.eth0?.tx_bytes, 20);
  assert.deepEqual(parsePs("UID PID CMD\nroot 1 a b c\nroot 2 x\n", new Set([1])), {
    Titles: ["UID", "PID", "CMD"],
    Processes: [["root", "1", "a b c"]],
  });
});

test("invented names avoid those taken", () => {
  const taken = new Set<string>();
  for (let i = 0; i < 50; i++) {
    const name = randomName((n) => taken.has(n));
    assert.match(name, /^[a-z]+_[a-z]+\d*$/);
    taken.add(name);
  }
  assert.equal(taken.size, 50);
  let calls = 0;
  assert.match(
    randomName(() => ++calls < 10),
    /\d$/,
  );
});

test("settings: flags go before the file, misspelt keys are refused", () => {
  const read = (...argv: string[]) => readSettings([...argv]);
  const given = read(
    "-H",
    "unix:///tmp/x.sock",
    "--exec-root",
    "/tmp/run/",
    "--default-address-pool",
    "base=10.1.0.0/16,size=24",
  );
  assert.ok("config" in given);
  assert.deepEqual(given.config.endpoints, [{ kind: "unix", path: "/tmp/x.sock" }]);
  assert.equal(given.config.runDir, "/tmp/run");
  assert.equal(given.config.pidfile, "/tmp/run/skeind.pid");
  assert.deepEqual(given.config.addressPools, [{ base: "10.1.0.0/16", size: 24 }]);
  const mesh = (text: string) => {
    const found = read("--mesh-routing", text);
    return "config" in found ? found.config.meshRouting : undefined;
  };
  assert.equal(given.config.meshRouting, undefined);
  assert.equal(mesh("off"), false);
  assert.deepEqual(mesh("0x100/0xf00:300"), { mark: 0x100, mask: 0xf00, table: 300 });
  for (const wrong of ["", "0x100", "0x100/0xf0:300", "0/0xf:300", "1/0x1ffffffff:300", "1/1:254", "1/1:0"]) {
    assert.throws(() => mesh(wrong), /--mesh-routing wants/, wrong);
  }
  assert.deepEqual(read("--help"), { print: "help" });
  assert.throws(() => read("--nope"), /Unknown option '--nope'/);
  assert.throws(() => read("--log-level", "loud"), /not loud/);
  assert.deepEqual(fromFile('{"label":["a=1"],"debug":true}', "f").get("debug"), ["true"]);
  assert.throws(() => fromFile('{"lable":[]}', "f"), /unknown setting "lable"/);
});

test("events are chosen as Docker chooses them: whom they are about by the beginning of id or name, images whole", () => {
  const id = "ab12".repeat(16);
  const attributes = { name: "web.1", image: "docker.io/library/nginx:1.27", "com.example": "x" };
  const event = { type: "container", action: "exec_start: sh -c x", id, attributes, scope: "local", at: 0 } as const;
  const chosen = (...pairs: [string, string][]) => {
    const filters = new Map<string, string[]>();
    for (const [key, value] of pairs) filters.set(key, [...(filters.get(key) ?? []), value]);
    return matchesEvent(event, filters);
  };
  assert.ok(chosen());
  assert.ok(
    chosen(["container", "ab12"]) &&
      chosen(["container", "web"]) &&
      chosen(["container", "no"], ["container", "web.1"]),
  );
  assert.ok(chosen(["event", "exec_start"]) && chosen(["event", "exec_start: sh -c x"]));
  assert.ok(
    chosen(["image", "nginx"]) &&
      chosen(["image", "docker.io/library/nginx:1.27"]) &&
      chosen(["label", "com.example=x"]),
  );
  assert.ok(!chosen(["image", "ngin"]) && !chosen(["image", "nginx:1.26"]), "an image is meant whole");
  assert.ok(!chosen(["container", "eb.1"]) && !chosen(["event", "exec"]) && !chosen(["type", "image"]));
  assert.ok(!chosen(["plugin", "x"]) && !chosen(["scope", "swarm"]) && !chosen(["label", "com.example=y"]));
});

/**
 * What users do with containers beyond running them, and what they do wrong: lists, sizes, copies, logs, links, volumes that
 * are mounts, requests that make no sense, clients that go away. With `SKEIN_CONTROL=1` the real Docker Engine answers.
 */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { text } from "node:stream/consumers";
import { after, afterEach, before, test } from "node:test";
import Docker from "dockerode";
import { WebSocket } from "ws";
import { inside } from "../../src/lab/host.ts";
import { run } from "../../src/lab/process.ts";
import { control, EngineHost, skipControl } from "../support/engine.ts";
import { eventually } from "../support/lab.ts";
import { Session } from "../support/session.ts";
import { Terminal } from "../support/terminal.ts";

let host: EngineHost;
const lines = (text: string): string[] => text.split("\n").filter(Boolean);

before(async () => {
  host = await EngineHost.make("conts", "10.100.0.0/24");
});
afterEach(() => host.clear());
after(() => host?.[Symbol.asyncDispose]());

/** A request as no command line would send it: its status and message. */
async function raw(method: string, path: string, body?: string, type = "application/json"): Promise<[number, string]> {
  const { stdout } = await run([
    ...["curl", "-s", "-m", "5", "-X", method, "--unix-socket", host.host("host").socket, "-w", "\n%{http_code}"],
    ...(body === undefined ? [] : ["-H", `Content-Type: ${type}`, "--data-binary", body]),
    `http://d/v1.41${path}`,
  ]);
  const at = stdout.lastIndexOf("\n");
  const answer = stdout.slice(0, at);
  const { message = answer } = answer.startsWith('{"message"') ? (JSON.parse(answer) as { message: string }) : {};
  return [Number(stdout.slice(at + 1)), message.trim()];
}

test("ps: every filter, alone", async () => {
  await host.docker(
    ...["run", "-d", "--name", "a1", "--label", "x=1", "-p", "8123:80", "--expose", "99", "alpine", "sleep", "1000"],
  );
  await host.attempt("run", "--name", "a2", "--label", "x=2", "alpine", "sh", "-c", "exit 3");
  await host.docker("create", "--name", "a3", "-v", "vol1:/data", "alpine", "true");
  const found: Record<string, string> = {
    "name=a": "a1 a2 a3",
    "name=^/a1$": "a1",
    "name=^a1$": "a1",
    "name=.*1": "a1",
    "id=zzz": "",
    "label=x": "a1 a2",
    "label=x=2": "a2",
    "label=y": "",
    "exited=3": "a2",
    "exited=0": "",
    "status=exited": "a2",
    "status=running": "a1",
    "status=created": "a3",
    "health=none": "a1 a2 a3",
    "health=healthy": "",
    "ancestor=alpine": "a1 a2 a3",
    "ancestor=alpine:latest": "a1 a2 a3",
    "ancestor=nosuch": "",
    "before=a2": "a1",
    "since=a2": "a3",
    "volume=vol1": "a3",
    "volume=/data": "a3",
    "volume=nosuch": "",
    "network=bridge": "a1 a2 a3",
    "network=nosuch": "",
    // The host's port, not the container's.
    "publish=8123": "a1",
    "publish=8120-8125/tcp": "a1",
    "publish=80": "",
    "publish=8123/udp": "",
    "expose=99": "a1",
    "expose=80/tcp": "a1",
    "expose=81": "",
    "is-task=true": "",
    "is-task=false": "a1 a2 a3",
  };
  for (const [filter, names] of Object.entries(found)) {
    const got = lines(await host.docker("ps", "-a", "--filter", filter, "--format", "{{.Names}}")).sort();
    assert.equal(got.join(" "), names, filter);
  }
  for (const [filter, words] of [
    ["status=foo", /[Ii]nvalid filter 'status=foo'/],
    ["health=foo", /[Uu]nrecogni[sz]ed filter value for health: foo/],
    ["before=nosuch", /no such container:? nosuch/i],
    ["publish=x", /error while looking up for publish x: strconv\.ParseUint: parsing "x": invalid syntax/],
    ["expose=70000", /error while looking up for expose 70000: .*value out of range/],
    ["is-task=maybe", /[Ii]nvalid filter 'is-task=\[maybe\]'/],
    ["bogus=1", /[Ii]nvalid filter 'bogus'/],
  ] as const) {
    assert.match((await host.attempt("ps", "-a", "--filter", filter)).stderr, words, filter);
  }
  assert.deepEqual(lines(await host.docker("ps", "--last", "2", "--format", "{{.Names}}")), ["a3", "a2"]);
  assert.deepEqual(lines(await host.docker("ps", "-l", "--format", "{{.Names}} {{.State}}")), ["a3 created"]);
  await host.docker("rm", "-f", "a1", "a2", "a3");
  await host.docker("volume", "rm", "vol1");
});

test("sizes are those of the files that were written", async () => {
  await host.docker("run", "-d", "--name", "s1", "alpine", "sleep", "1000");
  assert.equal(await host.docker("inspect", "-s", "-f", "{{.SizeRw}}", "s1"), "0");
  await host.docker("exec", "s1", "sh", "-c", "echo hello > /f; ln /f /g; mkdir /d; head -c 1000 /dev/zero > /d/z");
  assert.equal(await host.docker("inspect", "-s", "-f", "{{.SizeRw}}", "s1"), "1006");
  assert.match(await host.docker("ps", "-s", "--format", "{{.Size}}"), /^1\.01kB \(virtual /);
});

test("cp: owners, directories onto files, archives from stdin, places that are not there", async () => {
  const dir = join(host.scratch, "t");
  mkdirSync(join(dir, "sub"), { recursive: true });
  writeFileSync(join(dir, "f"), "one");
  writeFileSync(join(dir, "sub/g"), "two");
  symlinkSync("f", join(dir, "l"));
  execFileSync("chown", ["1234:4321", join(dir, "f")]);
  execFileSync("chmod", ["640", join(dir, "f")]);
  await host.docker("run", "-d", "--name", "c1", "alpine", "sleep", "1000");
  const owners = async (path: string) =>
    lines(await host.docker("exec", "c1", "sh", "-c", `cd ${path}; stat -c '%n %u:%g %a' f sub/g`));
  await host.docker("cp", dir, "c1:/t");
  assert.deepEqual(await owners("/t"), ["f 1234:4321 640", "sub/g 0:0 644"]);
  await host.docker("cp", "-a", dir, "c1:/ta");
  assert.deepEqual(await owners("/ta"), ["f 1234:4321 640", "sub/g 0:0 644"]);
  for (const [from, to, words] of [
    ["f", "c1:/nodir/x", /Could not find the file \/nodir in container c1/],
    ["f", "c1:/nodir/", /(no such|Could not find the file).*|destination directory/],
    ["nosuch", "c1:/", /no such file or directory/],
    ["sub", "c1:/t/f", /cannot copy directory/],
    ["f", "nosuch:/", /No such container: nosuch|no such directory/],
  ] as const) {
    const { code, stderr } = await host.attempt("cp", join(dir, from), to);
    assert.notEqual(code, 0, `${from} to ${to}`);
    assert.match(stderr, words);
  }
  assert.match(
    (await host.attempt("cp", "c1:/nosuch", dir)).stderr,
    /Could not find the file \/nosuch in container c1/,
  );
  const pipe = (shell: string) => run(["sh", "-c", shell.replaceAll("docker", host.command([]).join(" "))]);
  await pipe(`tar c -C ${host.scratch} t | docker cp - c1:/tmp`);
  assert.equal(await host.docker("exec", "c1", "cat", "/tmp/t/sub/g"), "two");
  assert.match((await pipe(`docker cp c1:/t - | tar t`)).stdout, /^t\/sub\/g$/m);
  assert.notEqual((await pipe(`tar c -C ${host.scratch} t | docker cp - c1:/nosuch`)).code, 0);
  // What a file may do goes with it.
  const pid = await host.inspect("c1", "{{.State.Pid}}");
  const give = `import os; os.setxattr("/proc/${pid}/root/t/f", "security.capability", bytes([1,0,0,2,0,4]) + bytes(14))`;
  assert.equal((await run(inside(host.state, ["/usr/bin/python3", "-c", give]))).code, 0);
  for (const command of ["docker cp c1:/t/f -", "docker export c1"]) {
    assert.equal((await pipe(`${command} | grep -c SCHILY.xattr.security.capability=`)).stdout, "1\n", command);
  }
  // Links of the container are its own: a planted file lands inside, or nowhere.
  await host.docker("exec", "c1", "sh", "-c", "ln -s ../../../../../../etc /up; ln -s /nosuch /dangling");
  await host.docker("cp", join(dir, "f"), "c1:/up/planted-by-test");
  assert.equal(existsSync("/etc/planted-by-test"), false);
  assert.equal(await host.docker("exec", "c1", "cat", "/etc/planted-by-test"), "one");
  await host.docker("run", "--name", "c2", "--read-only", "alpine", "true");
  assert.match((await host.attempt("cp", join(dir, "f"), "c2:/x")).stderr, /rootfs is marked read-only/);
  await host.docker("run", "--name", "c3", "-v", `${dir}:/ro:ro`, "alpine", "true");
  assert.match((await host.attempt("cp", join(dir, "f"), "c3:/ro/x")).stderr, /volume is marked read-only/);
});

test("logs: ranges, details, drivers that keep nothing", async () => {
  await host.docker(
    ...["run", "--name", "l1", "--log-opt", "labels=x,y", "--log-opt", "env=E", "--log-opt", "tag={{.Name}}"],
    ...["-l", "x=1", "-e", "E=a b", "alpine", "sh", "-c", "echo one; echo two"],
  );
  assert.equal(await host.docker("logs", "--details", "--tail", "1", "l1"), "E=a+b,tag=l1,x=1 two");
  assert.match(await host.docker("logs", "-t", "--details", "--tail", "1", "l1"), /^\S+Z E=a\+b,tag=l1,x=1 two$/);
  const attributes = '"attrs":{"E":"a b","tag":"l1","x":"1"}';
  assert.ok(readFileSync(await host.inspect("l1", "{{.LogPath}}"), "utf8").includes(attributes));
  for (const [options, text] of [
    [["--tail", "0"], ""],
    [["--tail", "-1"], "one\ntwo"],
    [["--tail", "x"], "one\ntwo"],
    [["--since", "1h"], "one\ntwo"],
    [["--since", "2040-01-01"], ""],
    [["--until", "2040-01-01"], "one\ntwo"],
    [["--until", "1h"], ""],
  ] as const) {
    assert.equal(await host.docker("logs", ...options, "l1"), text, options.join(" "));
  }
  assert.match((await host.attempt("logs", "--since", "bogus", "l1")).stderr, /bogus/);
  await host.docker("run", "--name", "l2", "--log-driver", "none", "alpine", "echo", "x");
  assert.match((await host.attempt("logs", "l2")).stderr, /configured logging driver does not support reading/);
});

test("logs: rotated files are compressed, and told whole", async () => {
  const options = ["--log-opt", "max-size=4k", "--log-opt", "max-file=3", "--log-opt", "compress=true"];
  // In lines of their own time: Docker rotates between writes.
  const say = "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); sleep 0.002; done";
  await host.docker("run", "--name", "lc", ...options, "alpine", "sh", "-c", say);
  const path = await host.inspect("lc", "{{.LogPath}}");
  await eventually("compressed", async () => existsSync(`${path}.1.gz`) && !existsSync(`${path}.1`));
  const all = lines(await host.docker("logs", "lc"));
  assert.deepEqual(
    all.slice(-60),
    Array.from({ length: 60 }, (_, n) => `line ${40 + n}`),
  );
  assert.deepEqual(lines(await host.docker("logs", "--tail", "55", "lc")), all.slice(-55));
  for (const [more, words] of [
    [["--log-opt", "compress=true"], /compress cannot be true when max-file is less than 2 or max-size is not set/],
    [["--log-opt", "compress=maybe", "--log-opt", "max-file=2"], /strconv.ParseBool: parsing "maybe": invalid syntax/],
    [["--log-driver", "local", "--log-opt", "max-file=1"], /compression cannot be enabled when max file count is 1/],
  ] as const) {
    const { code, stderr } = await host.attempt("run", "--rm", ...more, "alpine", "true");
    assert.notEqual(code, 0, more.join(" "));
    assert.match(stderr, words);
  }
});

test(
  "a part of a volume: mounted as it was found inside the volume, whatever links lie there",
  skipControl,
  async () => {
    const run = (mount: string, ...command: string[]) =>
      host.attempt("run", "--rm", "--mount", `type=volume,src=parts,dst=/p,${mount}`, "alpine", ...command);
    await host.docker("volume", "create", "parts");
    await host.docker(
      ...["run", "--rm", "-v", "parts:/v", "alpine", "sh", "-c"],
      "mkdir -p /v/a/b; echo deep > /v/a/b/f; echo top > /v/top; ln -s /a/b /v/abs; ln -s ../../../../a /v/up; ln -s /usr /v/host; mkfifo /v/fifo",
    );
    for (const [part, command, says] of [
      ["a/b", "cat /p/f; echo more > /p/g", "deep"],
      ["a/b", "cat /p/g; ls /p", "more\nf\ng"],
      ["a/b/f", "cat /p", "deep"],
      ["abs", "cat /p/f", "deep"],
      ["up/b", "cat /p/f", "deep"],
    ] as const) {
      const { stdout, stderr } = await run(`volume-subpath=${part}`, "sh", "-c", command);
      assert.equal(stdout.trim(), says, `${part}: ${stderr}`);
    }
    assert.match((await run("volume-subpath=a,readonly", "touch", "/p/x")).stderr, /Read-only file system/);
    for (const [part, words] of [
      ["nosuch", /cannot access path \S+\/nosuch: no such file or directory/],
      // A link of the volume means a place in the volume.
      ["host", /cannot access path \S+\/host: no such file or directory/],
      ["fifo", /neither a directory nor a file/],
      ["../x", /subpath must be a relative path within the volume/],
      ["a/../../x", /subpath must be a relative path within the volume/],
      ["/a", /subpath must be a relative path within the volume/],
    ] as const) {
      assert.match((await run(`volume-subpath=${part}`, "true")).stderr, words, part);
    }
    const anonymous = ["--mount", "type=volume,dst=/p,volume-subpath=a"];
    assert.match(
      (await host.attempt("run", "--rm", ...anonymous, "alpine", "true")).stderr,
      /must not set Subpath when using anonymous volumes/,
    );
    await host.docker("create", "--name", "part", "--mount", "type=volume,src=parts,dst=/p,volume-subpath=a", "alpine");
    assert.equal(await host.inspect("part", "{{(index .HostConfig.Mounts 0).VolumeOptions.Subpath}}"), "a");
    await host.docker("cp", "part:/p/b/f", join(host.scratch, "part"));
    assert.equal(readFileSync(join(host.scratch, "part"), "utf8"), "deep\n");
    await host.docker("rm", "part");
    await host.docker("volume", "rm", "parts");
  },
);

test("a link follows its target to another address, names it in ps and goes with rm --link", async () => {
  await host.docker("run", "-d", "--name", "target", "alpine", "sleep", "1000");
  await host.docker("run", "-d", "--name", "linker", "--link", "target:pal", "alpine", "sleep", "1000");
  assert.equal(await host.inspect("linker", "{{json .HostConfig.Links}}"), '["/target:/linker/pal"]');
  assert.deepEqual((await host.docker("ps", "--format", "{{.Names}}", "--no-trunc")).split(/[,\n]/).sort(), [
    "linker",
    "linker/pal",
    "target",
  ]);
  const address = () => host.inspect("target", "{{.NetworkSettings.IPAddress}}");
  const first = await address();
  await host.docker("stop", "-t", "0", "target");
  await host.docker("run", "-d", "--name", "thief", "--restart", "no", "alpine", "sleep", "1000");
  await host.docker("start", "target");
  const hosts = await host.docker("exec", "linker", "cat", "/etc/hosts");
  assert.match(hosts, new RegExp(`^${(await address()).replaceAll(".", "\\.")}\\s+pal `, "m"), `first ${first}`);
  await host.docker("rm", "--link", "linker/pal");
  assert.equal(await host.inspect("linker", "{{json .HostConfig.Links}}"), "null");
  assert.match((await host.attempt("rm", "--link", "linker/pal")).stderr, /linker\/pal/);
});

test("volumes that are mounts: shared while they are used, gone after, what they show is never deleted", async () => {
  const dir = join(host.scratch, "shown");
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, "precious"), "kept");
  await host.docker("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m", "ram");
  await host.docker("volume", "create", "--opt", "type=none", "--opt", `device=${dir}`, "--opt", "o=bind", "shown");
  await host.docker(
    "run",
    "-d",
    "--name",
    "v1",
    "-v",
    "ram:/ram",
    "alpine",
    "sh",
    "-c",
    "echo x > /ram/x; exec sleep 1000",
  );
  await eventually("written", async () => (await host.attempt("exec", "v1", "cat", "/ram/x")).stdout === "x\n");
  assert.equal(await host.docker("run", "--rm", "-v", "ram:/ram", "alpine", "cat", "/ram/x"), "x");
  assert.match(await host.docker("exec", "v1", "df", "-k", "/ram"), /\b1024\b/);
  await host.docker("rm", "-f", "v1");
  assert.equal(await host.docker("run", "--rm", "-v", "ram:/ram", "alpine", "ls", "/ram"), "", "a new file system");
  assert.equal(await host.docker("run", "--rm", "-v", "shown:/m", "alpine", "cat", "/m/precious"), "kept");
  await host.docker("volume", "rm", "ram", "shown");
  assert.equal(readFileSync(join(dir, "precious"), "utf8"), "kept");
  await host.docker("volume", "create", "--opt", "type=none", "--opt", "device=/nonexistent", "--opt", "o=bind", "bad");
  const { code, stderr } = await host.attempt("run", "--rm", "-v", "bad:/m", "alpine", "true");
  assert.notEqual(code, 0);
  assert.match(stderr, /failed to mount local volume: mount \/nonexistent:.*no such file|ENOENT/s);
  await host.docker("volume", "rm", "bad");
  for (const [options, words] of [
    [["--opt", "foo=bar"], /invalid option: "foo"/],
    [["--opt", "type=tmpfs"], /missing required option: "device"/],
    [["--opt", "device=x"], /missing required option: "type"/],
  ] as const) {
    assert.match((await host.attempt("volume", "create", ...options)).stderr, words);
  }
  assert.equal(await host.docker("volume", "ls", "-q"), "");
});

test("requests that make no sense: a status of the client's, words, and nothing made", async () => {
  await host.docker("run", "-d", "--name", "b1", "alpine", "sleep", "1000");
  await host.docker("run", "--name", "b2", "alpine", "true");
  const create = "/containers/create";
  // 20.10 has 500 for some of what is the client's fault.
  const faults = control ? [400, 500] : [400];
  for (const [method, path, body, statuses, words] of [
    ["POST", create, "{bad", faults, /invalid/],
    ["POST", create, '{"Image":5}', faults, /cannot unmarshal number into Go struct field .*Image of type string/],
    ["POST", create, "{}", [400], /./],
    ["POST", create, '{"Image":"nosuch"}', [404], /No such image: nosuch:latest/],
    [
      "POST",
      `${create}?name=b1`,
      '{"Image":"alpine"}',
      [409],
      /Conflict\. The container name .*\/b1.* is already in use/,
    ],
    ["POST", `${create}?name=a%20b`, '{"Image":"alpine"}', [400], /Invalid container name/],
    ["POST", create, '{"Image":"alpine","HostConfig":{"Memory":1.5}}', faults, /cannot unmarshal number/],
    ["POST", create, '{"Image":"alpine","HostConfig":{"Memory":-5}}', [400], /Minimum memory limit allowed is 6MB/],
    ["POST", "/containers/nosuch/start", undefined, [404], /No such container: nosuch/],
    ["POST", "/containers/b1/start", undefined, [304], /^$/],
    ["POST", "/containers/b2/stop", undefined, [304], /^$/],
    ["POST", "/containers/b2/kill", undefined, [409], /is not running/],
    ["POST", "/containers/b1/kill?signal=FOO", undefined, [400], /[Ii]nvalid signal: FOO/],
    ["POST", "/containers/b1/stop?t=abc", undefined, faults, /strconv\.Atoi: parsing "abc": invalid syntax/],
    ["POST", "/containers/b2/pause", undefined, [409], /is not running/],
    ["POST", "/containers/b1/unpause", undefined, control ? [500] : [409], /is not paused/],
    ["POST", "/containers/b1/rename?name=b2", undefined, [409], /Error when allocating new name: Conflict/],
    ["POST", "/containers/b1/rename?name=", undefined, [400], /may be empty/],
    ["POST", "/containers/b1/exec", '{"Cmd":[]}', [400], /No exec command specified/],
    ["POST", "/containers/b2/exec", '{"Cmd":["x"]}', [409], /is not running/],
    ["POST", "/exec/nosuch/start", "{}", [404], /[Nn]o such exec instance/],
    ["GET", "/containers/b1/logs", undefined, [400], /you must choose at least one stream/],
    ["GET", "/containers/json?filters=bad", undefined, faults, /invalid/],
    ["GET", "/containers/json?limit=abc", undefined, faults, /strconv\.Atoi/],
    ["GET", "/events?since=abc", undefined, faults, /abc/],
    ["GET", "/events?since=5&until=3", undefined, [400], /`since` time \(5\) cannot be after `until` time \(3\)/],
    ["GET", "/containers/b1/top?ps_args=--bogus", undefined, faults, /^ps: error: unknown gnu long option$/],
    ["POST", "/containers/b1/update", '{"Memory":5}', [400], /Minimum memory limit allowed is 6MB/],
    ["POST", "/volumes/create", '{"Name":"a/b"}', [400], /includes invalid characters for a local volume name/],
    ["GET", "/volumes/nosuch", undefined, [404], /no such volume/],
    [
      "POST",
      "/images/alpine/tag?repo=UPPER&tag=x",
      undefined,
      faults,
      /invalid reference format: repository name .*must be lowercase/,
    ],
    ["POST", "/networks/bridge/connect", '{"Container":"nosuch"}', [404], /No such container: nosuch/],
    ["POST", "/networks/nosuch/connect", '{"Container":"b1"}', [404], /network nosuch not found/],
    ["POST", "/commit?container=nosuch", undefined, [404], /No such container: nosuch/],
    ["DELETE", "/containers/nosuch?force=1", undefined, [404], /No such container: nosuch/],
    ["GET", "/nosuch", undefined, [404], /page not found/],
  ] as const) {
    const [status, answer] = await raw(method, path, body);
    assert.ok((statuses as readonly number[]).includes(status), `${method} ${path} ${body ?? ""}: ${status} ${answer}`);
    assert.match(answer, words, `${method} ${path}`);
  }
  assert.deepEqual(lines(await host.docker("ps", "-a", "--format", "{{.Names}}")).sort(), ["b1", "b2"]);
  assert.equal(await host.docker("volume", "ls", "-q"), "");
});

test("archives that are none make no image", { skip: control ? "Docker makes one" : false }, async () => {
  const before = await host.docker("images", "-aq");
  for (const path of ["/images/load", "/images/create?fromSrc=-"]) {
    const [status, answer] = await raw("POST", path, "garbage", "application/x-tar");
    assert.equal(status, 400, answer);
    assert.doesNotMatch(answer, /\/containerd\/|UNKNOWN/, "nothing of the engine's own paths");
  }
  assert.equal(await host.docker("images", "-aq"), before);
});

test("clients that go away in the middle leave nothing behind", async () => {
  await host.docker("run", "-d", "--name", "g1", "-i", "alpine", "sh", "-c", "while :; do echo x; sleep 0.01; done");
  for (const args of [
    ["logs", "-f", "g1"],
    ["attach", "g1"],
    ["stats", "g1"],
    ["events"],
    ["exec", "-i", "g1", "cat"],
    ["wait", "g1"],
  ]) {
    const [program = "", ...rest] = host.command(args);
    const client = spawn(program, rest, { stdio: ["pipe", "pipe", "ignore"] });
    const gone = new Promise((resolve) => client.once("close", resolve));
    if (["logs", "attach", "stats"].includes(args[0] ?? ""))
      await new Promise((resolve) => client.stdout.once("data", resolve));
    else await new Promise((resolve) => setTimeout(resolve, 150));
    client.kill("SIGKILL");
    await gone;
  }
  assert.equal(await host.inspect("g1", "{{.State.Running}}"), "true");
  await host.docker("rm", "-f", "g1");
});

test("a registry that hangs is let go of when the client leaves, and nothing is half-made", async () => {
  const script = `let open = 0;
    const server = require("node:net").createServer((socket) => {
      console.log(++open);
      socket.resume();
      socket.on("error", () => {});
      socket.on("close", () => console.log(--open));
    });
    server.listen(5998, "127.0.0.1", () => console.log(open));`;
  const [program = "", ...rest] = inside(host.state, [process.execPath, "-e", script]);
  const registry = spawn(program, rest, { stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  registry.stdout.on("data", (chunk: Buffer) => {
    said += chunk.toString();
  });
  try {
    await eventually("it listens", async () => said.startsWith("0"));
    const before = await host.docker("images", "-aq");
    const [docker = "", ...args] = host.command(["pull", "localhost:5998/x"]);
    const client = spawn(docker, args, { stdio: "ignore" });
    await eventually("it is asked", async () => /[1-9]/.test(said));
    client.kill("SIGKILL");
    await eventually("it is left alone", async () => lines(said).at(-1) === "0");
    assert.equal(await host.docker("images", "-aq"), before);
  } finally {
    registry.kill("SIGKILL");
  }
});

test("exec on a terminal: other detach keys, and it goes on", async () => {
  await host.docker("run", "-d", "--name", "x1", "alpine", "sleep", "1000");
  await using terminal = new Terminal(
    host.command([
      "exec",
      "-it",
      "--detach-keys",
      "ctrl-x,q",
      "x1",
      "sh",
      "-c",
      "echo ready; touch /going; exec sleep 1000",
    ]),
  );
  await terminal.see(/ready/);
  terminal.type("\x18q");
  await terminal.ended();
  assert.match(await host.docker("top", "x1"), /sleep 1000[\s\S]*sleep 1000/, "the exec runs on");
  assert.match((await host.attempt("exec", "--detach-keys", "bogus", "-it", "x1", "true")).stderr, /./);
});

const attachTo = (name: string, query = "", options: { upgrade?: boolean } = {}) =>
  Session.open(
    host.host("host").socket,
    `/v1.41/containers/${name}/attach?stream=1&stdin=1&stdout=1&stderr=1${query}`,
    options,
  );

test("terminals have the size that they are given, before their process starts and after", async () => {
  const { socket } = host.host("host");
  await host.docker("run", "-dit", "--name", "tty", "alpine", "sh");
  using attached = await attachTo("tty");
  assert.match(attached.head, /^HTTP\/1\.1 101 .*\r\nContent-Type: application\/vnd\.docker\.raw-stream\r\n/i);
  for (const [height, width] of [
    [40, 123],
    [17, 211],
  ]) {
    assert.equal((await raw("POST", `/containers/tty/resize?h=${height}&w=${width}`))[0], 200);
    attached.type("stty size\n");
    await attached.see(new RegExp(`^${height} ${width}\r$`, "m"));
  }
  const made = await raw(
    "POST",
    "/containers/tty/exec",
    '{"AttachStdin":true,"AttachStdout":true,"Tty":true,"Cmd":["sh"]}',
  );
  const { Id: id } = JSON.parse(made[1]) as { Id: string };
  // The command line asks for the size while its exec is about to start.
  const early = raw("POST", `/exec/${id}/resize?h=33&w=77`);
  using exec = await Session.open(socket, `/v1.41/exec/${id}/start`, { body: { Tty: true } });
  await early;
  if (!control) {
    exec.type("stty size\n");
    await exec.see(/^33 77\r$/m);
  }
  assert.equal((await raw("POST", `/exec/${id}/resize?h=44&w=88`))[0], 200);
  exec.type("stty size\n");
  await exec.see(/^44 88\r$/m);
  for (const [path, statuses, words] of [
    ["/containers/tty/resize?h=x&w=1", [400, 500], /strconv/],
    ["/containers/nosuch/resize?h=1&w=1", [404], /No such container/],
    ["/exec/nosuch/resize?h=1&w=1", [404], /No such exec instance/],
  ] as const) {
    const [status, text] = await raw("POST", path);
    assert.ok((statuses as readonly number[]).includes(status), `${path}: ${status}`);
    assert.match(text, words);
  }
  exec.type("exit 3\n");
  await exec.over();
  attached.type("exit\n");
  await attached.over();
  assert.equal((await raw("POST", "/containers/tty/resize?h=1&w=1"))[0], 409);
});

test("several clients on one terminal: all hear, all type, one leaves by keys of its own", async () => {
  await host.docker("run", "-dit", "--name", "many", "alpine", "sh");
  using first = await attachTo("many");
  using second = await attachTo("many", "&detachKeys=ctrl-a,d");
  using third = await attachTo("many", "&stdin=0");
  first.type("echo from-$((1+0))\n");
  second.type("echo from-$((1+1))\n");
  for (const each of [first, second, third]) await each.see(/from-1\r\n[\s\S]*from-2\r\n|from-2\r\n[\s\S]*from-1\r\n/);
  // Half of the keys and something else are typed text; the default keys are no keys to who has others.
  second.type("\x01");
  second.type("x\x15echo still-$((2+1))\n");
  await second.see(/still-3/);
  second.type("\x01d");
  await second.over();
  first.type("\x10\x11");
  await first.over();
  assert.equal(await host.inspect("many", "{{.State.Status}}"), "running");
  using again = await attachTo("many");
  again.type("echo back-$((4+4)); exit 5\n");
  await again.see(/back-8/);
  await again.over();
  await third.over();
  assert.equal(await host.docker("wait", "many"), "5");
  assert.equal((await raw("POST", "/containers/many/attach?stream=1&detachKeys=bogus"))[0], 400);
});

test("stdin: its end by half a connection, kept open for the next client, over an old connection without upgrade", async () => {
  const make = async (name: string, once: boolean) => {
    const body = { Image: "alpine", OpenStdin: true, StdinOnce: once, Cmd: ["sh", "-c", "cat; echo over >&2"] };
    const [status, text] = await raw("POST", `/containers/create?name=${name}`, JSON.stringify(body));
    assert.equal(status, 201, text);
  };
  await make("once", true);
  using one = await attachTo("once");
  await host.docker("start", "once");
  one.type("typed\n");
  await one.see(/typed/);
  one.halfClose();
  await one.over();
  assert.equal(one.unframed, "typed\nover\n", "what comes after the half-close is still heard");

  await make("kept", false);
  using a = await attachTo("kept");
  await host.docker("start", "kept");
  a.type("from a\n");
  await a.see(/from a/);
  a.halfClose();
  using b = await attachTo("kept");
  b.type("from b\n");
  await b.see(/from b/);
  assert.equal(await host.inspect("kept", "{{.State.Running}}"), "true");
  using old = await attachTo("kept", "&stdin=0", { upgrade: false });
  assert.match(old.head, /^HTTP\/1\.1 200 OK\r\n/);
  b.type("to all\n");
  await old.see(/to all/);
  await host.docker("kill", "kept");
  for (const each of [b, old]) await each.over();

  // An exec takes what follows its body at once as input.
  await host.docker("run", "-d", "--name", "host", "alpine", "sleep", "1000");
  const [, text] = await raw(
    "POST",
    "/containers/host/exec",
    '{"AttachStdin":true,"AttachStdout":true,"Cmd":["wc","-c"]}',
  );
  const { Id: id } = JSON.parse(text) as { Id: string };
  using exec = await Session.open(host.host("host").socket, `/v1.41/exec/${id}/start`, { body: {} });
  exec.type("x".repeat(100_000));
  exec.halfClose();
  await exec.over();
  assert.equal(exec.unframed.trim(), "100000");
});

test("attach over WebSocket: typed to and heard, ended by either side", async () => {
  await host.docker("run", "-dit", "--name", "ws", "alpine", "sh");
  const address = (name: string) =>
    `ws+unix://${host.host("host").socket}:/v1.41/containers/${name}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1`;
  const open = async (name: string) => {
    const client = new WebSocket(address(name), { origin: "http://d" });
    let heard = "";
    client.on("message", (data: Buffer, binary) => {
      assert.equal(binary, true);
      heard += data.toString();
    });
    const closed = once(client, "close");
    await once(client, "open");
    return { client, closed, see: (pattern: RegExp) => eventually(String(pattern), async () => pattern.test(heard)) };
  };
  const one = await open("ws");
  one.client.send("echo it-$((1+1))\n");
  await one.see(/it-2\r\n/);
  one.client.close();
  await one.closed;
  const two = await open("ws");
  two.client.send("echo again-$((2+2)); exit\n");
  await two.see(/again-4\r\n/);
  await two.closed;
  const missing = new WebSocket(address("nosuch"), { origin: "http://d" });
  const [error] = (await once(missing, "error")) as [Error];
  assert.match(error.message, control ? /./ : /Unexpected server response: 404/);
});

test("dockerode: attach, wait, logs, exec, errors", async () => {
  const docker = new Docker({ socketPath: host.host("host").socket });
  const container = await docker.createContainer({
    ...{ Image: "alpine", name: "dk", OpenStdin: true, StdinOnce: true },
    Cmd: ["sh", "-c", "read line; echo got $line; echo bad >&2; exit 4"],
  });
  const stream = await container.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
  const [out, err] = [new PassThrough(), new PassThrough()];
  const [outText, errText] = [text(out), text(err)];
  docker.modem.demuxStream(stream, out, err);
  stream.once("end", () => {
    out.end();
    err.end();
  });
  const waiting = container.wait({ condition: "next-exit" });
  await container.start();
  stream.write("this\n");
  assert.equal((await waiting).StatusCode, 4);
  assert.deepEqual([await outText, await errText], ["got this\n", "bad\n"]);
  assert.match((await container.logs({ stdout: true, stderr: true })).toString(), /got this/);
  await container.remove();
  await assert.rejects(container.inspect(), { statusCode: 404 });
  const running = await docker.createContainer({ Image: "alpine", name: "dx", Cmd: ["sleep", "1000"] });
  await running.start();
  const exec = await running.exec({ Cmd: ["sh", "-c", "echo inside; exit 3"], AttachStdout: true, AttachStderr: true });
  const execOut = new PassThrough();
  const execText = text(execOut);
  const execStream = await exec.start({ hijack: true, stdin: false });
  docker.modem.demuxStream(execStream, execOut, execOut);
  execStream.once("end", () => execOut.end());
  assert.equal(await execText, "inside\n");
  await eventually("its exit code", async () => (await exec.inspect()).ExitCode === 3);
  assert.equal((await docker.listContainers()).length, 1);
});

test("stats: a stream of moments, each beside the one before; one alone; of what does not run", async () => {
  interface Moment {
    readonly name: string;
    readonly read: string;
    readonly preread: string;
    readonly cpu_stats: {
      cpu_usage: { total_usage: number };
      system_cpu_usage: number;
      online_cpus: number;
      throttling_data: { periods: number; throttled_periods: number; throttled_time: number };
    };
    readonly precpu_stats: Moment["cpu_stats"];
    readonly memory_stats: { usage: number; limit: number };
    readonly pids_stats: { current: number };
    readonly networks: { eth0: { rx_bytes: number } };
  }
  const moments = async (query: string, count: number): Promise<Moment[]> => {
    const { socket } = host.host("host");
    const { stdout } = await run([
      ...["sh", "-c", `curl -sN -m 9 --unix-socket ${socket} 'http://d/v1.41/containers/${query}' | head -n ${count}`],
    ]);
    return lines(stdout).map((line) => JSON.parse(line) as Moment);
  };
  const limits = ["-m", "64m", "--cpus", "0.1"];
  await host.docker("run", "-d", "--name", "busy", ...limits, "alpine", "sh", "-c", "while :; do :; done");
  const [, second, third] = await moments("busy/stats", 3);
  assert.ok(second && third, "it goes on");
  assert.deepEqual([third.preread, third.precpu_stats], [second.read, second.cpu_stats]);
  const used = third.cpu_stats.cpu_usage.total_usage - second.cpu_stats.cpu_usage.total_usage;
  const all = third.cpu_stats.system_cpu_usage - second.cpu_stats.system_cpu_usage;
  assert.ok(used > 0 && used < all * 1.5, `${used} ns of ${all}`);
  const { periods, throttled_periods, throttled_time } = third.cpu_stats.throttling_data;
  assert.ok(periods >= throttled_periods && throttled_periods > 0 && throttled_time > 0, "held up by --cpus");
  assert.equal(third.memory_stats.limit, 64 * 2 ** 20);
  assert.ok(third.memory_stats.usage > 0 && third.pids_stats.current === 1 && third.networks.eth0.rx_bytes >= 0);
  const [once] = await moments("busy/stats?stream=0&one-shot=1", 2);
  assert.equal(once?.precpu_stats.cpu_usage.total_usage, 0);
  const format = "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.PIDs}}";
  const shown = await host.docker("stats", "--no-stream", "--format", format, "busy");
  assert.match(shown, /^busy \d+\.\d+% [\d.]+[KM]iB \/ 64MiB 1$/);
  await host.docker("kill", "busy");
  const [still] = await moments("busy/stats?stream=0", 1);
  assert.deepEqual([still?.name, still?.read], ["/busy", "0001-01-01T00:00:00Z"]);
  assert.deepEqual(still?.memory_stats, {});
  assert.equal((await raw("GET", "/containers/nosuch/stats"))[0], 404);
});

test("events: filters choose, and name what happened", async () => {
  const since = String(Math.floor(Date.now() / 1000) - 1);
  await host.docker("run", "--name", "e1", "-l", "k=v", "-v", "evol:/v", "alpine", "true");
  await host.docker("rm", "e1");
  await host.docker("volume", "rm", "evol");
  const until = String(Math.floor(Date.now() / 1000) + 1);
  const told = async (...filters: string[]) => {
    const words = filters.flatMap((filter) => ["--filter", filter]);
    const format = "{{.Type}} {{.Action}}";
    return lines(await host.docker("events", "--since", since, "--until", until, ...words, "--format", format));
  };
  assert.deepEqual(await told("container=e1", "event=die"), ["container die"]);
  assert.deepEqual(await told("type=volume", "volume=evol"), [
    "volume create",
    "volume mount",
    "volume unmount",
    "volume destroy",
  ]);
  assert.deepEqual(await told("label=k=v", "event=create", "event=destroy"), ["container create", "container destroy"]);
  assert.deepEqual(await told("container=e1", "event=start"), ["container start"]);
  assert.deepEqual(await told("image=alpine", "container=e1", "event=die"), ["container die"]);
  assert.deepEqual(await told("type=network", "event=connect").then((all) => all.slice(-1)), ["network connect"]);
  assert.deepEqual(await told("container=nosuch"), []);
  assert.deepEqual(await told("scope=swarm"), []);
  assert.deepEqual((await told("network=bridge")).slice(-2), ["network connect", "network disconnect"]);
  assert.deepEqual(await told("volume=evol", "event=mount"), ["volume mount"]);
  for (const filter of ["daemon=x", "node=x", "service=x", "secret=x", "config=x", "type=plugin", "label=nosuch"]) {
    assert.deepEqual(await told(filter), [], filter);
  }
});

test("prune: containers, images, volumes, networks, by labels and age, with what was freed, told as events", async () => {
  const since = String(Math.floor(Date.now() / 1000) - 1);
  await host.docker("run", "--name", "p1", "-l", "keep=yes", "alpine", "true");
  await host.docker("run", "--name", "p2", "alpine", "sh", "-c", "head -c 100000 /dev/zero > /x");
  await host.docker("network", "create", "--label", "keep=yes", "pn1");
  await host.docker("network", "create", "pn2");
  await host.docker("volume", "create", "--label", "keep=yes", "pv1");
  await host.docker("volume", "create", "pv2");
  const prune = async (kind: string, ...more: string[]) => host.docker(kind, "prune", "-f", ...more);
  assert.match(await prune("container", "--filter", "until=1h"), /^Total reclaimed space: 0B$/);
  assert.match(await prune("container", "--filter", "label!=keep"), /Total reclaimed space: 100kB$/);
  assert.deepEqual(lines(await host.docker("ps", "-aq", "--filter", "name=p1")).length, 1);
  assert.equal(await prune("network", "--filter", "label!=keep=yes"), "Deleted Networks:\npn2");
  assert.match(await prune("volume", "--filter", "label=nosuch"), /reclaimed space: 0B/);
  // By an older API without names spared, by a newer one with `all` only.
  const [status, text] = await raw("POST", `/volumes/prune?filters=${encodeURIComponent('{"label!":["keep"]}')}`);
  assert.equal(status, 200, text);
  assert.deepEqual(JSON.parse(text), { VolumesDeleted: ["pv2"], SpaceReclaimed: 0 });
  await host.docker("commit", "p1", "pi:1");
  await host.docker("tag", "alpine", "pi:1");
  assert.match(await prune("image", "--filter", "until=1h"), /^Total reclaimed space: 0B$/);
  assert.match(await prune("image"), /deleted: sha256:/);
  const system = await prune("system", "--volumes", "--filter", "label!=keep");
  assert.match(system, /Total reclaimed space: \d/);
  assert.deepEqual(lines(await host.docker("ps", "-a", "--format", "{{.Names}}")), ["p1"]);
  await host.docker("rmi", "pi:1");
  const until = String(Math.ceil(Date.now() / 1000));
  const told = ["events", "--since", since, "--until", until, "--filter", "event=prune", "--format", "{{.Type}}"];
  const types = new Set(lines(await host.docker(...told)));
  assert.deepEqual(
    [...types].sort(),
    ["container", "image", "network", "volume", ...(types.has("builder") ? ["builder"] : [])].sort(),
  );
  await host.docker("rm", "p1");
  await host.docker("network", "rm", "pn1");
  await host.docker("volume", "rm", "pv1");
});

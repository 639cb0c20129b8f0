/** One host, driven by every stock CLI of this machine (20.10 and 28 where both are there): what `docker` users do. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { hostOf, requireLab, up } from "../../src/lab/lab.ts";
import { end, type Output, run } from "../../src/lab/process.ts";
import { clis, control, EngineHost, skipControl } from "../support/engine.ts";
import { eventually } from "../support/lab.ts";
import { ctrlP, ctrlQ, Terminal } from "../support/terminal.ts";

const lab = { name: "engine", subnet: "10.83.0.0/24", names: ["host"] };
const address = "10.83.0.11";
let host: EngineHost;
let scratch: string;

before(async () => {
  host = await EngineHost.make(lab.name, lab.subnet);
  scratch = host.scratch;
});
after(() => host?.[Symbol.asyncDispose]());

for (const [version, cli] of clis) {
  const command = (args: readonly string[]) => host.command(args, cli);
  const attempt = (...args: string[]): Promise<Output> => run(command(args), { timeoutMs: 30_000 });
  const ok = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await attempt(...args);
    assert.equal(code, 0, `docker ${args.join(" ")}: ${stderr}${stdout}`);
    return stdout.trim();
  };
  const inspect = (ref: string, format: string) => ok("inspect", "-f", format, ref);
  const clear = async () => {
    const ids = (await ok("ps", "-aq")).split("\n").filter(Boolean);
    if (ids.length) await ok("rm", "-fv", ...ids);
  };

  describe(version, () => {
    after(clear);

    test("run: output, errors and exit codes arrive apart", async () => {
      const { code, stdout, stderr } = await attempt(
        "run",
        "--rm",
        "alpine",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
      );
      assert.deepEqual([code, stdout, stderr], [7, "out\n", "err\n"]);
      assert.equal((await attempt("run", "--rm", "alpine", "nosuchcommand")).code, 127);
      assert.equal((await attempt("run", "--rm", "alpine", "/etc")).code, 126);
      const unknown = await attempt("run", "--rm", "nosuchimage:1", "true");
      assert.equal(unknown.code, 125);
      assert.match(unknown.stderr, /Unable to find image 'nosuchimage:1' locally/);
      assert.equal(await ok("ps", "-aq"), "", "nothing is left of them");
    });

    test("run -i hands on stdin and its end", async () => {
      const input = join(scratch, "input");
      writeFileSync(input, "a\nb\nc\n");
      const { stdout } = await run(
        ["sh", "-c", `${command(["run", "-i", "--rm", "alpine", "wc", "-l"]).join(" ")} < ${input}`],
        {
          timeoutMs: 30_000,
        },
      );
      assert.equal(stdout.trim(), "3");
    });

    test("run -it, detach, attach: one terminal after another", async () => {
      await using first = new Terminal(command(["run", "-it", "--name", "t1", "alpine", "sh"]));
      first.type("tty; echo mark-$((1+1))\n");
      await first.see(/\/dev\/pts\/0[\s\S]*mark-2/);
      first.type(`${ctrlP}${ctrlQ}`);
      await first.ended();
      assert.equal(await inspect("t1", "{{.State.Running}}"), "true");
      await using second = new Terminal(command(["attach", "t1"]));
      second.type("echo again-$((2+2)); exit 5\n");
      await second.see(/again-4/);
      assert.equal(await second.ended(), 5);
    });

    test("exec: exit codes, user, workdir, env, terminal; a missing command is told", async () => {
      await ok("run", "-d", "--name", "e1", "-e", "A=1", "alpine", "sleep", "1000");
      const { code, stdout } = await attempt(
        "exec",
        "-w",
        "/tmp",
        "-e",
        "B=2",
        "e1",
        "sh",
        "-c",
        "pwd; echo $A$B; exit 3",
      );
      assert.deepEqual([code, stdout], [3, "/tmp\n12\n"]);
      const missing = await attempt("exec", "e1", "nosuchcommand");
      assert.ok(missing.code === 126 || missing.code === 127);
      assert.match(missing.stdout + missing.stderr, /executable file not found/);
      await ok("stop", "-t", "0", "e1");
      assert.match((await attempt("exec", "e1", "true")).stderr, /is not running/);
    });

    test("logs: tail, follow until the end, timestamps", async () => {
      await ok(
        "run",
        "--name",
        "l1",
        "alpine",
        "sh",
        "-c",
        "for i in 1 2 3; do echo line $i; done; sleep 0.1; echo bad >&2",
      );
      assert.equal(await ok("logs", "--tail", "2", "l1"), "line 3");
      const { stdout, stderr } = await attempt("logs", "l1");
      assert.deepEqual([stdout, stderr], ["line 1\nline 2\nline 3\n", "bad\n"]);
      assert.match(await ok("logs", "-t", "--tail", "2", "l1"), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z line 3$/);
      await ok("run", "-d", "--name", "l2", "alpine", "sh", "-c", "echo a; sleep 0.5; echo b");
      assert.equal(await ok("logs", "-f", "l2"), "a\nb");
    });

    test("stop, start, restart, pause, kill, wait, rename, rm", async () => {
      await ok("run", "-d", "--name", "s1", "alpine", "sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.1; done");
      await ok("pause", "s1");
      assert.match(await ok("ps", "--format", "{{.Status}}", "--filter", "name=s1"), /\(Paused\)$/);
      await ok("unpause", "s1");
      await eventually("the trap is set", async () => (await ok("top", "s1")).includes("sh"));
      await ok("stop", "s1");
      assert.equal(await inspect("s1", "{{.State.Status}} {{.State.ExitCode}}"), "exited 4");
      await ok("start", "s1");
      await ok("restart", "-t", "5", "s1");
      await ok("kill", "s1");
      assert.equal(await ok("wait", "s1"), "137");
      await ok("rename", "s1", "s2");
      assert.match((await attempt("rm", "s1")).stderr, /No such container: s1/);
      await ok("rm", "s2");
    });

    test("names are taken once; a running container is not removed", async () => {
      await ok("run", "-d", "--name", "n1", "alpine", "sleep", "1000");
      assert.match((await attempt("run", "--name", "n1", "alpine", "true")).stderr, /is already in use by container/);
      assert.match((await attempt("rm", "n1")).stderr, /container is running|remove a running container/);
      await ok("rm", "-f", "n1");
    });

    test("ps: filters and formats", async () => {
      await ok("run", "-d", "--name", "p1", "--label", "x=1", "-p", "8123:80", "alpine", "sleep", "1000");
      await attempt("run", "--name", "p2", "alpine", "sh", "-c", "exit 3");
      const names = (...args: string[]) => ok("ps", "--format", "{{.Names}}", ...args);
      assert.equal(await names("--filter", "label=x=1"), "p1");
      assert.equal(await names("-a", "--filter", "exited=3"), "p2");
      assert.equal(await names("--last", "1"), "p2");
      assert.match(await ok("ps", "--format", "{{.Ports}}", "--filter", "name=^p1$"), /0\.0\.0\.0:8123->80\/tcp/);
      assert.match(await ok("port", "p1"), /80\/tcp -> 0\.0\.0\.0:8123/);
      assert.match((await attempt("ps", "--filter", "nope=1")).stderr, /invalid filter 'nope'/i);
    });

    test("a user-defined bridge: names resolve, ports are reached, connect and disconnect", async () => {
      await ok("network", "create", "-d", "bridge", "--subnet", "172.29.0.0/24", "--label", "a=b", "br1");
      assert.match((await attempt("network", "create", "br1")).stderr, /network with name br1 already exists/);
      await ok(
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "br1",
        "-p",
        "8124:80",
        "skein/hello",
        "httpd",
        "-f",
        "-p",
        "80",
        "-h",
        "/www",
      );
      const page = await ok("run", "--rm", "--network", "br1", "alpine", "ping", "-c", "1", "web");
      assert.match(page, /1 packets received/);
      const outside = await run(
        ["curl", "-s", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}", `http://${address}:8124/`],
        {
          timeoutMs: 5_000,
        },
      );
      assert.match(outside.stdout, /^[1-5]\d\d$/);
      const containers = JSON.parse(await ok("network", "inspect", "-f", "{{json .Containers}}", "br1"));
      assert.deepEqual(
        Object.values<{ Name: string }>(containers).map((c) => c.Name),
        ["web"],
      );
      assert.match((await attempt("network", "rm", "br1")).stderr, /has active endpoints/);
      await ok("run", "-d", "--name", "late", "alpine", "sleep", "1000");
      assert.notEqual((await attempt("exec", "late", "ping", "-c", "1", "-W", "1", "web")).code, 0);
      await ok("network", "connect", "--alias", "friend", "br1", "late");
      assert.equal((await attempt("exec", "late", "ping", "-c", "1", "web")).code, 0);
      assert.equal((await attempt("exec", "web", "ping", "-c", "1", "friend")).code, 0);
      await ok("network", "disconnect", "br1", "late");
      await ok("rm", "-f", "web", "late");
      await ok("network", "rm", "br1");
      assert.match((await attempt("network", "inspect", "br1")).stderr, /network br1 not found|No such network: br1/);
    });

    test("network modes none, host and container", async () => {
      assert.equal(await ok("run", "--rm", "--network", "none", "alpine", "sh", "-c", "ls /sys/class/net"), "lo");
      assert.match(await ok("run", "--rm", "--network", "host", "alpine", "ip", "addr"), new RegExp(address));
      await ok("run", "-d", "--name", "base", "alpine", "sleep", "1000");
      const own = await ok("exec", "base", "cat", "/etc/hostname");
      assert.equal(await ok("run", "--rm", "--network", "container:base", "alpine", "cat", "/etc/hostname"), own);
    });

    test("volumes: kept, copied up, in use, removed with -v", async () => {
      await ok("volume", "create", "--label", "k=v", "vol1");
      await ok("run", "--rm", "-v", "vol1:/data", "alpine", "sh", "-c", "echo kept > /data/file");
      assert.equal(await ok("run", "--rm", "-v", "vol1:/data:ro", "alpine", "cat", "/data/file"), "kept");
      assert.notEqual((await attempt("run", "--rm", "-v", "vol1:/data:ro", "alpine", "touch", "/data/x")).code, 0);
      assert.match(await ok("run", "--rm", "-v", "vol2:/etc", "alpine", "cat", "/etc/passwd"), /root:/);
      await ok("run", "-d", "--name", "user", "-v", "vol1:/data", "alpine", "sleep", "1000");
      assert.match((await attempt("volume", "rm", "vol1")).stderr, /volume is in use/);
      await ok("rm", "-f", "user");
      await ok("volume", "rm", "vol1", "vol2");
      await ok("run", "--rm", "-v", "/anon", "alpine", "true");
      assert.equal(await ok("volume", "ls", "-q"), "");
    });

    test("binds, tmpfs, read-only root, limits, capabilities, user, sysctl", async () => {
      writeFileSync(join(scratch, "f"), "from the host");
      assert.equal(await ok("run", "--rm", "-v", `${scratch}:/mnt`, "alpine", "cat", "/mnt/f"), "from the host");
      assert.match(
        (await attempt("run", "--rm", "--mount", "type=bind,src=/nonexistent,dst=/x", "alpine", "true")).stderr,
        /bind source path does not exist: \/nonexistent/,
      );
      const inside =
        "touch /x 2>/dev/null || echo ro; touch /t/x && echo rw; id -u; ulimit -n; cat /proc/sys/net/ipv4/ip_default_ttl";
      const out = await ok(
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/t:mode=1777",
        "-u",
        "1000",
        "--ulimit",
        "nofile=99:99",
        "--sysctl",
        "net.ipv4.ip_default_ttl=42",
        "alpine",
        "sh",
        "-c",
        inside,
      );
      assert.deepEqual(out.split("\n"), ["ro", "rw", "1000", "99", "42"]);
    });

    test("restart policy, health check, auto-remove", async () => {
      await ok("run", "-d", "--name", "r1", "--restart", "on-failure:2", "alpine", "sh", "-c", "exit 1");
      await eventually(
        "two restarts",
        async () => (await inspect("r1", "{{.RestartCount}} {{.State.Status}}")) === "2 exited",
      );
      await ok(
        "run",
        "-d",
        "--name",
        "h1",
        "--health-cmd",
        "test -f /ok",
        "--health-interval",
        "200ms",
        "--health-retries",
        "1",
        "alpine",
        "sleep",
        "1000",
      );
      await eventually("unhealthy", async () => (await inspect("h1", "{{.State.Health.Status}}")) === "unhealthy");
      await ok("exec", "h1", "touch", "/ok");
      await eventually("healthy", async () => (await inspect("h1", "{{.State.Health.Status}}")) === "healthy");
      const id = await ok("run", "-d", "--rm", "alpine", "sleep", "0.3");
      await eventually("gone", async () => (await attempt("inspect", id)).code !== 0);
    });

    test("images: tag, inspect, history, save and load, rmi, import", async () => {
      const archive = join(scratch, "image.tar");
      execFileSync("tar", ["-C", scratch, "-cf", archive, "--exclude=*.tar", "."]);
      const id = await ok("import", "-c", 'CMD ["x"]', "-c", "ENV A=b", archive, "own/image");
      assert.match(id, /^sha256:[0-9a-f]{64}$/);
      assert.equal(await inspect("own/image", "{{.Config.Cmd}} {{.Config.Env}}"), "[x] [A=b]");
      await ok("tag", "own/image", "other/name:1");
      assert.match(await ok("images", "--format", "{{.Repository}}:{{.Tag}}"), /other\/name:1/);
      await ok("save", "-o", archive, "other/name:1");
      assert.match(await ok("rmi", "own/image"), /Untagged: own\/image:latest/);
      await ok("create", "--name", "holder", "other/name:1");
      assert.match((await attempt("rmi", "other/name:1")).stderr, /is using its referenced image/);
      await ok("rm", "holder");
      assert.match(await ok("rmi", "other/name:1"), /Deleted: sha256/);
      assert.match(await ok("load", "-i", archive), /Loaded image: other\/name:1/);
      assert.equal(await inspect("other/name:1", "{{.Id}}"), id);
      await ok("rmi", "other/name:1");
      assert.match((await attempt("image", "inspect", "nosuch")).stderr, /No such image: nosuch/);
      assert.ok((await ok("history", "-q", "alpine")).length > 0);
    });

    test("cp both ways, export; links in a container lead nowhere else", async () => {
      await ok("run", "-d", "--name", "cp1", "-v", "cpvol:/vol", "alpine", "sleep", "1000");
      writeFileSync(join(scratch, "in.txt"), "copied");
      await ok("cp", join(scratch, "in.txt"), "cp1:/tmp/");
      await ok("cp", join(scratch, "in.txt"), "cp1:/vol/renamed.txt");
      assert.equal(await ok("exec", "cp1", "cat", "/tmp/in.txt", "/vol/renamed.txt"), "copiedcopied");
      await ok("exec", "cp1", "sh", "-c", `mkdir -p /esc && ln -s ../../../../..${scratch} /esc/out`);
      await attempt("cp", join(scratch, "in.txt"), "cp1:/esc/out/escaped.txt");
      assert.equal(existsSync(join(scratch, "escaped.txt")), false);
      await ok("cp", "cp1:/etc", join(scratch, "etc"));
      assert.match(readFileSync(join(scratch, "etc/passwd"), "utf8"), /root:/);
      assert.notEqual((await attempt("cp", "cp1:/nope", scratch)).code, 0);
      await ok("stop", "-t", "0", "cp1");
      await ok("cp", "cp1:/vol/renamed.txt", join(scratch, "back.txt"));
      assert.equal(readFileSync(join(scratch, "back.txt"), "utf8"), "copied");
      await ok("export", "-o", join(scratch, "export.tar"), "cp1");
      assert.match(execFileSync("tar", ["tf", join(scratch, "export.tar")], { encoding: "utf8" }), /^tmp\/in\.txt$/m);
      rmSync(join(scratch, "etc"), { recursive: true });
      await ok("rm", "cp1");
      await ok("volume", "rm", "cpvol");
    });

    test("events tell what happened", async () => {
      const since = String(Math.floor(Date.now() / 1000) - 1);
      await ok("run", "--rm", "--name", "ev1", "alpine", "true");
      const text = await ok(
        "events",
        "--since",
        since,
        "--until",
        String(Math.floor(Date.now() / 1000) + 1),
        "--filter",
        "container=ev1",
        "--filter",
        "type=container",
        "--format",
        "{{.Action}}",
      );
      const actions = text.split("\n");
      for (const action of ["create", "attach", "start", "die", "destroy"])
        assert.ok(actions.includes(action), `${action} in ${text}`);
    });

    test("what is not done is refused by name", async () => {
      assert.match(
        (await attempt("run", "--rm", "--storage-opt", "size=1G", "alpine", "true")).stderr,
        /StorageOpt|storage-opt/,
      );
      assert.match(
        (await attempt("run", "--rm", "--log-driver", "syslog", "alpine", "true")).stderr,
        /no log driver named 'syslog'|Unix syslog delivery error/,
      );
    });

    test("kill -9 of the engine: containers go on, are adopted, their logs and ports too", skipControl, async () => {
      await ok("run", "-d", "--name", "k1", "-p", "8125:80", "skein/hello", "httpd", "-f", "-p", "80", "-h", "/www");
      await ok(
        "run",
        "-d",
        "--name",
        "k2",
        "alpine",
        "sh",
        "-c",
        "i=0; while :; do echo $i; i=$((i+1)); sleep 0.1; done",
      );
      const pid = await inspect("k1", "{{.State.Pid}}");
      const { daemon } = hostOf(requireLab(lab.name), "host").state;
      assert.ok(daemon);
      assert.ok(await end(daemon, "SIGKILL", 5_000));
      await up(lab);
      assert.equal(await inspect("k1", "{{.State.Pid}} {{.State.Running}}"), `${pid} true`);
      const reached = await run(
        ["curl", "-s", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}", `http://${address}:8125/`],
        { timeoutMs: 5_000 },
      );
      assert.match(reached.stdout, /^[1-5]\d\d$/);
      await eventually("logs go on", async () => Number(await ok("logs", "--tail", "1", "k2")) > 5);
      const numbers = (await ok("logs", "k2")).split("\n").map(Number);
      assert.deepEqual(
        numbers,
        numbers.map((_, index) => index),
        "no line is lost or doubled",
      );
      await ok("stop", "-t", "0", "k1", "k2");
    });
  });
}

test("version and info name what is there", async () => {
  const info = JSON.parse(await host.ok("host", "info", "--format", "{{json .}}"));
  assert.equal(info.Swarm.LocalNodeState, "inactive");
  assert.ok(info.Plugins.Network.includes("bridge"));
  assert.equal(info.Name, "host");
  if (!control) assert.match(readFileSync("package.json", "utf8"), new RegExp(info.ServerVersion));
});

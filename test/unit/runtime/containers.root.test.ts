import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { Readable } from "node:stream";
import { after, before, describe, test } from "node:test";
import { pack } from "tar-stream";
import { SkeinError } from "../../../src/base/errors.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { unmount } from "../../../src/runtime/libc.ts";
import { startRuntime } from "../../../src/runtime/runtime.ts";
import type { ExecSpec, Mount } from "../../../src/runtime/types.ts";
import { type Bench, bench, busyboxTar, output, specOf } from "./support.ts";

const execSpec = (execId: string, args: string[], more: Partial<ExecSpec> = {}): ExecSpec => ({
  execId,
  args,
  env: ["PATH=/bin"],
  cwd: "/",
  user: "",
  tty: false,
  stdin: false,
  privileged: false,
  ...more,
});

describe("containers on containerd", () => {
  let b: Bench;
  before(async () => {
    b = await bench();
  });
  after(() => b[Symbol.asyncDispose]());

  const runIt = async (id: string, args: string[], more: Parameters<Bench["spec"]>[2] = {}) => {
    const result = await output(await b.runtime.start(b.spec(id, args, more)));
    await b.runtime.remove(id);
    return result;
  };

  test("output, error output and exit code", async () => {
    const { code, out, err } = await runIt("io", ["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert.deepEqual({ code, out, err }, { code: 7, out: "out\n", err: "err\n" });
  });

  test("a lot of output arrives whole", async () => {
    const { out } = await runIt("much", ["sh", "-c", "yes 0123456789 | head -c 5000000"]);
    assert.equal(out.length, 5_000_000);
  });

  test("a command that is not there is the caller's fault and leaves nothing", async () => {
    const start = b.runtime.start(b.spec("nocmd", ["nonesuch"]));
    await assert.rejects(start, (error) => {
      assert.ok(error instanceof SkeinError);
      assert.equal(error.status, 400);
      assert.match(
        error.message,
        /failed to create shim task: OCI runtime create failed.*"nonesuch": executable file not found in \$PATH: unknown/s,
      );
      return true;
    });
    assert.deepEqual(await b.runtime.list(), [
      { id: "nocmd", running: false, paused: false, silent: false, task: false, pid: 0 },
    ]);
    assert.equal((await output(await b.runtime.start(b.spec("nocmd", ["true"])))).code, 0);
    await b.runtime.remove("nocmd");
    await b.runtime.remove("nocmd");
    assert.deepEqual(await b.runtime.list(), []);
  });

  test("stopped and started again, it keeps its files", async () => {
    await output(await b.runtime.start(b.spec("again", ["sh", "-c", "echo kept > /note"])));
    const { out } = await output(await b.runtime.start(b.spec("again", ["cat", "/note"])));
    assert.equal(out, "kept\n");
    assert.ok((await b.runtime.writableSize("again")) > 0);
    assert.equal(await b.runtime.withRootfs("again", async (path) => readFileSync(`${path}/note`, "utf8")), "kept\n");
    await b.runtime.remove("again");
  });

  test("stdin, end of file and a user by name", async () => {
    const process = await b.runtime.start(b.spec("stdin", ["sh", "-c", "cat; id"], { openStdin: true, user: "web" }));
    const result = output(process);
    process.io.stdin?.write("hello\n");
    process.io.stdin?.write("world\n");
    await process.io.closeStdin();
    const { out } = await result;
    assert.equal(out, "hello\nworld\nuid=1000(web) gid=1001(web) groups=50(logs),1001(web)\n");
    await b.runtime.remove("stdin");
  });

  test("a terminal has a size, and everything is stdout", async () => {
    const script = "stty size; read x; stty size; echo oops >&2";
    const process = await b.runtime.start(b.spec("tty", ["sh", "-c", script], { tty: true, openStdin: true }));
    const result = output(process);
    await b.runtime.resize("tty", 132, 43);
    process.io.stdin?.write("\n");
    const { out, err } = await result;
    assert.match(out, /43 132/);
    assert.match(out, /oops/);
    assert.equal(err, "");
    await b.runtime.remove("tty");
  });

  test("exec: output, status, stdin, errors; the container's end ends it", async () => {
    const main = await b.runtime.start(b.spec("ex", ["sleep", "100"]));
    const one = await output(
      await b.runtime.exec("ex", execSpec("e1", ["sh", "-c", "echo in; pwd; exit 3"], { cwd: "/tmp" })),
    );
    assert.deepEqual({ ...one }, { code: 3, out: "in\n/tmp\n", err: "" });
    const cat = await b.runtime.exec("ex", execSpec("e2", ["cat"], { stdin: true, user: "1000" }));
    const echoed = output(cat);
    cat.io.stdin?.end("through\n");
    await cat.io.closeStdin();
    assert.equal((await echoed).out, "through\n");
    await assert.rejects(
      b.runtime.exec("ex", execSpec("e3", ["nonesuch"])),
      /OCI runtime exec failed.*executable file not found/s,
    );
    const long = await b.runtime.exec("ex", execSpec("e4", ["sleep", "100"]));
    await b.runtime.kill("ex", 9);
    assert.equal((await main.exit).exitCode, 137);
    assert.equal((await long.exit).exitCode, 137);
    await b.runtime.remove("ex");
  });

  test("kill, pause, pids, stats, update", async () => {
    const script = "trap 'echo got it; exit 5' TERM; while :; do sleep 0.05; done";
    const process = await b.runtime.start(
      b.spec("ctl", ["sh", "-c", script], { resources: { memory: 64 << 20, pidsLimit: 50, nanoCpus: 5e8 } }),
    );
    const result = output(process);
    const stats = await b.runtime.stats("ctl");
    assert.equal(stats.memory.limit, 64 << 20);
    assert.equal(stats.pids.limit, 50);
    assert.ok(stats.cpu.usageNs > 0 && stats.pids.current >= 1);
    await b.runtime.update("ctl", { memory: 80 << 20, memorySwap: 160 << 20 });
    assert.equal((await b.runtime.stats("ctl")).memory.limit, 80 << 20);
    assert.ok((await b.runtime.pids("ctl")).includes(process.pid));
    await b.runtime.pause("ctl");
    await b.runtime.unpause("ctl");
    await b.runtime.kill("ctl", 15);
    assert.deepEqual(await result, { code: 5, out: "got it\n", err: "" });
    await b.runtime.remove("ctl");
  });

  test("killed for want of memory", async () => {
    const process = await b.runtime.start(
      b.spec("oom", ["sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1"], { resources: { memory: 16 << 20 } }),
    );
    const { exitCode, oomKilled } = await process.exit;
    assert.ok(oomKilled, `exit code ${exitCode}`);
    await b.runtime.remove("oom");
  });

  test("removing takes a running, even a paused one", async () => {
    const process = await b.runtime.start(b.spec("run", ["sleep", "100"]));
    await b.runtime.pause("run");
    await b.runtime.remove("run");
    assert.equal((await process.exit).exitCode, 137);
    assert.deepEqual(await b.runtime.list(), []);
  });

  test("mounts: bind, read-only, tmpfs, files of /etc, shm", async () => {
    mkdirSync(`${b.dir}/vol`);
    writeFileSync(`${b.dir}/hosts`, "127.0.0.1 me\n");
    const { out } = await runIt(
      "mounts",
      [
        "sh",
        "-c",
        "echo x > /vol/x; touch /ro/x || echo refused; cat /etc/hosts; grep -E '/tm|/dev/shm|/vol' /proc/mounts; hostname",
      ],
      {
        etc: { hosts: `${b.dir}/hosts`, hostname: `${b.dir}/hosts`, resolvConf: `${b.dir}/hosts` },
        mounts: [
          { type: "bind", source: `${b.dir}/vol`, target: "/vol", readonly: false, options: [] },
          { type: "bind", source: `${b.dir}/vol`, target: "/ro", readonly: true, options: [] },
          { type: "tmpfs", source: "", target: "/tm", readonly: false, options: ["size=64k"] },
        ],
        hostname: "inside",
      },
    );
    assert.equal(readFileSync(`${b.dir}/vol/x`, "utf8"), "x\n");
    assert.match(out, /^refused\n127.0.0.1 me\n/);
    assert.match(out, /tmpfs \/tm tmpfs rw,nosuid,nodev,noexec,relatime,size=64k/);
    assert.match(out, /shm \/dev\/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k/);
    assert.match(out, /inside\n$/);
  });

  test("capabilities and seccomp are Docker's; privileged has all", async () => {
    const look =
      "grep -E 'CapBnd|CapEff|Seccomp:|NoNewPrivs' /proc/self/status; mount -t tmpfs none /tmp && echo mounted";
    const plain = await runIt("caps", ["sh", "-c", look]);
    assert.match(plain.out, /CapEff:\s+00000000a80425fb\nCapBnd:\s+00000000a80425fb\nNoNewPrivs:\s+0\nSeccomp:\s+2/);
    assert.doesNotMatch(plain.out, /mounted/);
    const user = await runIt("capsu", ["sh", "-c", look], { user: "1000:1001", noNewPrivileges: true });
    assert.match(user.out, /CapEff:\s+0000000000000000\nCapBnd:\s+00000000a80425fb\nNoNewPrivs:\s+1\n/);
    const privileged = await runIt("priv", ["sh", "-c", look], { privileged: true });
    assert.match(privileged.out, /Seccomp:\s+0\nmounted/);
  });

  test("--init reaps and forwards signals", async () => {
    const script = "tr '\\0' ' ' < /proc/1/cmdline; exec sleep 100";
    const process = await b.runtime.start(b.spec("init", ["sh", "-c", script], { init: true }));
    const first = await new Promise<string>((resolve) => process.io.onOutput(({ data }) => resolve(data.toString())));
    assert.match(first, /^\/sbin\/docker-init -- sh -c/);
    await b.runtime.kill("init", 15);
    assert.equal((await process.exit).exitCode, 143);
    await b.runtime.remove("init");
  });

  test("a network namespace by path", async () => {
    const name = `rt-${process.pid}`;
    execFileSync("ip", ["netns", "add", name]);
    try {
      execFileSync("ip", ["-n", name, "link", "add", "probe0", "type", "bridge"]);
      const script = "ls /sys/class/net; cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
      const { out } = await runIt("net", ["sh", "-c", script], { netnsPath: `/run/netns/${name}` });
      assert.match(out, /probe0/);
      assert.match(out, /\n0\n$/);
    } finally {
      execFileSync("ip", ["netns", "del", name]);
    }
  });

  test("an image that a container mounts stays as long as the container, whatever becomes of its name", async () => {
    const { images } = b.runtime;
    const tar = pack();
    tar.entry({ name: "kept" }, "in the image");
    tar.finalize();
    const before = await b.content();
    const other = await images.importTar(Readable.from([Buffer.concat((await Array.fromAsync(tar)) as Buffer[])]), {
      reference: "other",
    });
    const place = `${b.dir}/image`;
    mkdirSync(place);
    await b.runtime.create(b.spec("mounts", ["true"], { mountedImages: [other] }));
    await images.remove("other", { force: true, inUse: () => undefined });
    // A lease that ends makes containerd collect what nothing refers to.
    await assert.rejects(images.importTar(Readable.from([Buffer.alloc(2000, 7)]), {}));
    await b.runtime.mountImage("mounts", other, place);
    try {
      const mounts: Mount[] = [{ type: "bind", source: place, target: "/m", readonly: true, options: [] }];
      const { out } = await output(
        await b.runtime.start(b.spec("mounts", ["sh", "-c", "cat /m/kept; touch /m/x || echo no"], { mounts })),
      );
      assert.equal(out, "in the imageno\n");
    } finally {
      unmount(place);
    }
    await b.runtime.remove("mounts");
    await assert.rejects(images.importTar(Readable.from([Buffer.alloc(2000, 7)]), {}));
    assert.deepEqual(await b.content(), before, "and goes with it");
  });

  test("a container whose image is forgotten is started by another daemon too, and keeps what was written", async () => {
    const { images } = b.runtime;
    const image = await images.importTar(busyboxTar(), { reference: "gone", comment: "another one" });
    assert.notEqual(image, b.image);
    const spec = specOf(image, "orphan", ["cat", "/kept"]);
    await b.runtime.create(spec);
    await b.runtime.withRootfs("orphan", async (root) => writeFileSync(`${root}/kept`, "more\n"));
    await images.remove("gone", { force: true, inUse: () => undefined });
    const address = `${b.dir}/run/containerd/containerd.sock`;
    const options = { root: `${b.dir}/root`, run: `${b.dir}/run`, cgroupParent: b.cgroupParent, address };
    await using again = await startRuntime(options, nullLogger);
    assert.deepEqual(await output(await again.start(spec)), { code: 0, out: "more\n", err: "" });
    await again.remove("orphan");
    await assert.rejects(again.start(spec), /No such image/);
    assert.equal(
      (await again.list()).some(({ id }) => id === "orphan"),
      false,
    );
  });

  test("a new daemon adopts what a killed one ran: output, stdin, exit", async () => {
    const child = spawn(process.execPath, [`${import.meta.dirname}/crash-child.ts`, b.dir, b.cgroupParent, b.image], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [ready] = (await once(child.stdout, "data")) as [Buffer];
    const pid = Number(/^before (\d+)$/m.exec(ready.toString())?.[1]);
    child.kill("SIGKILL");
    await once(child, "exit");
    const { runtime } = b;
    writeFileSync(`${b.dir}/gate/open`, "");
    const over = Date.now() + 10_000;
    while ((await runtime.list()).filter(({ running }) => running).length > 1 && Date.now() < over) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const found = (await runtime.list()).map(({ id, running, task }) => `${id} ${running} ${task}`);
    assert.deepEqual(found.sort(), ["adopt true true", "ended false true", "left false true"]);
    const adopted = await runtime.adopt("adopt");
    assert.ok(adopted);
    assert.equal(adopted.pid, pid);
    const late = output(adopted);
    adopted.io.stdin?.write("hello\n");
    assert.deepEqual(await late, { code: 9, out: "got hello\n", err: "" });
    const ended = await runtime.adopt("ended");
    assert.ok(ended);
    assert.equal((await output(ended)).code, 4);
    assert.equal(await runtime.adopt("nonesuch"), undefined);
    runtime.sweep();
    const until = Date.now() + 10_000;
    const left = async () => (await runtime.list()).find(({ id }) => id === "left");
    while ((await left())?.task !== false) {
      assert.ok(Date.now() < until, "the task that nobody adopted is still there");
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await Promise.all(["adopt", "ended", "left"].map((id) => runtime.remove(id)));
  });

  test("containerd killed: containers and their exits survive it", async () => {
    const process = await b.runtime.start(b.spec("sup", ["sh", "-c", "sleep 0.5; echo through; exit 6"]));
    const result = output(process);
    b.killContainerd();
    assert.deepEqual(await result, { code: 6, out: "through\n", err: "" });
    assert.equal((await runIt("after", ["true"])).code, 0);
    await b.runtime.remove("sup");
  });
});

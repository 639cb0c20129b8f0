/**
 * `bin/setup` killed at each of its steps, and run again: it must finish what was begun and leave nothing behind. In a
 * private copy, with /usr/sbin and /usr/local of its own, so that the machine is not touched; package managers and
 * generators are stand-ins that do half of their work, kill the set-up with SIGKILL, and do all of it the next time.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";

const repo = new URL("../../..", import.meta.url).pathname;
const base = mkdtempSync(join(tmpdir(), "skein-setup-"));
after(() => rmSync(base, { recursive: true, force: true }));

/** Kills the set-up and what it runs in the middle of the named step, once. */
const dieAt = `
die_at() {
  [ "$KILL_AT" = "$1" ] && [ ! -e "$STATE/killed" ] || return 0
  touch "$STATE/killed"
  kill -9 0
}
`;
/** What stands in for the tools: each keeps in $STATE what a real one keeps in the system. */
const tools: Record<string, string> = {
  "dpkg-query": `grep -qx "installed" "$STATE/pkg-$4" 2>/dev/null && echo "install ok installed"; exit 0`,
  dpkg: `case "$1" in
  --audit) grep -lx half "$STATE"/pkg-* 2>/dev/null || true ;;
  --configure) die_at configure; for f in "$STATE"/pkg-*; do sed -i s/half/installed/ "$f"; done ;;
esac`,
  "dpkg-deb": `mkdir -p root/usr/bin; printf '#!/bin/sh\\n' >root/usr/bin/docker; die_at dpkg-deb; echo 'exit 0' >>root/usr/bin/docker; chmod 755 root/usr/bin/docker`,
  "apt-cache": "exit 0",
  "apt-get": `for last in "$@"; do :; done
case " $* " in
  *" update "*) die_at update ;;
  *" download "*) echo >docker.deb; die_at download ;;
  *" install "*)
    [ -e /usr/sbin/policy-rc.d ] || { echo "services would start" >&2; exit 1; }
    ! grep -qsx half "$STATE"/pkg-* || { echo "dpkg was interrupted" >&2; exit 100; }
    echo half >"$STATE/pkg-$last"
    die_at install
    for p in containerd runc etcd-server libnftables1 iproute2 util-linux busybox tini ca-certificates nftables curl; do echo installed >"$STATE/pkg-$p"; done ;;
esac`,
  npm: `rm -rf node_modules; mkdir -p node_modules/.bin; die_at npm
printf '#!/bin/sh\\nexec "$TOOLS/buf" "$@"\\n' >node_modules/.bin/buf; chmod 755 node_modules/.bin/buf; echo whole >node_modules/whole`,
  buf: `mkdir -p gen; echo half >gen/messages; die_at buf; echo whole >gen/messages`,
};

function copyOfRepo(dir: string): string {
  const copy = join(dir, "repo");
  mkdirSync(join(copy, "src"), { recursive: true });
  for (const path of ["bin", "package-lock.json", "buf.gen.yaml", "proto"]) {
    cpSync(join(repo, path), join(copy, path), { recursive: true });
  }
  writeFileSync(
    join(copy, "bin/node"),
    `#!/bin/sh\nexport PATH="$TOOLS:$PATH"\n[ "$1" = bin/bundle.ts ] || exit 0\nmkdir -p dist/skeind; echo half >dist/skeind/main.1.js\n${dieAt}die_at bundle\necho whole >dist/skeind/main.js; rm -f dist/skeind/main.*.js\n`,
    { mode: 0o755 },
  );
  return copy;
}

interface Sandbox {
  readonly dir: string;
  readonly copy: string;
  /** The private view of /usr/sbin and /usr/local that the set-up sees. */
  readonly usr: string;
}

function sandbox(name: string): Sandbox {
  const dir = join(base, name);
  for (const part of ["tools", "state", "sbin", "local/bin", "local/lib"])
    mkdirSync(join(dir, part), { recursive: true });
  for (const [tool, script] of Object.entries(tools)) {
    writeFileSync(join(dir, "tools", tool), `#!/bin/sh\nset -eu\n${dieAt}${script}\n`);
    chmodSync(join(dir, "tools", tool), 0o755);
  }
  // The set-up looks for docker and node in PATH, and must not find this machine's docker.
  for (const tool of [
    "node",
    "sh",
    "id",
    "flock",
    "grep",
    "cksum",
    "cat",
    "find",
    "rm",
    "mkdir",
    "mv",
    "ln",
    "dirname",
    "touch",
    "kill",
    "sed",
    "printf",
    "chmod",
    "xargs",
  ]) {
    const found =
      ["/usr/bin", "/bin", "/usr/local/bin"].map((at) => join(at, tool)).find((path) => existsSync(path)) ??
      (tool === "node" ? process.execPath : undefined);
    if (found && !existsSync(join(dir, "tools", tool))) symlinkSync(found, join(dir, "tools", tool));
  }
  return { dir, copy: copyOfRepo(dir), usr: join(dir, "local") };
}

/** Runs the set-up in a mount namespace of its own, where /usr/sbin and /usr/local are private. */
function setUp(
  { dir, copy }: Sandbox,
  killAt: string,
): Promise<{ code: number | null; signal: string | null; said: string }> {
  const script = `mount --make-rprivate / && mount --bind ${dir}/sbin /usr/sbin && mount --bind ${dir}/local /usr/local && exec env PATH=${dir}/tools:/usr/local/bin /usr/bin/setsid -w sh ${copy}/bin/setup`;
  const child = spawn("unshare", ["-m", "sh", "-c", script], {
    env: { ...process.env, TOOLS: `${dir}/tools`, STATE: `${dir}/state`, KILL_AT: killAt, HOME: dir },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (said += String(chunk)));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal, said }));
  });
}

/** Everything that the set-up makes, whole; and nothing beside it. */
function isWhole({ dir, copy }: Sandbox): void {
  const read = (path: string) => readFileSync(join(copy, path), "utf8").trim();
  assert.equal(read("node_modules/whole"), "whole");
  assert.equal(read("gen/messages"), "whole");
  assert.equal(read("dist/skeind/main.js"), "whole");
  assert.deepEqual(readdirSync(join(copy, "dist/skeind")), ["main.js"]);
  assert.match(readFileSync(join(dir, "local/lib/skein/docker"), "utf8"), /exit 0/);
  assert.ok(statSync(join(dir, "local/lib/skein/docker")).mode & 0o100);
  assert.deepEqual(readdirSync(join(dir, "local/lib/skein")), ["docker"]);
  assert.deepEqual(readdirSync(join(dir, "sbin")), [], "services of other packages may start again");
  const states = readdirSync(join(dir, "state")).filter((name) => name.startsWith("pkg-"));
  assert.equal(states.length, 11);
  for (const name of states) assert.equal(readFileSync(join(dir, "state", name), "utf8").trim(), "installed", name);
}

/** "configure" is reached only by the run after one that was killed in an installation. */
const steps = ["none", "update", "install", "download", "dpkg-deb", "npm", "buf", "bundle"];

describe("bin/setup", { concurrency: 3 }, () => {
  for (const step of steps) {
    test(
      step === "none" ? "a set-up that nobody disturbs" : `a set-up killed at ${step} is finished by the next`,
      async () => {
        const box = sandbox(step);
        const first = await setUp(box, step);
        if (step !== "none") {
          assert.notEqual(first.code, 0, first.said);
          assert.ok(existsSync(join(box.dir, "state/killed")), first.said);
          const second = await setUp(box, step);
          assert.equal(second.code, 0, second.said);
        } else assert.equal(first.code, 0, first.said);
        isWhole(box);
        if (step === "install") {
          // Packages were half-installed and so was their repair.
          const twice = sandbox("configure");
          writeFileSync(join(twice.dir, "state/pkg-runc"), "half\n");
          assert.notEqual((await setUp(twice, "configure")).code, 0);
          const last = await setUp(twice, "configure");
          assert.equal(last.code, 0, last.said);
          isWhole(twice);
        }
        const again = await setUp(box, step);
        assert.deepEqual([again.code, again.said], [0, ""], "and then there is nothing to do");
      },
    );
  }
});

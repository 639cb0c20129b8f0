/**
 * crun in runc's place. It refuses hosts where both versions of cgroups have controllers; there the test gives it a view
 * of the machine without the second one, as an operator would (`umount /sys/fs/cgroup/unified`).
 */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { test } from "node:test";

const there = spawnSync("crun", ["--version"]).status === 0;

test("a container's life under crun", { skip: there ? false : "crun is not installed" }, () => {
  const child = new URL("crun-child.ts", import.meta.url).pathname;
  const hide = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$0" "$@"';
  const words = ["--mount", "sh", "-c", hide, process.execPath, child];
  const said = execFileSync("unshare", words, { encoding: "utf8", timeout: 60_000 });
  assert.deepEqual(JSON.parse(said), {
    runtime: "crun",
    once: { code: 3, out: "out\n", err: "err\n" },
    inside: { code: 0, out: "b 1000 /tmp\n", err: "" },
    exitCode: 137,
    left: [],
    smaller: 32 * 2 ** 20,
    memory: 64 * 2 ** 20,
    pids: [1, 20],
  });
});

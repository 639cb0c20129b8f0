import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { findRuntimes, runtimeNamed } from "../../../src/runtime/oci.ts";

const dir = mkdtempSync(join(tmpdir(), "skein-oci-"));
after(() => rmSync(dir, { recursive: true }));
for (const [where, name, mode] of [
  ["a", "runc", 0o755],
  ["b", "runc", 0o755],
  ["b", "crun", 0o755],
  ["c", "crun", 0o644],
  ["d", "crun", 0o755],
] as const) {
  mkdirSync(join(dir, where), { recursive: true });
  writeFileSync(join(dir, where, name), "", { mode });
}
const path = (...names: string[]) => names.map((name) => join(dir, name)).join(":");

test("runc first, crun where it is alone or asked for; what cannot be run is not there", () => {
  const names = (...given: Parameters<typeof findRuntimes>) => findRuntimes(...given).map(({ name }) => name);
  assert.deepEqual(findRuntimes(undefined, path("a", "b")), [
    { name: "runc", path: join(dir, "a/runc") },
    { name: "crun", path: join(dir, "b/crun") },
  ]);
  assert.deepEqual(names(undefined, path("c", "a")), ["runc"]);
  assert.deepEqual(names(undefined, path("d")), ["crun"]);
  assert.deepEqual(names("crun", path("b")), ["crun", "runc"]);
  assert.deepEqual(names(undefined, ""), []);
  assert.throws(() => findRuntimes("crun", path("a")), /--default-runtime crun: not found; there are: runc/);
});

test("a runtime is named as Docker names it", () => {
  const both = findRuntimes(undefined, path("b"));
  assert.equal(runtimeNamed(both, "").name, "runc");
  assert.equal(runtimeNamed(both, "crun").path, join(dir, "b/crun"));
  assert.equal(runtimeNamed(both, "io.containerd.runc.v2").name, "runc");
  assert.throws(() => runtimeNamed(both, "kata"), /unknown or invalid runtime name: kata/);
  assert.throws(() => runtimeNamed([], ""), /no OCI runtime is installed/);
});

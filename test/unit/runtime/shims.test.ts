/** Which processes are shims of our containerd. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { shimOf } from "../../../src/runtime/tasks/shims.ts";

const words = (namespace: string, address: string) => [
  "/usr/bin/containerd-shim-runc-v2",
  ...["-namespace", namespace, "-id", "abc", "-address", address, ""],
];

test("only a shim of this containerd and namespace is one", () => {
  assert.equal(shimOf(words("skein", "/run/c.sock"), "/run/c.sock", "skein"), "abc");
  assert.equal(shimOf(words("moby", "/run/c.sock"), "/run/c.sock", "skein"), undefined);
  assert.equal(shimOf(words("skein", "/run/other.sock"), "/run/c.sock", "skein"), undefined);
  assert.equal(shimOf(["sh", ...words("skein", "/run/c.sock").slice(1)], "/run/c.sock", "skein"), undefined);
  assert.equal(shimOf(["/usr/bin/containerd-shim-runc-v2", "-info"], "/run/c.sock", "skein"), undefined);
});

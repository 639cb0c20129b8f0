import assert from "node:assert/strict";
import { test } from "node:test";
import { SkeinError } from "../../../src/base/errors.ts";
import type { Feature } from "../../../src/kernel/feature.ts";
import { checkDisk, checkHosts } from "../../../src/lab/machine.ts";

const rooted = () => ["65024:2", "65024:2"] as const;
const refusal = (run: () => void): SkeinError => {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof SkeinError);
    return error;
  }
  return assert.fail("nothing was refused");
};

test("a kernel that lacks a piece: which, why, and the remedy", () => {
  assert.doesNotThrow(() => checkHosts(() => undefined, rooted));
  const lacks = (name: Feature) => (feature: Feature) => (feature === name ? "Operation not supported" : undefined);
  for (const feature of ["bridge", "veth", "vxlan", "nftables"] as const) {
    const error = refusal(() => checkHosts(lacks(feature), rooted));
    assert.match(error.message, new RegExp(`${feature} \\(Operation not supported\\)`));
    assert.match(error.hint ?? "", /modprobe (bridge|veth|vxlan|nf_tables)/);
  }
});

test("a chroot is told from a root of one's own", () => {
  const error = refusal(() =>
    checkHosts(
      () => undefined,
      () => ["65024:777", "65024:2"],
    ),
  );
  assert.match(error.message, /root directory here is a chroot's/);
  assert.match(error.hint ?? "", /pivot_root/);
});

test("a disk without room is named before anything is made", () => {
  assert.doesNotThrow(() => checkDisk("/var/lib/skein/nosuchlab", () => 5000));
  const error = refusal(() => checkDisk("/tmp/nosuchdir/lab", (dir) => (dir === "/tmp" ? 12.7 : 5000)));
  assert.match(error.message, /no room for a lab: \/tmp has 12 MB left, 400 MB are needed/);
  assert.match(error.hint ?? "", /make room/);
});

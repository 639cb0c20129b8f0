import assert from "node:assert/strict";
import { test } from "node:test";
import { SkeinError } from "../../../src/base/errors.ts";
import type { Feature } from "../../../src/kernel/feature.ts";
import { checkHosts } from "../../../src/lab/machine.ts";

const rooted = () => "22 1 254:0 / / rw,relatime - ext4 /dev/root rw\n23 22 0:5 / /proc rw - proc proc rw\n";
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

test("a plain chroot is told from a root that is a mount point", () => {
  const inside = () => "40 22 0:5 / /proc rw - proc proc rw\n41 22 0:22 / /run rw - tmpfs tmpfs rw\n";
  const error = refusal(() => checkHosts(() => undefined, inside));
  assert.match(error.message, /no mount point/);
  assert.match(error.hint ?? "", /mount --bind/);
});

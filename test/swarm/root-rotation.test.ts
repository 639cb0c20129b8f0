/**
 * The root is rotated under several managers while users write through each of them: the next rotation, and the next
 * renewal, come to managers whose etcd knows the new root. `SKEIN_ROTATIONS=10` rotates that often, under three managers;
 * a rotation takes as long as the managers need to start their etcd again one after another.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { after, before, describe, it } from "node:test";
import { eventually } from "../interop/support/dockerd.ts";
import { ManagerHost } from "./support/managers.ts";

const skip = spawnSync("etcd", ["--version"]).error ? "needs etcd" : false;
const long = Number(process.env.SKEIN_ROTATIONS ?? 0);
const rotations = long || 2;

const done = (work: Promise<unknown>) => work.then(() => true);

describe("root rotation under several managers", { skip, timeout: 60_000 + rotations * 30_000 }, () => {
  const managers: ManagerHost[] = [];

  before(async () => {
    for (let i = 0; i < (long ? 3 : 2); i++) managers.push(await ManagerHost.start());
    const [first, ...others] = managers;
    assert.ok(first);
    await first.child.ask("init");
    const { manager: token } = await first.cluster();
    for (const other of others) {
      await other.child.ask("join", { remote: first.addr, token });
      await eventually("it votes", async () =>
        (await first.nodes()).some(({ id }) => other.credentials().certPem && id),
      );
    }
    await eventually("all know all", async () => (await others.at(-1)?.nodes())?.length === managers.length);
  });

  after(() => Promise.all(managers.map((manager) => manager.end())));

  it("each manager writes after each rotation", async () => {
    const [first] = managers;
    assert.ok(first);
    const roots = new Set([(await first.cluster()).root.certPem]);
    const written = { ok: 0, refused: 0 };
    let over = false;
    const writers = managers.map(async ({ child }, at) => {
      for (let n = 0; !over; n++) {
        await child.ask("write", `w-${at}-${n}`).then(
          () => written.ok++,
          () => written.refused++,
        );
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    });
    try {
      for (let round = 1; round <= rotations; round++) {
        await eventually("a rotation begins", () => done(first.child.ask("rotateRoot")));
        await eventually("it ends", async () => !(await first.child.ask<boolean>("rotating")), 30_000);
        roots.add((await first.cluster()).root.certPem);
        for (const [at, { child }] of managers.entries()) {
          await eventually(`manager ${at} writes`, () => done(child.ask("write", `after-${round}`)), 30_000);
        }
      }
    } finally {
      over = true;
      await Promise.all(writers);
    }
    assert.equal(roots.size, rotations + 1);
    // A write may fall into the moment in which the lead is handed over.
    assert.ok(written.refused < written.ok / 4, `${written.ok} written, ${written.refused} refused`);
  });
});

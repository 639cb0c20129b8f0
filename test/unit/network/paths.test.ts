import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { againMs, type Path, Paths } from "../../../src/network/paths.ts";

/** Hosts by the largest packet they answer; 0 for one that answers nothing. */
function world(hosts: Record<string, number>) {
  const clock = new VirtualClock();
  const told: Path[] = [];
  const sent: string[] = [];
  const state = { hosts, device: 1500, lose: 0 };
  const paths = new Paths({
    clock,
    log: nullLogger,
    deviceMtu: () => state.device,
    changed: (path) => told.push(path),
    echo: async (host, size) => {
      sent.push(`${host} ${size}`);
      if (state.lose > 0) {
        state.lose--;
        return false;
      }
      return size <= (state.hosts[host] ?? 0);
    },
  });
  const settle = async () => {
    for (let i = 0; i < 200; i++) await Promise.resolve();
  };
  const follow = async (...names: string[]) => {
    paths.follow(names);
    await settle();
  };
  return { clock, told, sent, state, paths, follow };
}

test("a path that takes all costs two echoes, and is tried again after a while", async () => {
  const { paths, follow, sent, clock, told } = world({ "10.0.0.2": 1500 });
  await follow("10.0.0.2");
  assert.deepEqual(sent, ["10.0.0.2 100", "10.0.0.2 1500"]);
  assert.equal(paths.smallest(), 1500);
  assert.deepEqual(told, [{ host: "10.0.0.2", mtu: 1500 }]);
  await follow("10.0.0.2");
  assert.equal(sent.length, 2);
  clock.advance(againMs);
  await follow("10.0.0.2");
  assert.equal(sent.length, 4);
  assert.equal(told.length, 1, "nothing new");
});

test("the largest packet that arrives is found, to the byte, and the smallest path counts", async () => {
  for (const mtu of [1499, 1400, 1280, 577, 576]) {
    const { paths, follow, told } = world({ "10.0.0.2": mtu, "10.0.0.3": 1500, "fd00::4": Math.max(mtu, 1280) });
    await follow("10.0.0.2", "10.0.0.3", "fd00::4");
    assert.equal(paths.smallest(), mtu);
    assert.deepEqual(told.map(({ mtu: found }) => found).sort(), [mtu, 1500, Math.max(mtu, 1280)].sort());
  }
});

test("a lost echo or two change nothing; who never answers, or only the smallest, says nothing of the size", async () => {
  const lossy = world({ "10.0.0.2": 1500 });
  lossy.state.lose = 2;
  await lossy.follow("10.0.0.2");
  assert.equal(lossy.paths.smallest(), 1500);
  for (const answers of [0, 300]) {
    const { paths, follow } = world({ "10.0.0.2": answers });
    await follow("10.0.0.2");
    assert.deepEqual(paths.list(), [{ host: "10.0.0.2", mtu: undefined }]);
    assert.equal(paths.smallest(), 1500);
  }
});

test("hosts that go no longer count, and another device is another path", async () => {
  const { paths, follow, state, told } = world({ "10.0.0.2": 1400, "10.0.0.3": 1500 });
  await follow("10.0.0.2", "10.0.0.3");
  assert.equal(paths.smallest(), 1400);
  await follow("10.0.0.3");
  assert.equal(paths.smallest(), 1500);
  assert.deepEqual(told.at(-1), { host: "10.0.0.2", mtu: undefined });
  state.device = 1450;
  await follow("10.0.0.3");
  assert.equal(paths.smallest(), 1450);
});

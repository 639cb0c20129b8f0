import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { VirtualClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { formatHostPort, parseHostPort } from "../../../src/swarm/node/addresses.ts";
import { leavingManager } from "../../../src/swarm/node/messages.ts";
import { Renewer, renewalTime, retryDelay } from "../../../src/swarm/node/renewal.ts";

const day = 24 * 3_600_000;

describe("renewal", () => {
  it("comes between half and four fifths of a certificate's life", () => {
    const validity = { notBefore: 1_000 * day, notAfter: 1_090 * day };
    assert.equal(
      renewalTime(validity, () => 0),
      1_045 * day,
    );
    assert.ok(renewalTime(validity, () => 0.999999) < 1_072 * day);
    assert.ok(renewalTime(validity, () => 0.999999) > 1_071 * day);
  });

  it("waits longer after each failure, an hour at most", () => {
    assert.deepEqual(
      [0, 1, 2, 30].map((failures) => retryDelay(failures, () => 1)),
      [10_000, 15_000, 25_000, 3_600_000],
    );
  });

  function renewer(renew: () => Promise<void>, unsatisfied = () => false, random = () => 0) {
    const clock = new VirtualClock();
    let notBefore = 0;
    const times: number[] = [];
    const instance = new Renewer({
      validity: () => ({ notBefore, notAfter: notBefore + 90 * day }),
      renew: async () => {
        times.push(clock.now());
        await renew();
        notBefore = clock.now();
      },
      unsatisfied,
      clock,
      log: nullLogger,
      random,
    });
    instance.start();
    return { clock, instance, times };
  }

  it("renews in time, again and again", async () => {
    const { clock, instance, times } = renewer(async () => {});
    await clock.advanceAsync(100 * day);
    assert.deepEqual(times, [45 * day, 90 * day]);
    await instance.close();
  });

  it("renews soon when forced, once for many wishes", async () => {
    const { clock, instance, times } = renewer(async () => {});
    await clock.advanceAsync(1_000);
    instance.force();
    instance.force();
    await clock.advanceAsync(499);
    assert.deepEqual(times, []);
    await clock.advanceAsync(10_000);
    assert.deepEqual(times, [1_500]);
    await instance.close();
  });

  it("does not wait an hour more because the clock was set back, nor miss its time because it was set on", async () => {
    let fails = true;
    const renew = async () => {
      if (fails) throw new Error("nobody there");
    };
    const { clock, instance, times } = renewer(
      renew,
      () => false,
      () => 0.5,
    );
    instance.force();
    await clock.advanceAsync(501);
    assert.equal(times.length, 1);
    clock.set(-3_600_000);
    fails = false;
    await clock.advanceAsync(15_000);
    assert.equal(times.length, 2);
    clock.set(60 * day);
    await clock.advanceAsync(3_600_000);
    assert.equal(times.length, 3);
    await instance.close();
  });

  it("does not renew without end where the clock is ahead of the managers' by half of a certificate's life", async () => {
    const clock = new VirtualClock(1_000 * day);
    let count = 0;
    const hour = 3_600_000;
    const instance = new Renewer({
      // Made by a manager whose clock is 50 minutes behind, for an hour.
      validity: () => ({ notBefore: clock.now() - 110 * 60_000, notAfter: clock.now() + 10 * 60_000 }),
      renew: async () => {
        count++;
      },
      unsatisfied: () => false,
      clock,
      log: nullLogger,
      random: () => 0.5,
    });
    instance.start();
    await clock.advanceAsync(hour);
    assert.ok(count > 5 && count < 20, `${count} renewals in an hour`);
    await instance.close();
  });

  it("tries again until the certificate is the wanted one", async () => {
    let wanted = 3;
    const { clock, instance, times } = renewer(
      async () => {},
      () => --wanted > 0,
    );
    instance.force();
    await clock.advanceAsync(60_000);
    assert.equal(times.length, 3);
    await instance.close();
  });
});

describe("addresses", () => {
  it("reads hosts and ports of both families", () => {
    for (const [text, expected] of [
      ["10.0.0.1", "10.0.0.1:2377"],
      ["10.0.0.1:99", "10.0.0.1:99"],
      ["manager-1", "manager-1:2377"],
      ["fd00::1", "[fd00::1]:2377"],
      ["[fd00::1]:99", "[fd00::1]:99"],
    ] as const) {
      assert.equal(formatHostPort(parseHostPort(text)), expected);
    }
    for (const text of ["", ":2377", "10.0.0.1:x", "10.0.0.1:70000"]) assert.throws(() => parseHostPort(text), text);
  });
});

describe("leaving as a manager", () => {
  it("is explained as Docker does", () => {
    assert.equal(
      leavingManager({ reachable: 1, unreachable: 0 }).message,
      "You are attempting to leave the swarm on a node that is participating as a manager. " +
        "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ",
    );
    assert.match(
      leavingManager({ reachable: 2, unreachable: 0 }).message,
      /leaves 1 managers out of 2\. Without a Raft quorum/,
    );
    assert.doesNotMatch(leavingManager({ reachable: 5, unreachable: 0 }).message, /quorum/);
    assert.match(leavingManager({ reachable: 3, unreachable: 2 }).message, /leaves 2 managers out of 5/);
  });
});

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { badExperience, goodExperience, Remotes } from "../../../src/swarm/agent/remotes.ts";

const a = { nodeId: "a", addr: "10.0.0.1:2377" };
const b = { nodeId: "b", addr: "10.0.0.2:2377" };

describe("the choice of a manager", () => {
  it("averages experience, rounding up, within bounds", () => {
    const remotes = new Remotes([a]);
    assert.equal(remotes.weight(a.addr), 5);
    remotes.observe(a, goodExperience);
    assert.equal(remotes.weight(a.addr), 8);
    remotes.observe(a, badExperience);
    assert.equal(remotes.weight(a.addr), -1);
    for (let i = 0; i < 20; i++) remotes.observe(a, 10_000);
    assert.equal(remotes.weight(a.addr), 256);
  });

  it("prefers the better one, yet tries a bad one when there is no other", () => {
    const remotes = new Remotes([a, b]);
    for (let i = 0; i < 5; i++) remotes.observe(b, badExperience);
    for (const point of [0, 0.3, 0.6, 0.99]) assert.equal(remotes.select(() => point)?.nodeId, "a");
    const alone = new Remotes([a]);
    for (let i = 0; i < 5; i++) alone.observe(a, badExperience);
    assert.equal(alone.select(() => 0.5)?.nodeId, "a");
    assert.equal(
      new Remotes().select(() => 0.5),
      undefined,
    );
  });

  it("shares evenly between equals", () => {
    const remotes = new Remotes([a, b]);
    assert.equal(remotes.select(() => 0.49)?.nodeId, "a");
    assert.equal(remotes.select(() => 0.51)?.nodeId, "b");
  });

  it("takes the managers' list, forgets the others, and does not believe an empty one", () => {
    const remotes = new Remotes([{ nodeId: "", addr: a.addr }]);
    remotes.replace([
      { peer: a, weight: 10 },
      { peer: b, weight: 10 },
    ]);
    assert.deepEqual(remotes.peers(), [a, b]);
    remotes.replace([{ peer: b, weight: 10 }]);
    assert.deepEqual(remotes.peers(), [b]);
    remotes.replace([]);
    assert.deepEqual(remotes.peers(), [b]);
    remotes.observeKnown(a, badExperience);
    assert.deepEqual(remotes.peers(), [b]);
  });
});

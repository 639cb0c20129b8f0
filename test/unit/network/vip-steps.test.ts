/** The small steps from one table of virtual addresses to the next, held against what nftables takes. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { VipService } from "../../../src/network/balancer/types.ts";
import { apart, pathBetween } from "../../../src/network/vips.ts";
import { seeded } from "../../support/faults.ts";

/** A table as the kernel keeps it: refuses what is not there, and what is there already. */
class Table {
  readonly elements = new Map<string, string>();
  readonly chains = new Map<string, string[]>();

  run(script: string): void {
    for (const line of script.split("\n").filter(Boolean)) this.#line(line);
  }

  #line(line: string): void {
    const [, verb = "", what = "", chain = "", rest = ""] = /^(\w+) (\w+) ip skein-vips (\S+) ?(.*)$/.exec(line) ?? [];
    const element = /^\{ (\S+)(?: : goto (\S+))? \}$/.exec(rest);
    const present = what === "element" ? this.elements.has(element?.[1] ?? "") : this.chains.has(chain);
    assert.equal(present, verb !== "add" || what === "rule", line);
    if (what === "element" && verb === "delete") this.elements.delete(element?.[1] ?? "");
    else if (what === "element") {
      assert.ok(this.chains.has(element?.[2] ?? ""), line);
      this.elements.set(element?.[1] ?? "", element?.[2] ?? "");
    } else if (what === "rule") this.chains.get(chain)?.push(rest);
    else if (verb === "delete") {
      assert.ok(![...this.elements.values()].includes(chain), `in use: ${line}`);
      this.chains.delete(chain);
    } else this.chains.set(chain, []);
  }

  show() {
    return [...this.elements].map(([vip, chain]) => `${vip} ${chain} ${this.chains.get(chain)}`).sort();
  }
}

const whole = (services: readonly VipService[]) => {
  const table = new Table();
  table.run(pathBetween([], services));
  return table;
};

test("a service that gets another address keeps the former one for those who still use it", () => {
  const before = apart([{ id: "a.net", vip: "10.0.1.2", backends: ["10.0.1.3"] }]);
  const after = apart([
    { id: "a.net", vip: "10.0.1.9", backends: ["10.0.1.4"] },
    { id: "a.net", vip: "10.0.1.2", backends: [] },
  ]);
  assert.deepEqual(
    after.map(({ id }) => id),
    ["a.net", "a.net.10.0.1.2"],
  );
  const table = whole(before);
  table.run(pathBetween(before, after));
  assert.deepEqual(table.show(), whole(after).show());
  table.run(pathBetween(after, before));
  assert.deepEqual(table.show(), whole(before).show());
  assert.deepEqual([...table.chains.keys()], ["svc-a.net"]);
});

test("from any set of services to any other, whoever takes whose address", () => {
  const random = seeded(7);
  const pick = (n: number) => Math.floor(random() * n);
  const some = (): VipService[] => {
    const vips = new Map<string, VipService>();
    for (let n = pick(7); n > 0; n--) {
      const vip = `10.0.1.${pick(5)}`;
      vips.set(vip, { id: `s${pick(3)}`, vip, backends: random() < 0.3 ? [] : [`10.0.1.${100 + pick(3)}`] });
    }
    return apart([...vips.values()]);
  };
  let before = some();
  const table = whole(before);
  for (let i = 0; i < 2000; i++) {
    const after = some();
    table.run(pathBetween(before, after));
    assert.deepEqual(table.show(), whole(after).show());
    assert.equal(table.chains.size, after.length);
    before = after;
  }
});

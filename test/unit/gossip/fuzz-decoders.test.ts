/**
 * Hostile bytes into every decoder on 7946: they may be refused, never misread, and never break anything. What is decoded
 * must be the same when encoded and decoded again, and within its bounds.
 *
 * `corpus/` keeps, per decoder, an input for each behaviour seen so far, one a line in hexadecimal; all of them are tried
 * again, and damaged further. SKEIN_GOSSIP_FUZZ=n tries n inputs in all (ten million take some minutes), SKEIN_GOSSIP_KEEP=1 adds
 * inputs with new behaviour to the corpus, GOSSIP_SEED=n starts elsewhere.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { reason, type Target, targets } from "./fuzz-targets.ts";
import { seeded } from "./harness.ts";
import { mutate } from "./mutate.ts";

const inputs = Number(process.env.SKEIN_GOSSIP_FUZZ ?? 28_000);
const keep = process.env.SKEIN_GOSSIP_KEEP === "1";
const seed = Number(process.env.GOSSIP_SEED ?? 1);
/** A corpus is small: some decoders have nearly as many behaviours as there are inputs. */
const mostKept = 60;
const longestKept = 400;
const fileOf = (name: string) => new URL(`corpus/${name}.txt`, import.meta.url);

function behaviour(target: Target, bytes: Buffer): string {
  try {
    return target.run(bytes);
  } catch (error) {
    return reason(error);
  }
}

function corpusOf(name: string): Buffer[] {
  const file = fileOf(name);
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, "utf8").split("\n");
  return lines.filter((line) => line !== "").map((line) => Buffer.from(line, "hex"));
}

for (const [name, target] of Object.entries(targets)) {
  const share = Math.ceil(inputs / Object.keys(targets).length);
  test(`${name}: ${share} damaged inputs`, { timeout: 7_200_000 }, (context) => {
    const random = seeded(seed);
    const pool = [...target.seeds];
    const seen = new Map<string, number>();
    const kept: Buffer[] = [];
    const tried = (bytes: Buffer) => {
      let what: string;
      try {
        what = behaviour(target, bytes);
      } catch (error) {
        throw new Error(`${name}: ${bytes.toString("hex")}`, { cause: error });
      }
      const before = seen.get(what) ?? 0;
      seen.set(what, before + 1);
      return before === 0;
    };
    for (const bytes of target.seeds) tried(bytes);
    for (const bytes of corpusOf(name)) {
      tried(bytes);
      pool.push(bytes);
      kept.push(bytes);
    }
    const start = performance.now();
    for (let i = 0; i < share; i++) {
      const base = pool[Math.floor(random() * pool.length)] ?? Buffer.alloc(0);
      const other = pool[Math.floor(random() * pool.length)] ?? Buffer.alloc(0);
      const bytes = mutate(base, random, other);
      if (!tried(bytes) || kept.length >= mostKept || bytes.length > longestKept || bytes.length === 0) continue;
      pool.push(bytes);
      kept.push(bytes);
    }
    if (keep && kept.length > 0)
      writeFileSync(fileOf(name), `${kept.map((bytes) => bytes.toString("hex")).join("\n")}\n`);
    const rate = Math.round((share / (performance.now() - start)) * 1000);
    context.diagnostic(`${name}: ${share} inputs, ${seen.size} behaviours, ${rate} inputs/s`);
    assert.ok(seen.size > 1, `${name} always does the same: ${[...seen.keys()].join()}`);
  });
}

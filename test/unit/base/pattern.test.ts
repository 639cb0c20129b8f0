import assert from "node:assert/strict";
import { test } from "node:test";
import { linearPattern } from "../../../src/base/pattern.ts";
import { pattern } from "../../../src/engine/filters.ts";
import { matchesReference } from "../../../src/engine/images/images.ts";

/** With an engine that tries all ways, each of these takes years. */
const worst: readonly (readonly [source: string, text: string])[] = [
  ["^(a+)+$", `${"a".repeat(60)}b`],
  ["^(a|aa)+$", `${"a".repeat(100)}b`],
  ["(x*)*y", "x".repeat(100)],
  ["^(([a-z])+.)+[A-Z]([a-z])+$", "a".repeat(100)],
];

test("a pattern takes time by its own length and the text's, no more", () => {
  for (const [source, text] of worst) assert.equal(linearPattern(source).test(text), false, source);
  assert.equal(pattern(new Map([["name", worst.map(([source]) => source)]]), "name", worst[0]?.[1] ?? ""), false);
  assert.equal(matchesReference(`${"a".repeat(200)}:latest`, `${"*a".repeat(60)}b`), false);
});

test("what users write works; what Go would not take is no pattern", () => {
  for (const [source, text, matches] of [
    ["^/?web-\\d+$", "/web-12", true],
    ["web|db", "mydb", true],
    ["^[a-c]{2,3}\\b", "abc d", true],
    ["a.c", "abd", false],
  ] as const) {
    assert.equal(linearPattern(source).test(text), matches, source);
  }
  for (const source of ["x(?=y)", "(a)\\1", "(", "[b-a]"]) {
    assert.throws(() => linearPattern(source), SyntaxError, source);
    assert.equal(pattern(new Map([["name", [source]]]), "name", "xy"), false);
  }
  assert.equal(pattern(new Map([["name", ["("]]]), "name", "("), true, "plain equality stays");
});

/** Templates against what Docker Engine 20.10 said of the same ones, and against what nobody should write. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { SkeinError } from "../../../src/base/errors.ts";
import { expand, GoMap, GoStruct, ofStrings, type TemplateValue } from "../../../src/base/template.ts";

/** `refused`: a manager's words; `seen`: what a container of the service had in its environment. */
const docker: { refused: Record<string, string>; seen: Record<string, string> } = JSON.parse(
  readFileSync(new URL("../../support/docker-20.10-templates.json", import.meta.url), "utf8"),
);

function context(name: string, labels: Record<string, string>): TemplateValue {
  return new GoStruct("*template.Context", {
    Service: new GoStruct("struct { ID string; Name string; Labels map[string]string }", {
      ...{ ID: "serviceid", Name: name, Labels: new GoMap(labels) },
    }),
    Node: new GoStruct("struct { ID string; Hostname string; Platform template.Platform }", {
      ...{ ID: "nodeid", Hostname: "" },
      Platform: new GoStruct("template.Platform", { Architecture: "x86_64", OS: "linux" }),
    }),
    Task: new GoStruct("struct { ID string; Name string; Slot string }", { ID: "taskid", Name: "n", Slot: "1" }),
  });
}

const data = context("tpl", { "com.x": "y", z: "w", empty: "" });
const many = Object.fromEntries(Array.from({ length: 200 }, (_, index) => [`k${index}`, `v${index}`]));

test("what containers of Docker's see", () => {
  assert.ok(Object.keys(docker.seen).length > 90);
  for (const [template, value] of Object.entries(docker.seen)) assert.equal(expand(template, data), value, template);
});

test("what Docker's managers refuse, in their words", () => {
  assert.ok(Object.keys(docker.refused).length > 110);
  // They try templates with a service of their own, which has no labels.
  const tried = context("servicename", {});
  for (const [template, message] of Object.entries(docker.refused)) {
    assert.throws(() => expand(template, tried), { code: "invalid", message }, template);
  }
});

test("functions that are given", () => {
  const functions = { secret: ofStrings(1, (name) => `<${name}>`) };
  assert.equal(
    expand('{{secret "a"}}{{"b" | secret}}{{with secret .Task.Slot}}{{.}}{{end}}', data, functions),
    "<a><b><1>",
  );
  assert.throws(() => expand("{{secret 3}}", data, functions), /at <3>: expected string; found 3$/);
  assert.throws(() => expand("{{secret}}", data, functions), /wrong number of args for secret: want 1 got 0$/);
  assert.throws(() => expand('{{secret "a"}}', data), /function "secret" not defined$/);
});

test("none runs for ever, or makes more than a config may hold", () => {
  const double = `{{$x := "0123456789"}}${'{{$x = printf "%s%s" $x $x}}'.repeat(40)}{{$x}}`;
  const calls =
    '{{define "a"}}{{template "b" .}}{{template "b" .}}{{end}}{{define "b"}}{{template "a" .}}{{end}}{{template "a"}}';
  const loops = `${"{{range $.Service.Labels}}".repeat(5)}x${"{{end}}".repeat(5)}`;
  const wide = '{{printf "%999999d" 1}}'.repeat(3);
  for (const [template, reason] of [
    [double, /more than 1024000 characters$/],
    [calls, /exceeded maximum template depth/],
    [loops, /more than 200000 steps$/],
    [wide, /more than 1024000 characters$/],
    [`${"(".repeat(5_000)}1`.replace(/^/, "{{"), /too deeply nested/],
    [`${"{{if 1}}".repeat(5_000)}`, /too deeply nested/],
  ] as const) {
    assert.throws(() => expand(template, context("s", many)), reason, template.slice(0, 60));
  }
});

/** Uniform in [0,1), the same for the same seed. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

test("whatever is written, it is expanded or refused with the place", () => {
  const rounds = Number(process.env.SKEIN_FUZZ ?? 20_000);
  const random = seeded(20_10);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  const pieces = [
    ...[
      "{{",
      "}}",
      "{{-",
      "-}}",
      "{{- ",
      " -}}",
      " ",
      "\n",
      "(",
      ")",
      "|",
      ",",
      ":=",
      "=",
      ".",
      "$",
      "$x",
      '"',
      "`",
      "'",
    ],
    ...[
      "if",
      "else",
      "end",
      "range",
      "with",
      "define",
      "template",
      "block",
      "break",
      "continue",
      "nil",
      "true",
      "é",
      "\\",
    ],
    ...[
      ".Service.Name",
      ".Service.Labels",
      ".Nope",
      ".",
      "0",
      "-1",
      "1.5",
      "0x1f",
      "1e9",
      "99999999999999999999",
      '"s"',
    ],
    ...[
      "printf",
      "index",
      "slice",
      "len",
      "eq",
      "lt",
      "and",
      "or",
      "not",
      "html",
      "js",
      "urlquery",
      "call",
      "join",
      "print",
    ],
    ...[
      '"%d %s %*d %[1]q"',
      "{{end}}",
      "{{if .Service.Name}}",
      "{{range .Service.Labels}}",
      "{{/*",
      "*/}}",
      '{{define "a"}}',
    ],
  ];
  const known = [...Object.keys(docker.seen), ...Object.keys(docker.refused)];
  let expanded = 0;
  for (let round = 0; round < rounds; round++) {
    // Half of them from pieces, half of them what works, with a piece put in or taken out.
    let template = "";
    if (random() < 0.5) for (let n = random() * 12; n > 0; n--) template += pick(pieces);
    else {
      template = pick(known);
      const at = Math.floor(random() * template.length);
      template =
        template.slice(0, at) + (random() < 0.5 ? pick(pieces) : "") + template.slice(at + Math.floor(random() * 3));
    }
    try {
      assert.equal(typeof expand(template, data), "string");
      expanded++;
    } catch (error) {
      assert.ok(error instanceof SkeinError && error.code === "invalid", `${JSON.stringify(template)}: ${error}`);
      assert.match(error.message, /^template: expansion:\d+:/, template);
    }
  }
  assert.ok(expanded > rounds / 20, `${expanded} expanded`);
});

import assert from "node:assert/strict";
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { nullLogger } from "../../../src/base/log.ts";
import { LineCutter, MAX_LINE } from "../../../src/engine/logs/lines.ts";
import { ContainerLog, rotationOf } from "../../../src/engine/logs/log.ts";
import type { LogOptions } from "../../../src/engine/types.ts";

const AT = 1_700_000_000_000;
const chunk = (text: string, stream: "stdout" | "stderr" = "stdout", at = AT) => ({
  stream,
  data: Buffer.from(text),
  at,
});

function withLog(config: Record<string, string> = {}, type = "json-file") {
  const dir = mkdtempSync(join(tmpdir(), "skein-log-"));
  const path = join(dir, "c-json.log");
  const log = new ContainerLog(path, { Type: type, Config: config }, nullLogger);
  return { log, path, config, [Symbol.dispose]: () => rmSync(dir, { recursive: true }) };
}

async function read(log: ContainerLog, options: Partial<LogOptions> = {}, running = false): Promise<string[]> {
  const out: string[] = [];
  const all = { stdout: true, stderr: true, follow: false, signal: new AbortController().signal, ...options };
  for await (const entry of log.read(all, running)) out.push(entry.line.toString());
  return out;
}

test("lines are cut wherever the chunks are, per stream", () => {
  const cutter = new LineCutter();
  assert.deepEqual(cutter.push(chunk("ab")), []);
  assert.deepEqual(
    cutter.push(chunk("x\ny", "stderr")).map((l) => [l.stream, l.data.toString()]),
    [["stderr", "x"]],
  );
  assert.deepEqual(
    cutter.push(chunk("c\n\nd")).map((l) => l.data.toString()),
    ["abc", ""],
  );
  assert.deepEqual(
    cutter.end().map((l) => [l.stream, l.data.toString()]),
    [
      ["stdout", "d"],
      ["stderr", "y"],
    ],
  );
});

test("a line longer than 16 KiB is cut in partial pieces, an exact one is not", () => {
  const cutter = new LineCutter();
  const long = cutter.push(chunk(`${"a".repeat(MAX_LINE + 1)}\n`));
  assert.deepEqual(
    long.map((l) => [l.data.length, l.partial]),
    [
      [MAX_LINE, true],
      [1, false],
    ],
  );
  const exact = cutter.push(chunk(`${"b".repeat(MAX_LINE)}\n`));
  assert.deepEqual(
    exact.map((l) => [l.data.length, l.partial]),
    [[MAX_LINE, false]],
  );
});

test("the file is Docker's json-file format, times grow", () => {
  using it = withLog();
  it.log.write(chunk('a <b> & "c"\n'));
  it.log.write(chunk("err", "stderr"));
  it.log.end();
  const lines = readFileSync(it.path, "utf8").trimEnd().split("\n");
  assert.equal(
    lines[0],
    '{"log":"a \\u003cb\\u003e \\u0026 \\"c\\"\\n","stream":"stdout","time":"2023-11-14T22:13:20Z"}',
  );
  assert.equal(lines[1], '{"log":"err\\n","stream":"stderr","time":"2023-11-14T22:13:20.000000001Z"}');
});

test("tail, since and until choose lines; tail works across blocks and rotated files", async () => {
  using it = withLog({ "max-size": "2k", "max-file": "3" });
  for (let i = 0; i < 80; i++) {
    it.log.write(chunk(`line ${i}\n`, "stdout", AT + i * 1000));
    it.log.flush();
  }
  assert.ok(existsSync(`${it.path}.2`));
  assert.equal(existsSync(`${it.path}.3`), false);
  assert.deepEqual(await read(it.log, { tail: 2 }), ["line 78\n", "line 79\n"]);
  assert.equal((await read(it.log, { tail: 40 })).length, 40);
  assert.deepEqual(await read(it.log, { tail: 0 }), []);
  assert.deepEqual(await read(it.log, { since: AT + 78_000 }), ["line 78\n", "line 79\n"]);
  const all = await read(it.log);
  assert.equal(all.at(-1), "line 79\n");
  assert.deepEqual((await read(it.log, { until: AT + 77_000 })).at(-1), "line 77\n");
});

test("a follower sees every line once and ends with the process", async () => {
  using it = withLog();
  it.log.write(chunk("one\n"));
  const reading = read(it.log, { follow: true }, true);
  it.log.write(chunk("two\n"));
  await new Promise((resolve) => setImmediate(resolve));
  it.log.write(chunk("three\n"));
  it.log.end();
  assert.deepEqual(await reading, ["one\n", "two\n", "three\n"]);
});

test("a line cut off by a crash does not spoil the next", async () => {
  using it = withLog();
  it.log.write(chunk("one\n"));
  it.log.end();
  appendFileSync(it.path, '{"log":"tw');
  it.log.write(chunk("three\n"));
  it.log.end();
  assert.deepEqual(await read(it.log), ["one\n", "three\n"]);
});

test("driver none keeps nothing and says so", () => {
  using it = withLog({}, "none");
  it.log.write(chunk("x\n"));
  it.log.end();
  assert.equal(existsSync(it.path), false);
  assert.throws(
    () => it.log.read({ stdout: true, stderr: true, follow: false, signal: new AbortController().signal }, false),
    /does not support reading/,
  );
});

test("rotated files are compressed, and read back as they were, whole, by their end, and while it happens", async () => {
  using it = withLog({ "max-size": "1k", "max-file": "4", compress: "true" });
  const line = (n: number) => `line ${n} ${"x".repeat(80)}\n`;
  const say = (n: number) => {
    it.log.write(chunk(line(n), "stdout", AT + n));
    it.log.flush();
  };
  let said = 0;
  for (; said < 12; said++) say(said);
  // The first file is being compressed now; it may be read meanwhile.
  assert.deepEqual(
    await read(it.log),
    Array.from({ length: 12 }, (_, n) => line(n)),
  );
  await it.log.settled();
  assert.ok(existsSync(`${it.path}.1.gz`) && !existsSync(`${it.path}.1`));
  // Faster than it can be compressed: files grow older on the way, the oldest go.
  for (; said < 60; said++) say(said);
  const racing = read(it.log);
  await it.log.settled();
  const all = await read(it.log);
  assert.deepEqual(await racing, all);
  const first = Number(/^line (\d+)/.exec(all[0] ?? "")?.[1]);
  assert.ok(first > 12 && first < 60 - 15, `three older files are kept: from line ${first}`);
  assert.deepEqual(
    all,
    Array.from({ length: 60 - first }, (_, n) => line(first + n)),
  );
  assert.deepEqual(readdirSync(dirname(it.path)).sort(), [
    "c-json.log",
    "c-json.log.1.gz",
    "c-json.log.2.gz",
    "c-json.log.3.gz",
  ]);
  for (const tail of [0, 1, 5, 12, 25, 1000])
    assert.deepEqual(await read(it.log, { tail }), tail ? all.slice(-tail) : []);
  // A daemon that was killed left half of its work, and a file that was never compressed.
  writeFileSync(`${it.path}.gz.tmp`, "half");
  writeFileSync(`${it.path}.2`, gunzipSync(readFileSync(`${it.path}.2.gz`)));
  const again = new ContainerLog(it.path, { Type: "json-file", Config: it.config }, nullLogger);
  assert.deepEqual(await read(again), all, "nothing twice");
  for (; said < 75; said++) {
    again.write(chunk(line(said), "stdout", AT + said));
    again.flush();
  }
  await again.settled();
  assert.ok(!existsSync(`${it.path}.gz.tmp`));
  assert.equal((await read(again)).at(-1), line(74));
  truncateSync(`${it.path}.3.gz`, 40);
  assert.equal((await read(again)).at(-1), line(74), "what is damaged hides nothing else");
});

test("compress only where files are rotated away; the local driver does of itself", () => {
  const config = (Type: string, Config: Record<string, string>) => rotationOf({ Type, Config });
  assert.equal(config("local", {}).compress, true);
  assert.equal(config("local", { compress: "false" }).compress, false);
  assert.equal(config("json-file", { "max-size": "1m", "max-file": "2" }).compress, false);
});

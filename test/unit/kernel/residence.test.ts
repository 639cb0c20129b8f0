import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { cleanMappings } from "../../../src/kernel/residence.ts";

const mapping = (head: string, anonymous: number) =>
  `${head}\nSize:                 40 kB\nRss:                  40 kB\nAnonymous:             ${anonymous} kB\nVmFlags: rd ex mr\n`;

test("only what belongs to the program and was never written is let go", () => {
  const smaps = [
    mapping("00400000-00a00000 r--p 00000000 fd:01 1234                               /opt/a b/node", 0),
    mapping("00a00000-01000000 r-xp 00600000 fd:01 1234                               /opt/a b/node", 0),
    mapping("01000000-01100000 r--p 00c00000 fd:01 1234                               /opt/a b/node", 132),
    mapping("01100000-01200000 rw-p 00d00000 fd:01 1234                               /opt/a b/node", 0),
    mapping("01200000-01300000 r--s 00d00000 fd:01 1234                               /opt/a b/node", 0),
    mapping("7f0000000000-7f0000001000 r-xp 00000000 fd:01 99                         /lib/libc.so.6", 0),
    mapping("7f0000002000-7f0000003000 rw-p 00000000 00:00 0 ", 0),
    mapping("7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]", 16),
  ].join("");
  assert.deepEqual(cleanMappings(smaps, "/opt/a b/node"), [
    { start: 0x400000, end: 0xa00000 },
    { start: 0xa00000, end: 0x1000000 },
  ]);
});

test("a process that gave its pages back goes on, with fewer of them", () => {
  const residence = fileURLToPath(new URL("../../../src/kernel/residence.ts", import.meta.url));
  const script = `
    import { readFileSync } from "node:fs";
    import { createHash } from "node:crypto";
    import { releaseStartup } from ${JSON.stringify(residence)};
    const file = () => Number(/RssFile:\\s+(\\d+)/.exec(readFileSync("/proc/self/status", "utf8"))[1]);
    const before = file();
    releaseStartup();
    const after = file();
    const work = createHash("sha256").update(JSON.stringify([..."abc"].map((c) => c.toUpperCase()))).digest("hex");
    console.log(JSON.stringify({ before, after, work, sorted: [3, 1, 2].toSorted().join() }));`;
  const out = execFileSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
  const told = JSON.parse(out);
  assert.ok(told.after < told.before / 2, out);
  assert.equal(told.work, createHash("sha256").update('["A","B","C"]').digest("hex"));
  assert.equal(told.sorted, "1,2,3");
});

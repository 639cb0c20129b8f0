/** Reading tar archives: every kind of header, however the stream is cut, and what is not one. */
import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { SkeinError } from "../../../src/base/errors.ts";
import { openTar } from "../../../src/runtime/tar/read.ts";

interface Fields {
  readonly name: string;
  readonly flag?: string;
  readonly size?: Buffer | number;
  readonly magic?: string;
  readonly linkname?: string;
  readonly prefix?: string;
}

/** A header as tar(5) has it, and its data padded. */
function block({ name, flag = "0", size, magic = "ustar\0", linkname = "", prefix = "" }: Fields, data = ""): Buffer {
  const header = Buffer.alloc(512);
  const bytes = Buffer.from(data, "latin1");
  header.write(name, 0, "latin1");
  header.write("0000644\0", 100);
  header.write("0000001\0", 108);
  header.write("0000002\0", 116);
  if (Buffer.isBuffer(size)) size.copy(header, 124);
  else header.write(`${(size ?? bytes.length).toString(8).padStart(11, "0")}\0`, 124);
  header.write("00000001750\0", 136);
  header.write("        ", 148);
  header.write(flag, 156);
  header.write(linkname, 157, "latin1");
  header.write(magic, 257);
  if (prefix) header.write(prefix, 345);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return Buffer.concat([header, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]);
}

const record = (key: string, value: string): string => {
  const rest = ` ${key}=${value}\n`;
  const length = rest.length + String(rest.length + String(rest.length).length).length;
  return `${length}${rest}`;
};
const pax = (...records: [string, string][]) =>
  block({ name: "pax", flag: "x" }, records.map(([key, value]) => record(key, value)).join(""));
const end = Buffer.alloc(1024);

async function read(archive: Buffer, cut = archive.length) {
  const chunks = Array.from({ length: Math.ceil(archive.length / cut) }, (_, at) =>
    archive.subarray(at * cut, (at + 1) * cut),
  );
  const found: { name: string; type: string | undefined; data: string; size: number; more: object }[] = [];
  for await (const { header, stream } of openTar(Readable.from(chunks))) {
    const data = Buffer.concat(await Array.fromAsync(stream)).toString("latin1");
    const { name, type, size, ...more } = header;
    found.push({ name: name.toString("latin1"), type, size, data, more });
  }
  return found;
}

test("entries of every format, wherever the stream is cut, compressed or not", async () => {
  const archive = Buffer.concat([
    block({ name: "v7", magic: "\0\0\0\0\0\0" }, "old"),
    block({ name: "dir/", flag: "\0" }),
    block({ name: "name", prefix: "a/prefix" }, "x".repeat(600)),
    block({ name: "././@LongLink", flag: "L" }, `${"l".repeat(300)}\0`),
    block({ name: "lllll" }, "long"),
    pax(["path", "p\xc3\xa9"], ["mtime", "12.5"], ["uid", "3000000"], ["SCHILY.xattr.user.a", "\xff\n=\0"]),
    block({ name: "short" }, "pax"),
    block({ name: "binary", size: Buffer.from([0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]), magic: "ustar " }, "num"),
    block({ name: "link", flag: "2", linkname: "to\xff", size: 7 }),
    block({ name: "what", flag: "V" }, "ever"),
    end,
    Buffer.from("what follows the end is nobody's"),
  ]);
  const wanted = await read(archive);
  assert.deepEqual(
    wanted.map(({ name, type, data, size }) => [name, type, data.slice(0, 5), size]),
    [
      ["v7", "file", "old", 3],
      ["dir/", "directory", "", 0],
      ["a/prefix/name", "file", "xxxxx", 600],
      ["l".repeat(300), "file", "long", 4],
      ["p\xc3\xa9", "file", "pax", 3],
      ["binary", "file", "num", 3],
      ["link", "symlink", "", 0],
      ["what", undefined, "ever", 4],
    ],
  );
  const { more } = wanted[4] ?? assert.fail();
  assert.ok("uid" in more && "mtime" in more && "xattrs" in more && more.xattrs instanceof Map);
  assert.deepEqual([more.uid, more.mtime], [3_000_000, 12.5]);
  assert.equal(more.xattrs.get("user.a").toString("latin1"), "\xff\n=\0");
  for (const cut of [1, 7, 511, 512, 513]) assert.deepEqual(await read(archive, cut), wanted, `cut at ${cut}`);
  assert.deepEqual(await read(gzipSync(archive), 100), wanted);
  assert.deepEqual((await read(archive.subarray(0, 1024))).length, 1, "no blocks of zeros at the end");
});

test("an entry that is not read is skipped", async () => {
  const archive = Buffer.concat([block({ name: "a" }, "a".repeat(5000)), block({ name: "b" }, "b"), end]);
  const names: string[] = [];
  for await (const { header, stream } of openTar(Readable.from([archive]))) {
    names.push(header.name.toString());
    for await (const _ of stream) break;
  }
  assert.deepEqual(names, ["a", "b"]);
});

test("what is no archive, or lies about itself, is refused", async () => {
  const refuses = async (words: RegExp, ...parts: Buffer[]) =>
    assert.rejects(read(Buffer.concat([...parts, end])), (error) => {
      assert.ok(error instanceof SkeinError && error.status === 400, String(error));
      assert.match(error.message, words);
      return true;
    });
  const whole = block({ name: "a" }, "data");
  const corrupt = Buffer.from(whole);
  corrupt[3] = 1;
  await refuses(/checksum/, corrupt);
  await assert.rejects(read(whole.subarray(0, 600)), /unexpected end of data/);
  await assert.rejects(read(whole.subarray(0, 100)), /unexpected end of data/);
  await refuses(/size is out of range/, block({ name: "a", size: Buffer.alloc(12, 0xff) }));
  await refuses(/too long/, block({ name: "a", flag: "x", size: 8 * 2 ** 20 }));
  for (const bad of ["5 a=b\n", "999 a=b\n", "x a=b\n", "6 abc\n", "1 ", "\0\0\0"]) {
    await refuses(/malformed extended records/, block({ name: "a", flag: "x" }, bad), whole);
  }
  await refuses(/uid is no number/, pax(["uid", "me"]), whole);
  await refuses(/a name has a NUL/, pax(["path", "a\0b"]), whole);
  const sparse = (map: string, size: string) =>
    pax(["GNU.sparse.major", "0"], ["GNU.sparse.size", size], ["GNU.sparse.map", map]);
  await refuses(/pieces overlap or lie outside/, sparse("0,3,2,1", "9"), whole);
  await refuses(/pieces overlap or lie outside/, sparse("8,4", "9"), whole);
  await refuses(/not as long as its data/, sparse("0,3", "9"), whole);
  await refuses(/odd map/, sparse("0", "9"), whole);
  await refuses(/no number in its map/, sparse("0,-4", "9"), whole);
  await refuses(/no number|cut off/, pax(["GNU.sparse.major", "1"], ["GNU.sparse.realsize", "9"]), whole);
  await refuses(/too many pieces/, pax(["GNU.sparse.major", "1"]), block({ name: "a" }, "99999999\n".padEnd(512)));
  assert.equal((await read(Buffer.concat([sparse("1,3,8,1", "9"), whole, end])))[0]?.size, 9);
});

test("archives with random faults are read or refused, and never anything else", async () => {
  let seed = 7;
  const random = (below: number) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
    return seed % below;
  };
  const map = pax(["GNU.sparse.major", "1"], ["GNU.sparse.realsize", "20"], ["path", "s"]);
  const parts = [map, block({ name: "s" }, `${"1\n2\n3\n".padEnd(512, "\0")}abc`), block({ name: "b" }, "b"), end];
  const whole = Buffer.concat(parts);
  assert.deepEqual(
    (await read(whole)).map(({ name, data, size }) => [name, data, size]),
    [
      ["s", "abc", 20],
      ["b", "b", 1],
    ],
  );
  for (let round = 0; round < 500; round++) {
    const broken = Buffer.from(whole.subarray(0, random(4) ? whole.length : random(whole.length)));
    for (let hits = random(4); hits >= 0; hits--) broken[random(broken.length || 1)] = random(256);
    // The checksum put right again: what lies behind it must hold by itself.
    for (let at = 0; random(2) && at + 512 <= broken.length; at += 512) {
      if (broken.toString("latin1", at + 257, at + 262) !== "ustar") continue;
      broken.write("        ", at + 148);
      const sum = broken.subarray(at, at + 512).reduce((total, byte) => total + byte, 0);
      broken.write(`${sum.toString(8).padStart(6, "0")}\0 `, at + 148);
    }
    await read(broken, 1 + random(900)).catch((error: unknown) => {
      assert.ok(error instanceof SkeinError && error.status === 400, `round ${round}: ${String(error)}`);
    });
  }
});

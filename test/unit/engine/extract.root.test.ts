/** Archives into a root file system whose links, and whose senders, mean harm: what must not be written is looked for outside. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { Readable as NodeReadable } from "node:stream";
import { afterEach, beforeEach, test } from "node:test";
import { gzipSync } from "node:zlib";
import { type Header, pack } from "tar-stream";
import { type ExtractOptions, extract } from "../../../src/engine/containers/extract.ts";
import { extendedAttribute, setExtendedAttribute } from "../../../src/runtime/libc.ts";

let top: string;
let root: string;
let outside: string;

beforeEach(() => {
  top = mkdtempSync(join(tmpdir(), "extract-"));
  root = join(top, "root");
  outside = join(top, "outside");
  mkdirSync(join(root, "tmp"), { recursive: true });
  mkdirSync(join(root, "etc"));
  mkdirSync(outside);
  writeFileSync(join(outside, "kept"), "kept");
});
afterEach(() => {
  assert.deepEqual(readdirSync(top).sort(), ["outside", "root"], "nothing beside the root");
  assert.deepEqual(readdirSync(outside), ["kept"], "nothing outside");
  assert.equal(readFileSync(join(outside, "kept"), "utf8"), "kept");
  rmSync(top, { recursive: true });
});

type Entry = readonly [header: Partial<Header> & { name: string }, content?: string | Buffer];

function tar(...entries: Entry[]): Readable {
  const out = pack();
  for (const [header, content] of entries) out.entry(header, content ?? "");
  out.finalize();
  return out as unknown as Readable;
}

const into = (dir: string, entries: Entry[], options?: ExtractOptions) => extract(root, dir, tar(...entries), options);
const stat = (path: string) => lstatSync(join(root, "tmp", path));
/** A buffer cut where nothing ends. */
const pieces = (data: Buffer, length: number): Buffer[] =>
  Array.from({ length: Math.ceil(data.length / length) }, (_, at) => data.subarray(at * length, (at + 1) * length));
const text = (path: string) => readFileSync(join(root, path), "utf8");

test("files, directories, links, devices: owners, modes and times as the archive says", async () => {
  const mtime = new Date(1_500_000_000_000);
  await into("/tmp", [
    [{ name: "d/", type: "directory", mode: 0o1750, uid: 5, gid: 6, mtime }],
    [{ name: "d/f", mode: 0o4755, uid: 1, gid: 2, mtime }, "content"],
    [{ name: "d/l", type: "symlink", linkname: "../../../etc/passwd", uid: 3, gid: 4, mtime }],
    [{ name: "hard", type: "link", linkname: "d/f" }],
    [{ name: "fifo", type: "fifo", mode: 0o640, uid: 7, gid: 8 }],
    [{ name: "null", type: "character-device", devmajor: 1, devminor: 3, mode: 0o666 }],
    [{ name: "implied/deeper/x", mode: 0o600, pax: { uid: "3000000", mtime: "1500000000.25" } }, "x"],
  ]);
  const d = stat("d");
  assert.deepEqual([d.mode & 0o7777, d.uid, d.gid, d.mtimeMs], [0o1750, 5, 6, 1_500_000_000_000]);
  const f = stat("d/f");
  assert.deepEqual([f.mode & 0o7777, f.uid, f.gid, f.mtimeMs], [0o4755, 1, 2, 1_500_000_000_000]);
  assert.equal(text("tmp/d/f"), "content");
  assert.equal(readlinkSync(join(root, "tmp/d/l")), "../../../etc/passwd");
  assert.deepEqual([stat("d/l").uid, stat("d/l").gid], [3, 4]);
  assert.equal(stat("hard").ino, f.ino);
  assert.ok(stat("fifo").isFIFO() && stat("fifo").uid === 7 && (stat("fifo").mode & 0o777) === 0o640);
  assert.ok(stat("null").isCharacterDevice() && stat("null").rdev === statSync("/dev/null").rdev);
  assert.deepEqual([stat("implied/deeper/x").uid, stat("implied/deeper/x").mtimeMs], [3_000_000, 1_500_000_000_250]);
});

test("links of the root lead inside it, wherever they point", async () => {
  symlinkSync("/etc", join(root, "abs"));
  symlinkSync("../../../../../../etc", join(root, "tmp/up"));
  symlinkSync(outside, join(root, "tmp/host"));
  symlinkSync("abs", join(root, "twice"));
  await into("/", [
    [{ name: "abs/a" }, "a"],
    [{ name: "tmp/up/b" }, "b"],
    [{ name: "twice/c" }, "c"],
  ]);
  assert.deepEqual(readdirSync(join(root, "etc")), ["a", "b", "c"]);
  // The host's directory is not there inside: a link that leads nowhere is no directory to write into.
  await assert.rejects(into("/tmp", [[{ name: "host/planted" }, "x"]]), /Could not find the file \/tmp\/host/);
  await assert.rejects(into("/tmp/host", [[{ name: "planted" }, "x"]]), /Could not find the file/);
});

test("links of the archive lead inside it too", async () => {
  await assert.rejects(
    into("/tmp", [[{ name: "s", type: "symlink", linkname: outside }], [{ name: "s/planted" }, "x"]]),
    /Could not find the file \/tmp\/s/,
  );
  await into("/tmp", [
    [{ name: "e", type: "symlink", linkname: "/etc" }],
    [{ name: "e/inside" }, "x"],
    [{ name: "shadow", type: "link", linkname: "e/inside" }],
  ]);
  assert.equal(text("etc/inside"), "x");
  await assert.rejects(
    into("/tmp", [[{ name: "h", type: "link", linkname: join(outside, "kept") }]]),
    /Could not find the file/,
  );
  await assert.rejects(into("/tmp", [[{ name: "h", type: "link", linkname: "../../outside/kept" }]]), {
    status: 400,
    message: 'invalid hardlink "h" -> "../../outside/kept": outside of "/tmp"',
  });
});

test("names that climb are refused, absolute ones begin at the directory", async () => {
  for (const name of ["../planted", "a/../../planted", ".."]) {
    await assert.rejects(into("/tmp", [[{ name }, "x"]]), {
      status: 400,
      message: `invalid tar header: ${JSON.stringify(name)} is outside of "/tmp"`,
    });
  }
  await into("/tmp", [
    [{ name: "/etc/x" }, "x"],
    [{ name: "/../y" }, "y"],
    [{ name: "./a/./b/../z" }, "z"],
  ]);
  assert.deepEqual(readdirSync(join(root, "tmp")).sort(), ["a", "etc", "y"]);
  assert.equal(text("tmp/a/z"), "z");
});

test("what is in the way goes, a link without what it points at, a tree without what its links point at", async () => {
  mkdirSync(join(root, "tmp/tree/below"), { recursive: true });
  symlinkSync(outside, join(root, "tmp/tree/link"));
  linkSync(join(outside, "kept"), join(root, "tmp/tree/below/hard"));
  symlinkSync(outside, join(root, "tmp/dir"));
  symlinkSync(join(outside, "kept"), join(root, "tmp/file"));
  await into("/tmp", [
    [{ name: "tree" }, "now a file"],
    [{ name: "dir/", type: "directory" }],
    [{ name: "dir/x" }, "x"],
    [{ name: "file" }, "new"],
    [{ name: "file" }, "newer"],
  ]);
  assert.equal(text("tmp/tree"), "now a file");
  assert.deepEqual(readdirSync(join(root, "tmp/dir")), ["x"]);
  assert.equal(text("tmp/file"), "newer");
});

test("noOverwriteDirNonDir: Docker's words", async () => {
  mkdirSync(join(root, "tmp/d"));
  writeFileSync(join(root, "tmp/f"), "f");
  const keep = { noOverwriteDirNonDir: true };
  await assert.rejects(into("/tmp", [[{ name: "d" }, "x"]], keep), {
    message: 'cannot overwrite directory "/tmp/d" with non-directory "/tmp"',
  });
  await assert.rejects(into("/tmp", [[{ name: "f/", type: "directory" }]], keep), {
    message: 'cannot overwrite non-directory "/tmp/f" with directory "/tmp"',
  });
  assert.equal(text("tmp/f"), "f");
});

test("an owner for everything", async () => {
  await into(
    "/tmp",
    [
      [{ name: "d/", type: "directory", uid: 9 }],
      [{ name: "d/f", uid: 9, gid: 9 }, "x"],
      [{ name: "l", type: "symlink", linkname: "d", uid: 9 }],
    ],
    { owner: { uid: 1000, gid: 1001 } },
  );
  for (const name of ["d", "d/f", "l"]) {
    const { uid, gid } = lstatSync(join(root, "tmp", name));
    assert.deepEqual([uid, gid], [1000, 1001], name);
  }
});

test("what is no archive, or only the beginning of one; compressed ones; kinds that are not carried", async () => {
  const bytes = Buffer.concat(await Array.fromAsync(tar([{ name: "whole" }, "x".repeat(2000)])));
  const from = (data: Buffer) => extract(root, "/tmp", NodeReadable.from([data]));
  await assert.rejects(from(bytes.subarray(0, 700)), { status: 400 });
  await assert.rejects(from(Buffer.alloc(2000, 7)), { status: 400 });
  await assert.rejects(from(gzipSync(bytes).subarray(0, 40)), { status: 400 });
  await from(gzipSync(bytes));
  assert.equal(text("tmp/whole").length, 2000);
});

test("files with holes, in each format that GNU tar has for them, keep their holes", async () => {
  const from = join(root, "from");
  mkdirSync(from);
  execFileSync("truncate", ["-s", "8G", join(from, "hollow")]);
  const fd = openSync(join(from, "holes"), "w");
  // More pieces than fit into a header.
  for (let at = 0; at < 40; at++) writeSync(fd, `piece ${at}`, at * 65_536 + 3 * at);
  ftruncateSync(fd, 3_000_000);
  closeSync(fd);
  for (const format of [
    "gnu",
    "posix --sparse-version=0.0",
    "posix --sparse-version=0.1",
    "posix --sparse-version=1.0",
  ]) {
    const made = execFileSync("tar", ["-c", "-S", ...`--format=${format}`.split(" "), "-C", from, "holes", "hollow"]);
    assert.ok(made.length < 1_000_000, format);
    await extract(root, "/tmp", NodeReadable.from(pieces(made, 777)));
    const [holes, hollow] = [stat("holes"), stat("hollow")];
    execFileSync("cmp", [join(from, "holes"), join(root, "tmp/holes")]);
    assert.equal(hollow.size, 8 * 2 ** 30, format);
    assert.ok(hollow.blocks < 100 && holes.blocks < 1_000, format);
    rmSync(join(root, "tmp/holes"));
    rmSync(join(root, "tmp/hollow"));
  }
});

test("names that are not UTF-8: files, directories, links and devices, over what is there", async () => {
  const from = join(root, "from");
  const name = (text: string) => Buffer.from(text, "latin1");
  const below = (dir: string, ...parts: string[]) => Buffer.concat([Buffer.from(`${dir}/`), name(parts.join("/"))]);
  mkdirSync(from);
  mkdirSync(below(from, "d\xe9p\xf4t"));
  writeFileSync(below(from, "d\xe9p\xf4t", "\xff"), "bytes");
  symlinkSync(name("d\xe9p\xf4t/\xff"), below(from, "l\xe9"));
  linkSync(below(from, "d\xe9p\xf4t", "\xff"), below(from, `${"\xfe".repeat(120)}`));
  execFileSync("mkfifo", [join(from, "plain")]);
  renameSync(join(from, "plain"), below(from, "pipe\xe9"));
  for (const format of ["gnu", "posix"]) {
    const made = execFileSync("tar", ["-c", `--format=${format}`, "-C", from, "."]);
    for (const _ of [1, 2]) await extract(root, "/tmp", NodeReadable.from([made]));
    const tmp = join(root, "tmp");
    assert.deepEqual(
      readdirSync(tmp, { encoding: "buffer" })
        .map((one) => one.toString("latin1"))
        .sort(),
      ["d\xe9p\xf4t", "l\xe9", "pipe\xe9", "\xfe".repeat(120)],
      format,
    );
    assert.equal(readFileSync(below(tmp, "d\xe9p\xf4t", "\xff"), "utf8"), "bytes");
    assert.equal(readFileSync(below(tmp, "l\xe9"), "utf8"), "bytes");
    assert.ok(lstatSync(below(tmp, "pipe\xe9")).isFIFO());
    assert.equal(lstatSync(below(tmp, "\xfe".repeat(120))).nlink, 2);
    rmSync(tmp, { recursive: true });
    mkdirSync(tmp);
  }
});

test("file capabilities go with a file, whatever their bytes; what belongs to file systems does not", async () => {
  // As setcap(8) writes cap_setuid,cap_sys_nice,cap_audit_control+ep.
  const capability = Buffer.from("0100000280008040000000000000000000000000", "hex");
  const from = join(root, "from");
  mkdirSync(from);
  const fd = openSync(join(from, "able"), "w", 0o755);
  setExtendedAttribute(fd, "security.capability", capability);
  setExtendedAttribute(fd, "trusted.overlay.opaque", Buffer.from("y"));
  closeSync(fd);
  const made = execFileSync("tar", ["-c", "--xattrs", "--xattrs-include=*", "-C", from, "able"]);
  assert.ok(made.includes("trusted.overlay.opaque"));
  await extract(root, "/tmp", NodeReadable.from([made]), { owner: { uid: 5, gid: 6 } });
  const able = join(root, "tmp/able");
  assert.equal(extendedAttribute(able, "security.capability"), capability.toString("latin1"));
  assert.equal(extendedAttribute(able, "trusted.overlay.opaque"), undefined);
  assert.deepEqual([stat("able").uid, stat("able").mode & 0o7777], [5, 0o755]);
});

test("a thousand directories one in the other come and go", async () => {
  const deep = Array.from({ length: 1000 }, () => "d").join("/");
  await into("/tmp", [[{ name: `${deep}/f` }, "deep"]]);
  assert.equal(text(`tmp/${deep}/f`), "deep");
  await into("/tmp", [[{ name: "d" }, "flat"]]);
  assert.equal(text("tmp/d"), "flat");
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { attributes, Builder, messages, nested, textOf, u32Of } from "../../../src/kernel/netlink/codec.ts";

test("a message is laid out as the kernel reads it", () => {
  const message = new Builder(Buffer.from([7, 0, 0, 0]), 8)
    .text(3, "br0")
    .nest(18, (info) => info.text(1, "bridge").nest(2, (data) => data.u16(39, 0)))
    .finish(16, 0x605, 9);
  assert.equal(
    message.toString("hex"),
    "38000000" + // length 56
      "1000" +
      "0506" +
      "09000000" +
      "00000000" +
      "07000000" +
      "08000300" +
      "62723000" +
      "1c001280" + // nested, 28 bytes
      "0b000100" +
      "62726964676500" +
      "00" +
      "0c000280" +
      "06002700" +
      "00000000",
  );
});

test("what was built can be read", () => {
  const first = new Builder(Buffer.alloc(4)).u32(4, 1500).finish(16, 0, 1);
  const second = new Builder(Buffer.alloc(4)).nest(18, (info) => info.text(1, "veth")).finish(16, 0, 2);
  const [a, b] = [...messages(Buffer.concat([first, second]))];
  assert.ok(a && b);
  assert.equal(u32Of(attributes(a.body, 4), 4), 1500);
  assert.equal(b.seq, 2);
  assert.equal(textOf(nested(attributes(b.body, 4), 18), 1), "veth");
});

test("lengths that lie end the walk instead of reading beyond", () => {
  const message = new Builder(Buffer.alloc(4)).u32(4, 1).finish(16, 0, 1);
  message.writeUInt32LE(4000, 0);
  assert.deepEqual([...messages(message)], []);
  assert.equal(attributes(Buffer.from([200, 0, 1, 0, 1, 2, 3, 4])).size, 0);
  assert.equal(attributes(Buffer.from([0, 0, 1, 0])).size, 0);
});

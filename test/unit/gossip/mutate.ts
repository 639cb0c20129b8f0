/** Damage done to well-formed bytes by a seeded random, and parts of other inputs put where they do not belong. */

const telling = [0x00, 0x01, 0x7f, 0x80, 0xff, 0xdf, 0xdd, 0xdb, 0xda, 0xcf, 0xcc, 0x07, 0x08, 0x09, 0x0a, 0x12, 0x1a];
const most = 8 << 10;

export function mutate(bytes: Buffer, random: () => number, other: Buffer): Buffer {
  let out = Buffer.from(bytes);
  const below = (limit: number) => Math.floor(random() * limit);
  for (let hits = 1 + below(4); hits > 0; hits--) {
    const at = below(out.length);
    switch (below(9)) {
      case 0:
      case 1:
        if (out.length > 0) out[at] = below(256);
        break;
      case 2:
        if (out.length > 0) out[at] = telling[below(telling.length)] ?? 0;
        break;
      case 3:
        if (out.length > 0) out[at] = (out[at] ?? 0) ^ (1 << below(8));
        break;
      case 4:
        out.copyWithin(at, below(out.length));
        break;
      case 5:
        out = out.subarray(0, at);
        break;
      case 6:
        out = Buffer.concat([out.subarray(0, at), out.subarray(below(out.length + 1))]);
        break;
      case 7: {
        const from = below(other.length);
        out = Buffer.concat([out.subarray(0, at), other.subarray(from, from + 1 + below(64)), out.subarray(at)]);
        break;
      }
      case 8: {
        // A length, or a number, that is one too many or absurd.
        const extra = Buffer.alloc(1 + below(4), telling[below(telling.length)]);
        out = Buffer.concat([out.subarray(0, at), extra, out.subarray(at + extra.length)]);
        break;
      }
    }
  }
  return out.length > most ? out.subarray(0, most) : out;
}

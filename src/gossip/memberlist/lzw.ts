/**
 * LZW as memberlist uses it: least significant bit first, literals of 8 bits, codes of 9 to 12 bits.
 */
const clear = 256;
const end = 257;
const firstWidth = 9;
const maxWidth = 12;
const tableSize = 1 << maxWidth;
/** The index at which the encoder clears its table. */
const lastCode = tableSize - 1;
const none = -1;

// Tables are made once and used again: neither function waits for anything while it uses them. The decoder reads no code
// that it has not defined since the last clear, the encoder empties its table itself.
const prefix = new Int16Array(tableSize);
const suffix = new Uint8Array(tableSize);
const lengths = new Uint16Array(tableSize).fill(1, 0, 256);
for (let i = 0; i < 256; i++) suffix[i] = i;

const hashBits = 14;
const hashSize = 1 << hashBits;
/** Open addressing from (prefix << 8 | byte) to the code of that string; at most 3838 of 16384 slots are taken. */
const keys = new Int32Array(hashSize);
const codes = new Uint16Array(hashSize);

/** Expands `input`; throws RangeError on a bad code, a missing end or more than `limit` bytes of output. */
export function lzwDecode(input: Uint8Array, limit: number): Buffer {
  let out = Buffer.allocUnsafe(Math.min(limit, Math.max(64, input.length * 4)));
  let size = 0;
  let width = firstWidth;
  let hi = end;
  let overflow = 1 << firstWidth;
  let last = none;
  let bits = 0;
  let bitCount = 0;
  let at = 0;

  /** Writes the string of `code` so that it ends at `stop`; returns its first byte. */
  const expand = (code: number, stop: number): number => {
    let c = code;
    for (let i = stop; ; ) {
      out[--i] = suffix[c] ?? 0;
      if (c < 256) return c;
      c = prefix[c] ?? 0;
    }
  };
  const grow = (extra: number) => {
    if (size + extra > limit) throw new RangeError("lzw: too large");
    if (size + extra <= out.length) return;
    const bigger = Buffer.allocUnsafe(Math.min(limit, Math.max(out.length * 2, size + extra)));
    out.copy(bigger, 0, 0, size);
    out = bigger;
  };

  for (;;) {
    while (bitCount < width) {
      if (at >= input.length) throw new RangeError("lzw: truncated");
      bits |= (input[at++] ?? 0) << bitCount;
      bitCount += 8;
    }
    const code = bits & ((1 << width) - 1);
    bits >>>= width;
    bitCount -= width;
    if (code === end) return out.subarray(0, size);
    if (code === clear) {
      width = firstWidth;
      hi = end;
      overflow = 1 << firstWidth;
      last = none;
      continue;
    }
    if (code > hi) throw new RangeError("lzw: bad code");
    let first: number;
    if (code === hi && last !== none) {
      // The one code that may be used before it is known: the last string and its own first byte.
      const length = (lengths[last] ?? 0) + 1;
      grow(length);
      first = expand(last, size + length - 1);
      out[size + length - 1] = first;
      size += length;
    } else {
      const length = lengths[code] ?? 0;
      grow(length);
      first = expand(code, size + length);
      size += length;
    }
    if (last !== none) {
      prefix[hi] = last;
      suffix[hi] = first;
      lengths[hi] = (lengths[last] ?? 0) + 1;
    }
    last = code;
    if (++hi >= overflow) {
      if (width === maxWidth) {
        last = none;
        hi--;
      } else {
        width++;
        overflow <<= 1;
      }
    }
  }
}

/** Compresses `input`. The result may be larger. */
export function lzwEncode(input: Uint8Array): Buffer {
  let out = Buffer.allocUnsafe(Math.max(16, input.length));
  let size = 0;
  let bits = 0;
  let bitCount = 0;
  let width = firstWidth;
  let hi = end;
  let overflow = 1 << firstWidth;
  keys.fill(none);

  const byte = (value: number) => {
    if (size === out.length) out = Buffer.concat([out, Buffer.allocUnsafe(out.length)]);
    out[size++] = value;
  };
  const write = (code: number) => {
    bits |= code << bitCount;
    bitCount += width;
    while (bitCount >= 8) {
      byte(bits & 0xff);
      bits >>>= 8;
      bitCount -= 8;
    }
  };
  /** Counts the code that the decoder will define next; false after a clear. */
  const advance = (): boolean => {
    if (++hi === overflow) {
      width++;
      overflow <<= 1;
    }
    if (hi !== lastCode) return true;
    write(clear);
    width = firstWidth;
    hi = end;
    overflow = 1 << firstWidth;
    keys.fill(none);
    return false;
  };

  write(clear);
  let current = none;
  for (const literal of input) {
    if (current === none) {
      current = literal;
      continue;
    }
    const key = (current << 8) | literal;
    let slot = (Math.imul(key, 0x9e3779b1) >>> (32 - hashBits)) & (hashSize - 1);
    while (keys[slot] !== none && keys[slot] !== key) slot = (slot + 1) & (hashSize - 1);
    if (keys[slot] === key) {
      current = codes[slot] ?? 0;
      continue;
    }
    write(current);
    current = literal;
    if (advance()) {
      keys[slot] = key;
      codes[slot] = hi;
    }
  }
  if (current !== none) {
    write(current);
    advance();
  }
  write(end);
  if (bitCount > 0) byte(bits & 0xff);
  return out.subarray(0, size);
}

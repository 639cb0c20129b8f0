/** Seeded chance, and what it makes of documents and archives. */

/** A stream of random choices that a seed decides (mulberry32). */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  below(n: number): number {
    return Math.floor(this.next() * n);
  }

  chance(p: number): boolean {
    return this.next() < p;
  }

  of<T>(choices: readonly T[]): T {
    const found = choices[this.below(choices.length)];
    if (found === undefined && choices.length === 0) throw new Error("nothing to choose from");
    return found as T;
  }

  /** Text as clients send it, and as they should not. No absolute path of the host is among it. */
  word(): string {
    return this.of([
      "",
      "0",
      "1",
      "-1",
      "true",
      "false",
      "all",
      "x",
      "one",
      "two",
      "bridge",
      "none",
      "host",
      "container:one",
      "container:",
      "container:nosuch",
      "default",
      "9".repeat(25),
      "1e9",
      "0x10",
      "1.5",
      "NaN",
      "\0",
      "a\0b",
      "a\nb",
      "é",
      "😀",
      "\ud800",
      " ",
      "a".repeat(5000),
      "../../etc",
      "a/b",
      "a:b:c:d",
      ":",
      "=",
      "a=b",
      "{{.ID}}",
      "{{",
      "%s%n",
      "__proto__",
      "constructor",
      "toString",
      "[",
      "(",
      "SIGKILL",
      "65536/tcp",
      "80/xyz",
      "1-2-3",
      "::1",
      "999.1.1.1/99",
      "10.0.0.0/8",
      "sha256:00",
      `sha256:${"ab".repeat(32)}`,
      "no",
      "always",
      "local",
      "json-file",
      "2024-01-01T00:00:00Z",
      "1700000000.5",
      "-5m",
      "ctrl-@",
      "application/json",
      "\u202e",
      "removed",
      "next-exit",
      "A".repeat(128),
      "10m",
      "-10m",
      "99999999999999999999g",
    ]);
  }

  /** Any JSON value. */
  value(depth = 0): unknown {
    switch (this.below(depth > 3 ? 7 : 9)) {
      case 0:
        return null;
      case 1:
        return this.chance(0.5);
      case 2:
        return this.of([0, -1, 1, 2 ** 31, 2 ** 53, -(2 ** 63), 1e308, 0.5, 2 ** 63]);
      case 3:
      case 4:
      case 5:
      case 6:
        return this.word();
      case 7:
        return Array.from({ length: this.below(4) }, () => this.value(depth + 1));
      default:
        return Object.fromEntries(Array.from({ length: this.below(4) }, () => [this.word(), this.value(depth + 1)]));
    }
  }
}

/** The document with a few of its parts replaced, left out, doubled or made of another kind. */
export function mutate(document: unknown, dice: Dice, rate = 0.02): unknown {
  if (dice.chance(rate)) return dice.value();
  if (Array.isArray(document)) {
    const items = document.filter(() => !dice.chance(rate)).map((item) => mutate(item, dice, rate));
    return dice.chance(rate) ? [...items, ...items, dice.value()] : items;
  }
  if (typeof document === "object" && document !== null) {
    return Object.fromEntries(
      Object.entries(document)
        .filter(() => !dice.chance(0.4))
        .map(([key, item]) => [
          dice.chance(rate / 4) ? dice.word() : dice.chance(rate) ? key.toLowerCase() : key,
          mutate(item, dice, rate),
        ]),
    );
  }
  if (typeof document === "string" && dice.chance(rate)) return dice.word();
  return document;
}

function header(name: string, size: number, type: string, link = "", sizeText?: string): Buffer {
  const block = Buffer.alloc(512);
  block.write(name.slice(0, 100), 0);
  block.write("0000644\0", 100);
  block.write("0000000\0", 108);
  block.write("0000000\0", 116);
  block.write(sizeText ?? `${size.toString(8).padStart(11, "0")}\0`, 124);
  block.write("00000000000\0", 136);
  block.write("        ", 148);
  block.write(type, 156);
  block.write(link.slice(0, 100), 157);
  block.write("ustar\x0000", 257);
  const sum = block.reduce((all, byte) => all + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}

/** Archives that try to get out, lie about sizes, end early, or are none. */
export function hostileTar(dice: Dice): Buffer {
  const parts: Buffer[] = [];
  for (let n = 1 + dice.below(4); n > 0; n--) {
    const name = dice.of([
      "file",
      "../out",
      "../../../../../out",
      "/out",
      "a/../../out",
      "link/out",
      "dir/",
      "",
      "./",
      "etc",
      "a\\b",
      "x".repeat(99),
    ]);
    const content = Buffer.from("content");
    switch (dice.below(6)) {
      case 0:
        parts.push(header("link", 0, "2", dice.of(["..", "/", "../..", "link"])));
        break;
      case 1:
        parts.push(header(name, 0, "1", dice.of(["../out", "/etc/hostname", "nosuch"])));
        break;
      case 2:
        parts.push(header(name, 0, dice.of(["3", "4", "6", "Z", "\0"])));
        break;
      case 3:
        parts.push(header(name, 0, "0", "", dice.of(["77777777777\0", "-0000000001\0", "not a number"])));
        break;
      default:
        parts.push(header(name, content.length, "0"), content, Buffer.alloc(512 - content.length));
    }
  }
  if (dice.chance(0.7)) parts.push(Buffer.alloc(1024));
  const all = Buffer.concat(parts);
  if (dice.chance(0.15)) return all.subarray(0, dice.below(all.length));
  if (dice.chance(0.1)) return Buffer.from(Array.from({ length: 700 }, () => dice.below(256)));
  return all;
}

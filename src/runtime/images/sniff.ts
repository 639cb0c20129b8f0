/** Tells how a stream is compressed from its first bytes. */
export type Compression = "none" | "gzip" | "zstd" | "bzip2" | "xz";

const magics: [Compression, number[]][] = [
  ["gzip", [0x1f, 0x8b]],
  ["zstd", [0x28, 0xb5, 0x2f, 0xfd]],
  ["bzip2", [0x42, 0x5a, 0x68]],
  ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
];

export function compressionOf(head: Uint8Array): Compression {
  return magics.find(([, magic]) => magic.every((byte, index) => head[index] === byte))?.[0] ?? "none";
}

/** The same stream, with what its head says. */
export async function sniff(
  source: AsyncIterable<Uint8Array>,
): Promise<{ kind: Compression; stream: AsyncIterable<Uint8Array> }> {
  const iterator = source[Symbol.asyncIterator]();
  const held: Uint8Array[] = [];
  let length = 0;
  let ended = false;
  while (length < 6 && !ended) {
    const next = await iterator.next();
    if (next.done) ended = true;
    else {
      held.push(next.value);
      length += next.value.length;
    }
  }
  const head = Buffer.concat(held);
  async function* all(): AsyncGenerator<Uint8Array> {
    yield head;
    if (!ended) yield* { [Symbol.asyncIterator]: () => iterator };
  }
  return { kind: compressionOf(head), stream: all() };
}

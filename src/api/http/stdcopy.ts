/**
 * Docker's multiplexed framing of stdout and stderr on one connection: an 8-byte header
 * [stream, 0, 0, 0, length (32 bit, big endian)] before each piece.
 */
export type StdStream = "stdin" | "stdout" | "stderr";
const codes: Record<StdStream, number> = { stdin: 0, stdout: 1, stderr: 2 };

export function frame(stream: StdStream, data: Uint8Array): Buffer {
  const out = Buffer.allocUnsafe(8 + data.length);
  out.writeUInt32BE(codes[stream] << 24, 0);
  out.writeUInt32BE(data.length, 4);
  out.set(data, 8);
  return out;
}

/** Splits a multiplexed byte stream back into pieces; keeps an incomplete tail until more comes. */
export function createUnframer(): (chunk: Uint8Array) => { stream: StdStream; data: Buffer }[] {
  let rest: Buffer = Buffer.alloc(0);
  return (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    const out: { stream: StdStream; data: Buffer }[] = [];
    while (rest.length >= 8) {
      const length = rest.readUInt32BE(4);
      if (rest.length < 8 + length) break;
      const stream = rest[0] === 2 ? "stderr" : rest[0] === 1 ? "stdout" : "stdin";
      out.push({ stream, data: rest.subarray(8, 8 + length) });
      rest = rest.subarray(8 + length);
    }
    return out;
  };
}

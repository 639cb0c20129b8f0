/**
 * A connection that left HTTP (attach, exec): the client's bytes are stdin, ours are output.
 *
 *   client                        server
 *   POST …/attach, Upgrade: tcp →
 *                               ← 101 UPGRADED, Upgrade: tcp      (or 200 OK where no upgrade was asked for)
 *   stdin bytes, half-close     →
 *                               ← raw bytes (TTY) or stdcopy frames, close
 */
import { once } from "node:events";
import { type Duplex, Readable, type Writable } from "node:stream";

export interface Hijacked {
  /** What the client sends; ends when it half-closes. */
  readonly input: Readable;
  /** Sends bytes; resolves when there is room for more. Rejects never: after the client has gone it does nothing. */
  write(data: Uint8Array): Promise<void>;
  /** Aborted when the connection is gone. */
  readonly signal: AbortSignal;
}

/** Wraps the two directions of a connection. `head` are bytes that were already read from it. */
export function hijackedOver(input: Readable, output: Writable, signal: AbortSignal): Hijacked {
  return {
    input,
    signal,
    async write(data) {
      if (signal.aborted || output.destroyed || output.writableEnded) return;
      if (output.write(data)) return;
      try {
        await once(output, "drain", { signal });
      } catch {
        // The client went away: `signal` tells it to whoever must know.
      }
    },
  };
}

export function upgradeHead(contentType: string): string {
  return `HTTP/1.1 101 UPGRADED\r\nContent-Type: ${contentType}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n`;
}

/**
 * Takes `length` bytes of request body off a socket that was handed over for an upgrade. On Node 20-24 the first
 * of them come as `head`. What follows the body is put back: it is already stdin.
 */
export async function readUpgradeBody(socket: Duplex, head: Buffer, length: number): Promise<Buffer> {
  if (head.length) socket.unshift(head);
  const parts: Buffer[] = [];
  let have = 0;
  while (have < length) {
    const chunk: Buffer | null = socket.read();
    if (chunk === null) {
      if (socket.readableEnded || socket.destroyed) throw new Error("the client left before its request was complete");
      await Promise.race([once(socket, "readable"), once(socket, "end"), once(socket, "close")]);
      continue;
    }
    const wanted = length - have;
    if (chunk.length > wanted) {
      parts.push(chunk.subarray(0, wanted));
      socket.unshift(chunk.subarray(wanted));
      have = length;
    } else {
      parts.push(chunk);
      have += chunk.length;
    }
  }
  return Buffer.concat(parts);
}

export const noInput = (): Readable => Readable.from([]);

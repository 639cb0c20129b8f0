/** Cuts a process's output into log lines, as Docker's copier does: 16 KiB at most, the rest of a longer line follows. */
import type { OutputChunk } from "../../runtime/types.ts";

export const MAX_LINE = 16 * 1024;
const NEWLINE = 0x0a;

export interface CutLine {
  readonly stream: OutputChunk["stream"];
  /** Without newline. */
  readonly data: Buffer;
  /** The line goes on in the next piece. */
  readonly partial: boolean;
  readonly at: number;
}

export class LineCutter {
  #rest: Record<OutputChunk["stream"], Buffer[]> = { stdout: [], stderr: [] };
  #size: Record<OutputChunk["stream"], number> = { stdout: 0, stderr: 0 };
  #at: Record<OutputChunk["stream"], number> = { stdout: 0, stderr: 0 };

  push(chunk: OutputChunk): CutLine[] {
    const { stream, at } = chunk;
    const out: CutLine[] = [];
    let start = 0;
    while (start < chunk.data.length) {
      if (this.#size[stream] === 0) this.#at[stream] = at;
      const room = MAX_LINE - this.#size[stream];
      const newline = chunk.data.indexOf(NEWLINE, start);
      if (newline >= 0 && newline - start <= room) {
        out.push(this.#take(stream, chunk.data.subarray(start, newline), false));
        start = newline + 1;
      } else if (chunk.data.length - start >= room) {
        out.push(this.#take(stream, chunk.data.subarray(start, start + room), true));
        start += room;
      } else {
        this.#rest[stream].push(chunk.data.subarray(start));
        this.#size[stream] += chunk.data.length - start;
        start = chunk.data.length;
      }
    }
    return out;
  }

  /** What is left without newline when the process is done. */
  end(): CutLine[] {
    return (["stdout", "stderr"] as const)
      .filter((stream) => this.#size[stream] > 0)
      .map((stream) => this.#take(stream, Buffer.alloc(0), false));
  }

  #take(stream: OutputChunk["stream"], last: Buffer, partial: boolean): CutLine {
    const data = this.#size[stream] === 0 ? last : Buffer.concat([...this.#rest[stream], last]);
    this.#rest[stream] = [];
    this.#size[stream] = 0;
    return { stream, data, partial, at: this.#at[stream] };
  }
}

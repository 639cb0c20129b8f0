/** HTTP connections that stay open, to see what becomes of them when their task goes. */
import type { Socket } from "node:net";
import { sleep, systemClock } from "../../src/base/clock.ts";

const request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n";

export class Talk implements Disposable {
  readonly #socket: Socket;
  /** The code of what ended it; undefined while it is open. */
  ended: string | undefined;
  #heard: (() => void) | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", () => this.#heard?.());
    socket.on("error", (error: NodeJS.ErrnoException) => this.#end(error.code ?? "error"));
    socket.on("close", () => this.#end("closed"));
  }

  #end(why: string): void {
    this.ended ??= why;
    this.#heard?.();
  }

  /** Asks: "answered", "silent" after the time, or the code of its end. */
  async ask(timeoutMs: number): Promise<string> {
    if (this.ended !== undefined) return this.ended;
    const heard = new Promise<void>((resolve) => {
      this.#heard = resolve;
    });
    this.#socket.write(request);
    const late = await Promise.race([heard.then(() => false), sleep(systemClock, timeoutMs).then(() => true)]);
    if (this.ended !== undefined) return this.ended;
    return late ? "silent" : "answered";
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}

/** A connection that leaves HTTP for attach or exec, byte by byte as the protocol has it: to half-close, to be rude, to look. */
import assert from "node:assert/strict";
import { connect, type Socket } from "node:net";
import { createUnframer } from "../../src/api/http/stdcopy.ts";
import { eventually } from "./lab.ts";

export class Session implements Disposable {
  readonly #socket: Socket;
  #raw: Buffer = Buffer.alloc(0);
  #head: string | undefined;
  #closed = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk) => {
      this.#raw = Buffer.concat([this.#raw, chunk]);
      const end = this.#head === undefined ? this.#raw.indexOf("\r\n\r\n") : -1;
      if (end < 0) return;
      this.#head = this.#raw.subarray(0, end).toString();
      this.#raw = this.#raw.subarray(end + 4);
    });
    socket.on("close", () => {
      this.#closed = true;
    });
    socket.on("error", () => {});
  }

  /** Asks for `path` and waits for the head of the answer. */
  static async open(
    socketPath: string,
    path: string,
    options: { body?: object; upgrade?: boolean } = {},
  ): Promise<Session> {
    const { body, upgrade = true } = options;
    const text = body === undefined ? "" : JSON.stringify(body);
    const socket = connect({ path: socketPath, allowHalfOpen: true });
    const session = new Session(socket);
    socket.write(
      [
        `POST ${path} HTTP/1.1`,
        "Host: d",
        ...(upgrade ? ["Connection: Upgrade", "Upgrade: tcp"] : []),
        ...(body === undefined ? [] : ["Content-Type: application/json"]),
        `Content-Length: ${text.length}`,
        "",
        text,
      ].join("\r\n"),
    );
    await eventually("the head of the answer", async () => session.#head !== undefined || session.#closed);
    return session;
  }

  /** The head of the answer, its status line first. */
  get head(): string {
    return this.#head ?? "";
  }

  /** All that came after the head, as it came. */
  get heard(): string {
    return this.#raw.toString();
  }

  /** All that came, without the frames that tell stdout from stderr. */
  get unframed(): string {
    return createUnframer()(this.#raw)
      .map(({ data }) => data.toString())
      .join("");
  }

  get closed(): boolean {
    return this.#closed;
  }

  type(text: string): void {
    this.#socket.write(text);
  }

  /** No more will be typed; what is said is still listened to. */
  halfClose(): void {
    this.#socket.end();
  }

  /** Waits until all that was heard matches. */
  async see(pattern: RegExp): Promise<string> {
    await eventually(`${pattern} in ${JSON.stringify(this.heard.slice(-300))}`, async () =>
      pattern.test(this.heard),
    ).catch(() => assert.match(this.heard, pattern));
    return this.heard;
  }

  /** Waits until the engine has ended the connection. */
  async over(): Promise<void> {
    let ended = false;
    this.#socket.once("end", () => {
      ended = true;
    });
    await eventually("the engine ends the connection", async () => ended || this.#closed || this.#socket.readableEnded);
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}

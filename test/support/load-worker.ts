/**
 * A closed loop of HTTP requests in a thread of its own: every client sends its next request when it has the answer to
 * the last one. Nothing is tried twice: whatever is not a whole answer with status 200 is a failure.
 */
import { connect, type Socket } from "node:net";
import { parentPort, workerData } from "node:worker_threads";
import type { LoadCount, LoadOptions } from "./load.ts";

const { targets, keepAlive, fresh, perConnection, timeoutMs } = workerData as Required<LoadOptions>;
const counts: { requests: number; failed: number; connections: number; failures: LoadCount["failures"] } = {
  requests: 0,
  failed: 0,
  connections: 0,
  failures: [],
};
let stopping = false;
let paceMs = 0;

interface Connection {
  readonly socket: Socket;
  /** The answer to one request; "close" after the last one on this connection. */
  ask(): Promise<"open" | "close">;
}

function open(host: string, port: number): Promise<Connection> {
  counts.connections++;
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, noDelay: true });
    let head = "";
    let missing = -1;
    let last = false;
    let waiting: { resolve: (how: "open" | "close") => void; reject: (error: Error) => void } | undefined;
    const timer = setTimeout(() => socket.destroy(new Error("time-out")), timeoutMs);
    const answered = () => {
      const done = waiting;
      waiting = undefined;
      head = "";
      missing = -1;
      done?.resolve(last ? "close" : "open");
    };
    socket.on("data", (chunk) => {
      if (missing < 0) {
        head += chunk.toString("latin1");
        const end = head.indexOf("\r\n\r\n");
        if (end < 0) return;
        const status = head.slice(9, 12);
        if (status !== "200") return void socket.destroy(new Error(`status ${status}`));
        last = /\r\nconnection: close\r\n/i.test(head.slice(0, end + 2));
        const length = /\r\ncontent-length: (\d+)/i.exec(head)?.[1];
        if (length === undefined) return void socket.destroy(new Error("no length"));
        missing = Number(length) - (head.length - end - 4);
      } else missing -= chunk.length;
      if (missing <= 0) answered();
    });
    const fail = (error: Error) => {
      clearTimeout(timer);
      waiting?.reject(error);
      reject(error);
    };
    socket.on("error", fail);
    socket.on("close", () => fail(new Error("closed without an answer")));
    socket.on("connect", () =>
      resolve({
        socket,
        ask: () =>
          new Promise((answer, refuse) => {
            timer.refresh();
            waiting = { resolve: answer, reject: refuse };
            socket.write(`GET / HTTP/1.1\r\nHost: ${host}\r\n${keep.get(socket) ? "" : "Connection: close\r\n"}\r\n`);
          }),
      }),
    );
  });
}

const keep = new WeakMap<Socket, boolean>();

async function client(index: number, keepsAlive: boolean): Promise<void> {
  let connection: Connection | undefined;
  let asked = 0;
  for (let turn = index; !stopping; turn++) {
    const [host = "", port = "80"] = (targets[turn % targets.length] ?? "").split(":");
    const at = Date.now();
    try {
      // A connection that the server was seen to close between two answers is no failure.
      if (!connection || connection.socket.destroyed || connection.socket.readableEnded) {
        connection = await open(host, Number(port));
        keep.set(connection.socket, keepsAlive);
        asked = 0;
      }
      const state = await connection.ask();
      counts.requests++;
      if (state === "close" || !keepsAlive || ++asked >= perConnection) {
        connection.socket.destroy();
        connection = undefined;
      }
    } catch (error) {
      counts.requests++;
      counts.failed++;
      const reused = connection !== undefined;
      if (counts.failures.length < 50)
        counts.failures.push({ at, ms: Date.now() - at, target: host, reused, keepsAlive, message: String(error) });
      connection?.socket.destroy();
      connection = undefined;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    if (paceMs > 0) await new Promise((resolve) => setTimeout(resolve, paceMs));
  }
  connection?.socket.destroy();
}

const clients = [
  ...Array.from({ length: keepAlive }, (_, index) => client(index, true)),
  ...Array.from({ length: fresh }, (_, index) => client(index, false)),
];

parentPort?.on("message", async (word: "count" | "stop" | { pace: number }) => {
  if (typeof word === "object") {
    paceMs = word.pace;
    return;
  }
  if (word === "stop") {
    stopping = true;
    await Promise.all(clients);
  }
  parentPort?.postMessage(counts);
  if (word === "stop") parentPort?.close();
});

/** The thread that carries connections: its pace, its limits, its independence of the daemon's own loop, its death. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import net from "node:net";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { createLogger } from "../../../src/base/log.ts";
import { close } from "../../../src/kernel/epoll.ts";
import { hostSocket } from "../../../src/kernel/socket.ts";
import { Carrier } from "../../../src/network/carrier/carrier.ts";
import type { FixedRoute } from "../../../src/network/carrier/types.ts";

const carrier = new Carrier();
const lines: string[] = [];
const log = createLogger((line) => lines.push(line));

/** A server on loopback, and a carried port before it. */
async function carried(serve: (socket: net.Socket) => void, most?: number) {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {});
    serve(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  after(() => server.close());
  return { server, ...carriedTo({ address: "127.0.0.1", port: (server.address() as net.AddressInfo).port }, most) };
}

function carriedTo(route: FixedRoute, most?: number) {
  const { fd, port } = hostSocket("tcp", "127.0.0.1", 0);
  const listener = carrier.listen({ fd, route, most, log });
  after(() => listener.close("reset"));
  return { port, listener };
}

async function connect(port: number): Promise<net.Socket> {
  const socket = net.connect({ host: "127.0.0.1", port, allowHalfOpen: true });
  socket.on("error", () => {});
  await once(socket, "connect");
  return socket;
}

const echo = (socket: net.Socket) => void socket.pipe(socket);

async function talks(socket: net.Socket, word: string): Promise<boolean> {
  socket.write(word);
  const [data] = (await once(socket, "data", { signal: AbortSignal.timeout(5_000) })) as [Buffer];
  return data.toString() === word;
}

test("who does not read stops who writes; others go on meanwhile, and nothing is lost", async () => {
  const reading = Promise.withResolvers<void>();
  const received = Promise.withResolvers<string>();
  const { port } = await carried((socket) => {
    socket.once("data", async (first) => {
      if (String(first) === "hello") return void socket.end(first);
      const hash = createHash("sha1").update(first);
      socket.pause();
      await reading.promise;
      socket.on("data", (data) => hash.update(data));
      socket.on("end", () => received.resolve(hash.digest("hex")));
      socket.resume();
    });
  });
  const fast = await connect(port);
  const pieces = Array.from({ length: 40 }, () => randomBytes(1 << 20));
  let taken = 0;
  for (const piece of pieces) fast.write(piece, () => taken++);
  fast.end();
  for (let before = -1; before !== taken; await sleep(50)) before = taken;
  const other = await connect(port);
  assert.ok(await talks(other, "hello"));
  other.destroy();
  assert.ok(taken < pieces.length, "somebody took it all");
  reading.resolve();
  assert.equal(await received.promise, createHash("sha1").update(Buffer.concat(pieces)).digest("hex"));
  fast.destroy();
});

test("at the limit clients wait until somebody goes, which is told", async () => {
  const { port } = await carried(echo, 2);
  const first = await connect(port);
  const second = await connect(port);
  assert.ok((await talks(first, "a")) && (await talks(second, "b")));
  const third = await connect(port);
  third.write("c");
  const answered = once(third, "data");
  while (!lines.some((line) => line.includes("at their limit"))) await sleep(5);
  assert.equal(third.bytesRead, 0);
  first.destroy();
  assert.equal(String((await answered)[0]), "c");
  for (const socket of [second, third]) socket.destroy();
});

test("the daemon's loop stands still, and connections are carried all the same", async () => {
  const child = (script: string, ...args: string[]) =>
    execFileSync(process.execPath, ["-e", script, ...args], { encoding: "utf8", timeout: 20_000 });
  const waker = await connect((await carried(echo)).port);
  assert.ok(await talks(waker, "wake up"));
  waker.destroy();
  // The child is client and server; this process waits for it without turning.
  const { fd, port } = hostSocket("tcp", "127.0.0.1", 0);
  const behind = hostSocket("tcp", "127.0.0.1", 0);
  const listener = carrier.listen({ fd, route: { address: "127.0.0.1", port: behind.port }, log });
  close(behind.fd);
  const said = child(
    `const net = require("node:net");
     const [port, behind] = process.argv.slice(1).map(Number);
     const server = net.createServer((socket) => socket.pipe(socket)).listen(behind, "127.0.0.1", () => {
       const client = net.connect(port, "127.0.0.1", () => client.write("still there?"));
       client.on("data", (data) => { process.stdout.write(data); client.destroy(); server.close(); });
     });`,
    String(port),
    String(behind.port),
  );
  assert.equal(said, "still there?");
  listener.close("reset");
});

test("a thread that dies resets its connections, and another one takes its ports over", async () => {
  const { port } = await carried(echo);
  const socket = await connect(port);
  assert.ok(await talks(socket, "before"));
  const failed = Promise.withResolvers<NodeJS.ErrnoException>();
  socket.once("error", failed.resolve);
  await carrier.fail();
  assert.equal((await failed.promise).code, "ECONNRESET");
  const again = await connect(port);
  assert.ok(await talks(again, "after"));
  again.destroy();
});

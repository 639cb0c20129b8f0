import assert from "node:assert/strict";
import dgram from "node:dgram";
import { once } from "node:events";
import net from "node:net";
import { after, test } from "node:test";
import { VirtualClock } from "../../../../src/base/clock.ts";
import { nullLogger } from "../../../../src/base/log.ts";
import { openRelay } from "../../../../src/network/balancer/relay.ts";
import type { End } from "../../../../src/network/carrier/types.ts";

const echo = net.createServer({ allowHalfOpen: true }, (socket) => {
  socket.on("error", () => {});
  const chunks: Buffer[] = [];
  socket.on("data", (chunk) => (chunk.toString() === "reset" ? socket.resetAndDestroy() : chunks.push(chunk)));
  // Only at the end, so that a half-close must have come through.
  socket.on("end", () => socket.end(Buffer.concat(chunks)));
});
await new Promise<void>((resolve) => echo.listen(0, "127.0.0.1", resolve));
after(() => echo.close());
const { port: echoPort } = echo.address() as net.AddressInfo;
const tcp = {
  protocol: "tcp",
  address: "::1",
  port: 0,
  target: () => ({ address: "127.0.0.1", port: echoPort }),
  log: nullLogger,
} as const;

test("TCP: bytes, half-closes and resets go through", async () => {
  await using relay = openRelay(tcp);
  const socket = net.connect({ host: "::1", port: relay.port, allowHalfOpen: true });
  const size = 1 << 20;
  socket.end(Buffer.alloc(size, 7));
  let got = 0;
  for await (const chunk of socket) got += (chunk as Buffer).length;
  assert.equal(got, size);

  const broken = net.connect(relay.port, "::1");
  broken.write("reset");
  const error = await new Promise<NodeJS.ErrnoException>((resolve) => broken.on("error", resolve));
  assert.equal(error.code, "ECONNRESET");
});

test("TCP: the port is kept, and given back at once", async () => {
  const relay = openRelay(tcp);
  assert.throws(() => openRelay({ ...tcp, port: relay.port }), { code: "EADDRINUSE" });
  const idle = net.connect(relay.port, "::1");
  await new Promise((resolve) => idle.once("connect", resolve));
  idle.on("error", () => {});
  await relay[Symbol.asyncDispose]();
  await using again = openRelay({ ...tcp, port: relay.port });
  assert.equal(again.port, relay.port);
  idle.destroy();
});

test("UDP: each client has its own way back, forgotten after ninety silent seconds", async () => {
  const clock = new VirtualClock();
  const server = dgram.createSocket("udp4");
  const seen = new Set<number>();
  server.on("message", (data, from) => {
    seen.add(from.port);
    server.send(`${data}!`, from.port, from.address);
  });
  await new Promise<void>((resolve) => server.bind(0, "127.0.0.1", resolve));
  const to = { address: "127.0.0.1", port: server.address().port };
  const target = () => to;
  await using relay = openRelay({ protocol: "udp", address: "::1", port: 0, target, log: nullLogger, clock });
  const clients = ["a", "b"].map((name) => ({ name, socket: dgram.createSocket("udp6") }));
  const ask = ({ name, socket }: { name: string; socket: dgram.Socket }) =>
    new Promise<string>((resolve) => {
      socket.once("message", (data) => resolve(data.toString()));
      socket.send(name, relay.port, "::1");
    });
  try {
    assert.deepEqual(await Promise.all(clients.map(ask)), ["a!", "b!"]);
    assert.deepEqual(await Promise.all(clients.map(ask)), ["a!", "b!"]);
    assert.equal(seen.size, 2);
    const [a] = clients;
    assert.ok(a);
    clock.advance(60_000);
    await ask(a);
    clock.advance(60_000);
    await Promise.all(clients.map(ask));
    assert.equal(seen.size, 3, "b was forgotten and came anew, a was not");
  } finally {
    for (const { socket } of clients) socket.close();
    server.close();
  }
});

test("TCP: a client may be led another way; where none can be found he is reset", async () => {
  const asked: End[] = [];
  await using relay = openRelay({
    ...tcp,
    routeOf(client, at) {
      asked.push(client, at);
      if (asked.length > 2) throw new Error("no more descriptors");
      return { address: "127.0.0.1", port: echoPort, preface: Buffer.from("said before: ") };
    },
  });
  const first = net.connect({ host: "::1", port: relay.port, allowHalfOpen: true });
  await once(first, "connect");
  const { localPort } = first;
  first.end("hello");
  assert.equal(Buffer.concat(await first.toArray()).toString(), "said before: hello");
  assert.deepEqual(asked, [
    { address: "::1", port: localPort },
    { address: "::1", port: relay.port },
  ]);
  const second = net.connect(relay.port, "::1");
  const error = await new Promise<NodeJS.ErrnoException>((resolve) => second.on("error", resolve));
  assert.equal(error.code, "ECONNRESET");
});

test("TCP: a relay that lingers takes nobody new, and cuts nobody off", async () => {
  const accepted = Promise.withResolvers<void>();
  const routeOf = () => void accepted.resolve();
  const relay = openRelay({ ...tcp, lingers: true, routeOf });
  const socket = net.connect({ host: "::1", port: relay.port, allowHalfOpen: true });
  socket.write("before, ");
  await accepted.promise;
  await relay[Symbol.asyncDispose]();
  const late = net.connect(relay.port, "::1");
  const error = await new Promise<NodeJS.ErrnoException>((resolve) => late.on("error", resolve));
  assert.equal(error.code, "ECONNREFUSED");
  socket.end("and after");
  assert.equal(Buffer.concat(await socket.toArray()).toString(), "before, and after");
});

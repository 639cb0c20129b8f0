import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { request as httpRequest, type IncomingMessage, type Server } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { listenUnix } from "../../../src/api/http/listen.ts";
import { empty, hijack, json, jsonStream, RAW_STREAM, webSocket } from "../../../src/api/http/reply.ts";
import { parseFilters } from "../../../src/api/http/request.ts";
import { Router, route } from "../../../src/api/http/router.ts";
import { createHttpServer } from "../../../src/api/http/server.ts";
import { createUnframer, frame } from "../../../src/api/http/stdcopy.ts";
import { conflict } from "../../../src/base/errors.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { int, list, optional, str, struct } from "../../../src/base/shape.ts";

const dir = mkdtempSync(join(tmpdir(), "skein-api-"));
const socketPath = join(dir, "s.sock");
let server: Server;
let abortSeen: () => void = () => {};

before(async () => {
  const router = new Router().add([
    route("GET", "/_ping", () => json("OK")),
    route("GET", "/images/:name*/json", (r) => json({ name: r.params.name })),
    route("POST", "/echo", async (r) => json(await r.json(struct({ Name: str, N: int, L: optional(list(str)) })))),
    route("DELETE", "/containers/:name", () => {
      throw conflict("busy");
    }),
    route("POST", "/nothing", () => empty()),
    route("GET", "/stream", () =>
      jsonStream(
        (async function* () {
          yield { a: 1 };
          throw new Error("broke");
        })(),
      ),
    ),
    route("GET", "/wait", (r) => {
      const done = Promise.withResolvers<never>();
      r.signal.addEventListener("abort", () => {
        abortSeen();
        done.reject(r.signal.reason);
      });
      return done.promise;
    }),
    route("POST", "/shout", async (r) => {
      const prefix = (await r.json(struct({ Prefix: str }))).Prefix;
      return hijack(RAW_STREAM, async (stream) => {
        for await (const chunk of stream.input) await stream.write(Buffer.from(prefix + String(chunk).toUpperCase()));
      });
    }),
  ]);
  server = createHttpServer({ router, log: nullLogger, headers: () => ({ Ostype: "linux" }) });
  await listenUnix(server, socketPath);
});

after(() => {
  server.close();
  server.closeAllConnections();
  rmSync(dir, { recursive: true });
});

function call(
  method: string,
  path: string,
  body?: string,
): Promise<{ status: number; body: string; headers: IncomingMessage["headers"] }> {
  return new Promise((resolve, reject) => {
    const req = httpRequest(
      { socketPath, method, path, headers: body ? { "content-type": "application/json" } : {} },
      (res) => {
        let text = "";
        res.on("data", (d) => {
          text += d;
        });
        res.on("end", () => resolve({ status: res.statusCode ?? 0, body: text, headers: res.headers }));
      },
    );
    req.on("error", reject);
    req.end(body);
  });
}

function raw(bytes: string, end = false): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path: socketPath, allowHalfOpen: true });
    let text = "";
    socket.on("data", (d) => {
      text += d;
    });
    socket.on("end", () => {
      socket.end();
      resolve(text);
    });
    socket.on("error", reject);
    if (end) socket.end(bytes);
    else socket.write(bytes);
  });
}

test("the socket is for root and its group only", () => {
  assert.equal(statSync(socketPath).mode & 0o777, 0o660);
});

test("a socket with a living daemon behind it is refused", async () => {
  const other = createHttpServer({ router: new Router(), log: nullLogger });
  await assert.rejects(listenUnix(other, socketPath), /another daemon is listening/);
});

test("version prefix is optional and bounded with Docker's words", async () => {
  assert.equal((await call("GET", "/_ping")).status, 200);
  const ok = await call("GET", "/v1.24/_ping");
  assert.equal(ok.headers["api-version"], "1.51");
  assert.equal(ok.headers.ostype, "linux");
  const old = await call("GET", "/v1.12/_ping");
  assert.equal(old.status, 400);
  assert.match(old.body, /client version 1\.12 is too old\. Minimum supported API version is 1\.24/);
  assert.match((await call("GET", "/v1.99/_ping")).body, /too new\. Maximum supported API version is 1\.51/);
});

test("names may contain slashes and escapes", async () => {
  assert.equal(
    JSON.parse((await call("GET", "/v1.41/images/localhost:5000/a/b%3Ac/json")).body).name,
    "localhost:5000/a/b:c",
  );
  assert.equal((await call("GET", "/images/%zz/json")).status, 400);
});

test("unknown pages and wrong methods are 404", async () => {
  assert.deepEqual(JSON.parse((await call("GET", "/nope")).body), { message: "page not found" });
  assert.equal((await call("GET", "/nothing")).status, 404);
});

test("bodies are read as Go reads them", async () => {
  const good = await call("POST", "/echo", '{"name":"x","L":null,"Other":1}');
  assert.deepEqual(JSON.parse(good.body), { Name: "x", N: 0 });
  const bad = await call("POST", "/echo", '{"Name":5}');
  assert.equal(bad.status, 400);
  assert.match(bad.body, /cannot unmarshal number into Go struct field Name of type string/);
  assert.equal((await call("POST", "/echo", "{")).status, 400);
});

test("errors carry their status and message", async () => {
  const answer = await call("DELETE", "/containers/x");
  assert.equal(answer.status, 409);
  assert.deepEqual(JSON.parse(answer.body), { message: "busy" });
  assert.equal((await call("POST", "/nothing")).status, 204);
});

test("an error inside a stream becomes its last document", async () => {
  const lines = (await call("GET", "/stream")).body.trim().split("\r\n");
  assert.deepEqual(
    lines.map((l) => JSON.parse(l)),
    [{ a: 1 }, { errorDetail: { message: "broke" }, error: "broke" }],
  );
});

test("a client that goes away aborts its request", async () => {
  const seen = new Promise<void>((resolve) => {
    abortSeen = resolve;
  });
  const req = httpRequest({ socketPath, path: "/wait" });
  req.on("error", () => {});
  req.end();
  await new Promise((resolve) => setTimeout(resolve, 30));
  req.destroy();
  await seen;
});

test("hijack with upgrade: 101, body, then both directions until half-close", async () => {
  const body = '{"Prefix":">"}';
  const text = await raw(
    `POST /v1.41/shout HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}hello`,
    true,
  );
  assert.match(text, /^HTTP\/1\.1 101 UPGRADED\r\n/);
  assert.match(text, /\r\n\r\n>HELLO$/);
});

test("an upgrade to a page that is not there is an HTTP error", async () => {
  const text = await raw(
    "POST /nope HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n",
  );
  assert.match(text, /^HTTP\/1\.1 404 /);
  assert.match(text, /page not found/);
});

test("stdcopy frames survive any cutting", () => {
  const all = Buffer.concat([frame("stdout", Buffer.from("out")), frame("stderr", Buffer.from("error"))]);
  const unframe = createUnframer();
  const got = [...all].flatMap((byte) => unframe(Buffer.from([byte])));
  assert.deepEqual(
    got.map((f) => [f.stream, f.data.toString()]),
    [
      ["stdout", "out"],
      ["stderr", "error"],
    ],
  );
});

test("filters in both spellings", () => {
  assert.deepEqual(parseFilters('{"label":{"a=b":true,"c":false}}').get("label"), ["a=b"]);
  assert.deepEqual(parseFilters('{"name":["x","y"]}').get("name"), ["x", "y"]);
  assert.throws(() => parseFilters("[1]"), /invalid filter/);
});

test("over WebSocket: messages both ways, errors before the handshake, who does not shake hands", async () => {
  const ended = Promise.withResolvers<string>();
  let left = 0;
  const router = new Router().add([
    route("GET", "/ws", (request) =>
      webSocket(request.query.string("text") === "", async (stream) => {
        if (stream.signal.aborted) left++;
        const said: string[] = [];
        for await (const chunk of stream.input) {
          said.push(String(chunk));
          await stream.write(Buffer.from(String(chunk).toUpperCase()));
          if (String(chunk) === "leave") return;
        }
        ended.resolve(said.join());
      }),
    ),
    route("GET", "/busy", () => {
      throw conflict("busy");
    }),
  ]);
  const sockets = createHttpServer({ router, log: nullLogger });
  await new Promise<void>((resolve) => sockets.listen(0, "127.0.0.1", resolve));
  const { port } = sockets.address() as AddressInfo;
  try {
    const talk = async (query: string, words: string[]) => {
      const client = new WebSocket(`ws://127.0.0.1:${port}/ws${query}`);
      client.binaryType = "arraybuffer";
      const heard: unknown[] = [];
      const closed = new Promise<number>((resolve) => client.addEventListener("close", ({ code }) => resolve(code)));
      await new Promise((resolve) => client.addEventListener("open", resolve));
      for (const word of words) {
        const answer = new Promise((resolve) => client.addEventListener("message", resolve, { once: true }));
        client.send(word);
        const { data } = (await answer) as MessageEvent;
        heard.push(data instanceof ArrayBuffer ? Buffer.from(data) : data);
      }
      return { client, heard, closed };
    };
    const bytes = await talk("", ["one", "two"]);
    assert.deepEqual(bytes.heard, [Buffer.from("ONE"), Buffer.from("TWO")]);
    bytes.client.close();
    assert.equal(await ended.promise, "one,two", "closing is the end of the input");
    const text = await talk("?text=1", ["x", "leave"]);
    assert.deepEqual(text.heard, ["X", "LEAVE"]);
    assert.equal(await text.closed, 1000);

    const plain = await fetch(`http://127.0.0.1:${port}/ws`);
    assert.equal(plain.status, 400);
    assert.match(await plain.text(), /must ask for an upgrade/);
    const raw = (lines: string[]) =>
      new Promise<string>((resolve) => {
        const socket = connect(port, "127.0.0.1", () => socket.write([...lines, "", ""].join("\r\n")));
        let said = "";
        socket.on("data", (chunk) => {
          said += chunk.toString();
        });
        socket.on("close", () => resolve(said));
      });
    const asking = ["Host: d", "Connection: Upgrade", "Upgrade: websocket"];
    assert.match(await raw(["GET /ws HTTP/1.1", ...asking]), /^HTTP\/1\.1 400 /);
    assert.equal(left, 2, "sessions without a client are let go");
    const busy = await raw(["GET /busy HTTP/1.1", ...asking]);
    assert.match(busy, /^HTTP\/1\.1 409 [\s\S]*"busy"/);
  } finally {
    sockets.close();
    sockets.closeAllConnections();
  }
});

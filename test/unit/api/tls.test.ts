/** The API on TCP: who is let in, and that leaving HTTP works inside TLS. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { Server } from "node:http";
import { connect as connectPlain } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type ConnectionOptions, connect, type SecureVersion } from "node:tls";
import { hijack, json, RAW_STREAM } from "../../../src/api/http/reply.ts";
import { Router, route } from "../../../src/api/http/router.ts";
import { createHttpServer } from "../../../src/api/http/server.ts";
import { listenTls, type TlsFront, tlsOptions } from "../../../src/api/http/tls.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { parseEndpoint, shownEndpoint } from "../../../src/engine/daemon/endpoint.ts";
import { readSettings } from "../../../src/engine/daemon/settings.ts";
import { type Credentials, writeCertificates } from "../../support/certificates.ts";

const dir = mkdtempSync(join(tmpdir(), "skein-tls-"));
let ours: Record<"server" | "client", Credentials>;
let foreign: Record<"client", Credentials>;
let front: TlsFront;
let server: Server;
let handled = 0;

before(async () => {
  for (const name of ["ours", "foreign"]) mkdirSync(join(dir, name));
  ours = await writeCertificates(join(dir, "ours"), ["server", "client"], ["127.0.0.1"]);
  foreign = await writeCertificates(join(dir, "foreign"), ["client"], []);
  const router = new Router().add([
    route("GET", "/_ping", () => {
      handled++;
      return json("OK");
    }),
    route("POST", "/shout", () =>
      hijack(RAW_STREAM, async (stream) => {
        const parts: Buffer[] = [];
        for await (const chunk of stream.input) parts.push(chunk);
        // Only after the client has ended its half.
        await stream.write(Buffer.from(Buffer.concat(parts).toString().toUpperCase()));
      }),
    ),
  ]);
  server = createHttpServer({ router, log: nullLogger, tls: ours.server });
  front = await listenTls(server, { host: "127.0.0.1", port: 0 }, nullLogger);
});

after(async () => {
  await front[Symbol.asyncDispose]();
  server.close();
  rmSync(dir, { recursive: true });
});

/** Everything the server says until it ends, or the error that ended it. */
function say(text: string, as: Credentials | undefined, maxVersion: SecureVersion = "TLSv1.3"): Promise<string> {
  return new Promise((resolve) => {
    const options: ConnectionOptions & { allowHalfOpen: boolean } = {
      host: "127.0.0.1",
      port: front.port,
      maxVersion,
      minVersion: "TLSv1",
      ca: readFileSync(ours.server.ca),
      ...(as && { cert: readFileSync(as.cert), key: readFileSync(as.key) }),
      allowHalfOpen: true,
    };
    const socket = connect(options);
    let got = "";
    socket.on("data", (chunk) => {
      got += chunk;
    });
    socket.on("error", (error) => resolve(`error: ${error.message}`));
    socket.on("close", () => resolve(got));
    socket.end(text);
  });
}

const ping = "GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";

test("a client of our CA is answered, in TLS 1.2 and 1.3", async () => {
  for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
    assert.match(await say(ping, ours.client, version), /^HTTP\/1\.1 200 /);
  }
});

test("no certificate, a foreign one, a server's, and old TLS: not one request is handled", async () => {
  const before = handled;
  for (const who of [undefined, foreign.client, ours.server]) assert.doesNotMatch(await say(ping, who), /HTTP\/1/);
  assert.match(await say(ping, ours.client, "TLSv1.1"), /^error: /);
  assert.equal(handled, before);
});

test("a client without TLS is told so in its own language", async () => {
  const got = await new Promise<string>((resolve, reject) => {
    const socket = connectPlain(front.port, "127.0.0.1");
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk;
    });
    socket.on("error", reject);
    socket.on("close", () => resolve(text));
    socket.write(ping);
  });
  assert.match(got, /^HTTP\/1\.1 400 /);
  assert.match(got, /Client sent an HTTP request to an HTTPS server\.\n$/);
});

test("a hijacked stream goes on after the client's half has ended", async () => {
  const upgrade = "POST /shout HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n";
  const text = await say(`${upgrade}hello`, ours.client);
  assert.match(text, /^HTTP\/1\.1 101 UPGRADED\r\n/);
  assert.match(text, /\r\n\r\nHELLO$/);
});

test("connections that never shake hands do not keep the server from ending", async () => {
  const other = createHttpServer({ router: new Router(), log: nullLogger, tls: ours.server });
  const idle = await listenTls(other, { host: "127.0.0.1", port: 0 }, nullLogger);
  const socket = connectPlain(idle.port, "127.0.0.1");
  const closed = new Promise<void>((resolve) => socket.on("close", () => resolve()));
  await new Promise<void>((resolve) => socket.on("connect", () => resolve()));
  await idle[Symbol.asyncDispose]();
  await closed;
});

test("files that are missing or do not fit are refused by name", () => {
  assert.throws(() => tlsOptions({ ...ours.server, ca: join(dir, "none") }), /cannot read the CA certificate.*none/);
  assert.throws(() => tlsOptions({ ...ours.server, key: ours.client.key }), /of no use for TLS.*key values mismatch/);
  const empty = join(dir, "empty.pem");
  writeFileSync(empty, "");
  assert.throws(() => tlsOptions({ ...ours.server, cert: empty }), /of no use for TLS/);
});

test("settings: TCP with certificates only", () => {
  const read = (...argv: string[]) => {
    const asked = readSettings(argv);
    assert.ok("config" in asked);
    return asked.config.endpoints;
  };
  assert.throws(() => read("-H", "tcp://0.0.0.0:2375"), /with --tlsverify only/);
  assert.throws(() => read("--tlscert", "/x.pem"), /--tlscert needs --tlsverify/);
  assert.throws(() => read("-H", "fd://"), /fd:\/\/ is not/);
  assert.throws(() => read("--tlsverify", "--tlscert", "x.pem"), /--tlscert must be an absolute path/);
  const endpoints = read("-H", "unix:///a.sock", "-H", "tcp://:2376", "--tlsverify", "--tlskey", "/k.pem");
  assert.deepEqual(endpoints.map(shownEndpoint), ["unix:///a.sock", "tcp://0.0.0.0:2376"]);
  const tls = { ca: "/etc/skein/ca.pem", cert: "/etc/skein/cert.pem", key: "/k.pem" };
  assert.deepEqual(endpoints[1], { kind: "tcp", host: "0.0.0.0", port: 2376, tls });
  assert.equal(shownEndpoint(parseEndpoint("tcp://[::1]", tls)), "tcp://[::1]:2376");
  for (const bad of ["tcp://a:b", "tcp://[1.2.3.4]:1", "tcp://a:0", "tcp://a:70000", "tcp://a:1/x"]) {
    assert.throws(() => parseEndpoint(bad, tls), /invalid bind address/, bad);
  }
});

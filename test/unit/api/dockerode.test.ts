/** A client that no one here wrote, on the whole API over a host in memory. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import type { Server } from "node:http";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { after, before, test } from "node:test";
import Docker from "dockerode";
import { listenUnix } from "../../../src/api/http/listen.ts";
import { createApi } from "../../../src/api/index.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { settle, type TestHost, testHost } from "../engine/fakes.ts";

let host: TestHost;
let server: Server;
let docker: Docker;
let dir: string;
const sockets = new Set<Socket>();

/** What happens between two ends of a socket takes as long as the machine lets it. */
async function until(what: string, holds: () => boolean): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!holds()) {
    if (Date.now() > deadline) throw new Error(`not within 10 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

before(async () => {
  host = await testHost();
  dir = mkdtempSync(join(tmpdir(), "skein-dockerode-"));
  server = createApi({ engine: host.engine, log: nullLogger, interfaces: () => [] });
  server.on("connection", (socket: Socket) => sockets.add(socket));
  await listenUnix(server, join(dir, "s.sock"));
  docker = new Docker({ socketPath: join(dir, "s.sock") });
});
after(async () => {
  server.close();
  server.closeAllConnections();
  // Attached clients are no connections of HTTP any more: after a failure one would keep this process for ever.
  for (const socket of sockets) socket.destroy();
  await host[Symbol.asyncDispose]();
  rmSync(dir, { recursive: true });
});

const collect = (stream: NodeJS.ReadableStream) => {
  let text = "";
  stream.on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  return () => text;
};

test("create, attach, start, wait, logs, inspect, list, remove", async () => {
  const container = await docker.createContainer({
    Image: "alpine",
    name: "web",
    Cmd: ["x"],
    OpenStdin: true,
    StdinOnce: true,
  });
  const stream = await container.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
  const [out, err] = [new PassThrough(), new PassThrough()];
  const [outText, errText] = [collect(out), collect(err)];
  docker.modem.demuxStream(stream, out, err);
  const waiting = container.wait({ condition: "next-exit" });
  await new Promise((resolve) => setTimeout(resolve, 20));
  await container.start();
  const process = host.runtime.processes.get(container.id);
  assert.ok(process);
  stream.write("typed");
  const typed = await new Promise((resolve) => process.input.once("data", (chunk) => resolve(String(chunk))));
  assert.equal(typed, "typed");
  process.say("to out\n");
  process.say("to err\n", "stderr");
  stream.end();
  await until("the end of the client's input reached the process", () => process.inputClosed);
  assert.equal((await docker.listContainers()).length, 1);
  process.end(5);
  assert.deepEqual(await waiting, { StatusCode: 5 });
  await until("all output is there", () => outText() !== "" && errText() !== "");
  assert.deepEqual([outText(), errText()], ["to out\n", "to err\n"]);
  const logs = await container.logs({ stdout: true, stderr: true, follow: false });
  assert.ok(logs.toString().includes("to out\n"));
  const seen = await container.inspect();
  assert.equal(seen.State.ExitCode, 5);
  assert.equal(seen.Name, "/web");
  await container.remove();
  await assert.rejects(container.inspect(), { statusCode: 404 });
});

test("exec with a terminal: raw stream, exit code by inspect", async () => {
  const container = await docker.createContainer({ Image: "alpine", name: "ex" });
  await container.start();
  host.runtime.onExec = (process) => {
    process.say("raw");
    process.end(3);
  };
  const exec = await container.exec({ Cmd: ["a", "b"], Tty: true, AttachStdout: true });
  const stream = await exec.start({ Tty: true, hijack: true, stdin: false });
  const text = collect(stream);
  await new Promise((resolve) => stream.on("end", resolve));
  assert.equal(text(), "raw");
  assert.equal((await exec.inspect()).ExitCode, 3);
  await container.remove({ force: true });
});

test("volumes, networks, events, system", async () => {
  const events = await docker.getEvents({ filters: { type: ["volume"] } });
  const eventText = collect(events);
  await docker.createVolume({ Name: "vol", Labels: { a: "b" } });
  assert.equal((await docker.listVolumes()).Volumes.length, 1);
  await docker.getVolume("vol").remove();
  await assert.rejects(docker.getVolume("vol").inspect(), { statusCode: 404 });
  await settle();
  assert.match(eventText(), /"Action":"create"[\s\S]*"Action":"destroy"/);
  assert.deepEqual(
    (await docker.listNetworks({ filters: { name: ["^bri"] } })).map((n) => n.Name),
    ["bridge"],
  );
  assert.equal((await docker.version()).ApiVersion, "1.51");
  assert.equal((await docker.info()).Swarm.LocalNodeState, "inactive");
  await assert.rejects(docker.listServices(), { statusCode: 503 });
  assert.equal((await docker.df()).Images.length, 1);
});

/** The resolver in namespaces of its own, asked by dig and by sockets. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import dgram from "node:dgram";
import net from "node:net";
import { test } from "node:test";
import { promisify } from "node:util";
import { decode, encode } from "dns-packet";
import { nullLogger } from "../../../../src/base/log.ts";
import { scratchNetNs } from "../../../../src/kernel/netns.ts";
import { openNft } from "../../../../src/kernel/nft.ts";
import { tcpConnectIn, tcpListenerIn, udpSocketIn } from "../../../../src/kernel/socket.ts";
import type { NetNs } from "../../../../src/kernel/types.ts";
import { Framer, frame } from "../../../../src/network/resolver/framing.ts";
import { startResolver } from "../../../../src/network/resolver/resolver.ts";
import { nftTable } from "../../../../src/network/resolver/table.ts";
import type { NameView, Upstream } from "../../../../src/network/resolver/types.ts";

const many = { ipv4: Array.from({ length: 60 }, (_, i) => `10.0.2.${i}`), ipv6: [] };
const names: Record<string, { ipv4: string[]; ipv6: string[] }> = { web: { ipv4: ["10.0.1.2"], ipv6: [] }, many };
const view: NameView = { networks: () => [{ name: "n", lookup: (name) => names[name], reverse: () => undefined }] };

async function dig(ns: NetNs, ...args: string[]): Promise<string> {
  const inside = [`--net=/proc/${process.pid}/fd/${ns.fd}`, "dig", "@127.0.0.11", "+tries=1"];
  return (await promisify(execFile)("nsenter", [...inside, ...args])).stdout;
}

/** A name server that answers every A question with one address, over both transports. */
function fakeUpstream(udp: dgram.Socket, tcp: net.Server, address: string): void {
  const reply = (query: Buffer) => {
    const { id, questions } = decode(query);
    return encode({
      type: "response",
      id: id ?? 0,
      questions: questions ?? [],
      answers: [{ type: "A", name: questions?.[0]?.name ?? "", data: address }],
    });
  };
  udp.on("message", (query, from) => udp.send(reply(query), from.port, from.address));
  tcp.on("connection", (socket) => {
    const framer = new Framer();
    socket.on("data", (chunk) => {
      for (const query of framer.push(chunk)) socket.write(frame(reply(query)));
    });
    socket.on("error", () => {});
  });
}

test("dig finds names at 127.0.0.11 port 53, over UDP and TCP, truncated and whole", async () => {
  using ns = scratchNetNs();
  await using resolver = await startResolver({ ns, view, upstreams: [], log: nullLogger });
  using nft = openNft(ns);
  nft.run(nftTable(resolver.ports));
  nft.run(nftTable(resolver.ports));
  assert.equal((await dig(ns, "+short", "web")).trim(), "10.0.1.2");
  assert.equal((await dig(ns, "+short", "+tcp", "WEB.n")).trim(), "10.0.1.2");
  assert.match(await dig(ns, "+noedns", "+ignore", "many"), /flags: qr tc rd ra/);
  assert.equal((await dig(ns, "+noedns", "+short", "many")).trim().split("\n").length, 60);
  assert.match(await dig(ns, "nothing.example"), /status: NXDOMAIN/);
  assert.match(await dig(ns, "-t", "AAAA", "web"), /status: NOERROR[\s\S]*ANSWER: 0/);
});

test("unknown names are asked upstream, from the host's namespace or the sandbox's, over both transports", async () => {
  using ns = scratchNetNs();
  const sockets = [
    { udp: dgram.createSocket("udp4"), tcp: net.createServer(), address: "192.0.2.1" },
    {
      udp: await udpSocketIn(ns, "127.0.0.1", 5301),
      tcp: await tcpListenerIn(ns, "127.0.0.1", 5301),
      address: "192.0.2.2",
    },
  ];
  const [host, inside] = sockets;
  assert.ok(host && inside);
  await new Promise<void>((resolve) => host.udp.bind(0, "127.0.0.1", resolve));
  const { port } = host.udp.address();
  await new Promise<void>((resolve) => host.tcp.listen(port, "127.0.0.1", resolve));
  for (const { udp, tcp, address } of sockets) fakeUpstream(udp, tcp, address);
  try {
    const dead: Upstream = { address: "127.0.0.1", port: 9, from: "sandbox" };
    await using resolver = await startResolver({
      ns,
      view,
      upstreams: [dead, { address: "127.0.0.1", port }],
      log: nullLogger,
    });
    using nft = openNft(ns);
    nft.run(nftTable(resolver.ports));
    // The first server is not there: its refusal is known at once, not after four seconds.
    assert.equal((await dig(ns, "+short", "+time=2", "example.com")).trim(), "192.0.2.1");
    assert.equal((await dig(ns, "+short", "+time=2", "+tcp", "example.com")).trim(), "192.0.2.1");
    resolver.setUpstreams([{ address: "127.0.0.1", port: 5301, from: "sandbox" }]);
    assert.equal((await dig(ns, "+short", "+time=2", "example.com")).trim(), "192.0.2.2");
    assert.equal((await dig(ns, "+short", "+time=2", "+tcp", "example.com")).trim(), "192.0.2.2");
    assert.deepEqual(
      { ...resolver.stats(), queries: undefined },
      { queries: undefined, forwarded: 4, failed: 0, pending: 0 },
    );
  } finally {
    for (const { udp, tcp } of sockets) {
      udp.close();
      tcp.close();
    }
  }
});

test("one TCP connection may carry many questions at once and be half-closed after the last", async () => {
  using ns = scratchNetNs();
  await using resolver = await startResolver({ ns, view, upstreams: [], log: nullLogger });
  const socket = tcpConnectIn(ns, "127.0.0.11", resolver.ports.tcp);
  const stream = Array.from({ length: 100 }, (_, id) =>
    frame(encode({ type: "query", id, questions: [{ type: "A", name: id % 2 ? "web" : "nothing" }] })),
  );
  socket.end(Buffer.concat(stream));
  const framer = new Framer();
  const got: Buffer[] = [];
  for await (const chunk of socket) got.push(...framer.push(chunk as Buffer));
  assert.deepEqual(
    got.map((message) => message.readUInt16BE(0)).sort((a, b) => a - b),
    Array.from({ length: 100 }, (_, id) => id),
  );
});

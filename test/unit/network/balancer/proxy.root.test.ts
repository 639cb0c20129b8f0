/** The PROXY protocol in a namespace: the header, then the connection as if nobody were between. */
import assert from "node:assert/strict";
import { once } from "node:events";
import type net from "node:net";
import { test } from "node:test";
import { nullLogger } from "../../../../src/base/log.ts";
import { scratchNetNs } from "../../../../src/kernel/netns.ts";
import { openRtnl } from "../../../../src/kernel/rtnl.ts";
import { tcpConnectIn, tcpListenerIn } from "../../../../src/kernel/socket.ts";
import { openProxy } from "../../../../src/network/balancer/proxy.ts";
import { proxyHeader } from "../../../../src/network/carrier/header.ts";

const address = "10.0.0.5";

test("the header is that of the specification", () => {
  assert.equal(
    proxyHeader({ address: "192.0.2.7", port: 50000 }, { address: "10.0.0.5", port: 8080 }).toString("hex"),
    "0d0a0d0a000d0a515549540a2111000cc00002070a000005c3501f90",
  );
  assert.equal(
    proxyHeader({ address: "2001:db8::7%eth0", port: 50000 }, { address: "fd00::5", port: 8080 }).toString("hex"),
    "0d0a0d0a000d0a515549540a2121002420010db8000000000000000000000007fd000000000000000000000000000005c3501f90",
  );
});

test("header, bytes both ways, half-close, reset; who is refused by the task is reset", {
  timeout: 30_000,
}, async () => {
  using ns = scratchNetNs();
  // Before the address is there: the socket comes before the kernel's tables that lead to it.
  using proxy = openProxy({ ns, address, publishedPort: 8080, targetPort: 80, log: nullLogger });
  using rtnl = openRtnl(ns);
  const lo = rtnl.link("lo");
  assert.ok(lo);
  rtnl.setLink(lo.index, { up: true });
  rtnl.addAddr(lo.index, address, 32);
  rtnl.addAddr(lo.index, "192.0.2.7", 32);
  const connect = async () => {
    const socket = tcpConnectIn(ns, address, proxy.port, { allowHalfOpen: true });
    await once(socket, "connect");
    return socket;
  };

  const refused = await connect();
  const [error] = (await once(refused, "error")) as [NodeJS.ErrnoException];
  assert.equal(error.code, "ECONNRESET");

  const task = await tcpListenerIn(ns, address, 80);
  try {
    task.on("connection", (socket: net.Socket) => {
      const chunks: Buffer[] = [];
      socket.on("error", () => {});
      socket.on("data", (chunk) => (String(chunk).endsWith("reset") ? socket.resetAndDestroy() : chunks.push(chunk)));
      socket.on("end", () => socket.end(Buffer.concat(chunks)));
    });
    const client = await connect();
    const { localAddress = "", localPort = 0 } = client;
    const size = 3 << 20;
    client.end(Buffer.alloc(size, 7));
    const got = Buffer.concat(await client.toArray());
    const header = proxyHeader({ address: localAddress, port: localPort }, { address, port: 8080 });
    assert.equal(got.length, header.length + size);
    assert.deepEqual(got.subarray(0, header.length), header);

    const told = tcpConnectIn(ns, address, proxy.headedPort, { allowHalfOpen: true });
    await once(told, "connect");
    told.end("said already");
    assert.equal(Buffer.concat(await told.toArray()).toString(), "said already");

    const broken = await connect();
    broken.write("reset");
    const [reset] = (await once(broken, "error")) as [NodeJS.ErrnoException];
    assert.equal(reset.code, "ECONNRESET");

    const open = await connect();
    proxy[Symbol.dispose]();
    const [cut] = (await once(open, "error")) as [NodeJS.ErrnoException];
    assert.equal(cut.code, "ECONNRESET", "cut off is not ended");
  } finally {
    task.close();
  }
});

/** Floods of connections and calls from a process of their own, so that the test's own clients have one to themselves. */
import type { Socket } from "node:net";
import { NodeCA } from "#proto/docker/swarmkit/ca_pb.js";
import { answer } from "../../../bench/support/process.ts";
import { createCsr } from "../../../src/swarm/ca/certificates.ts";
import { frameHead, grpcTo, type Pair, RawHttp2, silentTo, tlsTo } from "./hostile.ts";

const sockets: Socket[] = [];
const raws: RawHttp2[] = [];
const keep = (socket: Socket | undefined) => {
  if (socket) sockets.push(socket.on("error", () => {}));
};
const source = (i: number) => `127.0.0.${2 + i}`;
let over = false;

answer(
  {
    /** Connections that never begin a handshake, from two addresses. */
    silent: async ({ addr, count }: { addr: string; count: number }) => {
      for (let i = 0; i < count; i++) keep(await silentTo(addr, source(i % 2)).catch(() => undefined));
    },
    /** Connections that do nothing after it, from one address. */
    idle: async ({ addr, count }: { addr: string; count: number }) => {
      let left = count;
      const one = async () => {
        while (left-- > 0) keep(await tlsTo(addr, undefined, { from: source(2) }).catch(() => undefined));
      };
      await Promise.all(Array.from({ length: 20 }, one));
    },
    /** Calls that say a message of 1 MiB comes, send part of it, and never end. */
    unfinished: async ({ addr, pair, calls, bytes }: { addr: string; pair?: Pair; calls: number; bytes: number }) => {
      const raw = new RawHttp2(await tlsTo(addr, pair, { from: source(0) }));
      raws.push(raw);
      const claim = pair ? 1 << 20 : 64 << 10;
      const part = Buffer.alloc(bytes);
      for (let i = 0; i < calls; i++) {
        const stream = raw.begin(pair ? "Dispatcher/Heartbeat" : "NodeCA/IssueNodeCertificate");
        stream.write(frameHead(claim));
        stream.write(part);
      }
    },
    /** Asks to join with a wrong token, again and again, until the answer `stop`; gives the number of refusals. */
    forged: async ({ addr, rootPem, token }: { addr: string; rootPem: string; token: string }) => {
      const csr = Buffer.from((await createCsr()).csrPem);
      let refused = 0;
      const one = async () => {
        const channel = grpcTo(addr, rootPem, undefined, "swarm-ca");
        while (!over) {
          await channel
            .client(NodeCA)
            .issueNodeCertificate({ csr, token }, { timeoutMs: 10_000 })
            .catch(() => refused++);
        }
        channel.close();
      };
      await Promise.all(Array.from({ length: 4 }, one));
      return refused;
    },
    stop: () => {
      over = true;
    },
    close: () => {
      for (const raw of raws.splice(0)) raw.close();
      for (const socket of sockets.splice(0)) socket.destroy();
    },
  },
  () => Promise.resolve(),
);

/** One question to one name server, over UDP or TCP, from the daemon's namespace or the sandbox's. */
import { randomInt } from "node:crypto";
import dgram from "node:dgram";
import net from "node:net";
import { tcpConnectIn, udpSocketIn } from "../../kernel/socket.ts";
import type { NetNs } from "../../kernel/types.ts";
import { Framer, frame } from "./framing.ts";
import type { Upstream } from "./types.ts";
import { answers } from "./wire.ts";

const DNS_PORT = 53;

/**
 * Gives the answer with the question's own id. Rejects when the server refuses the packet, the connection
 * breaks or `signal` says that it took too long.
 */
export function ask(
  upstream: Upstream,
  query: Buffer,
  transport: "udp" | "tcp",
  ns: NetNs,
  signal: AbortSignal,
): Promise<Buffer> {
  return transport === "udp" ? askUdp(upstream, query, ns, signal) : askTcp(upstream, query, ns, signal);
}

/** A socket for each question: its port is half of what a forger would have to guess, the id the other half. */
async function askUdp(upstream: Upstream, query: Buffer, ns: NetNs, signal: AbortSignal): Promise<Buffer> {
  const socket = await openUdp(upstream, ns);
  const id = randomInt(0x10000);
  const question = withId(query, id);
  const result = Promise.withResolvers<Buffer>();
  const onAbort = () => result.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  socket.on("error", result.reject);
  socket.on("message", (message) => {
    if (message.length >= 12 && message.readUInt16BE(0) === id && answers(message, query)) result.resolve(message);
  });
  try {
    signal.throwIfAborted();
    // Connected: the kernel drops what others send and reports a server that is not there.
    socket.connect(upstream.port ?? DNS_PORT, upstream.address, (failure?: Error) => {
      // Node hands the failure (an unreachable network) to this callback, whatever its types say.
      if (failure) result.reject(failure);
      else socket.send(question, (error) => error && result.reject(error));
    });
    return withId(await result.promise, query.readUInt16BE(0));
  } finally {
    signal.removeEventListener("abort", onAbort);
    socket.close();
  }
}

async function openUdp(upstream: Upstream, ns: NetNs): Promise<dgram.Socket> {
  const six = net.isIPv6(upstream.address);
  if (upstream.from === "sandbox") return udpSocketIn(ns, six ? "::" : "0.0.0.0", 0);
  return dgram.createSocket(six ? "udp6" : "udp4");
}

async function askTcp(upstream: Upstream, query: Buffer, ns: NetNs, signal: AbortSignal): Promise<Buffer> {
  const port = upstream.port ?? DNS_PORT;
  const socket =
    upstream.from === "sandbox" ? tcpConnectIn(ns, upstream.address, port) : net.connect(port, upstream.address);
  const result = Promise.withResolvers<Buffer>();
  const onAbort = () => result.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  const framer = new Framer();
  socket.on("error", result.reject);
  socket.on("close", () => result.reject(new Error("the name server closed the connection")));
  socket.on("data", (chunk: Buffer) => {
    for (const message of framer.push(chunk)) {
      if (message.length >= 12 && message.readUInt16BE(0) === query.readUInt16BE(0) && answers(message, query)) {
        result.resolve(message);
      }
    }
  });
  try {
    signal.throwIfAborted();
    socket.write(frame(query));
    return await result.promise;
  } finally {
    signal.removeEventListener("abort", onAbort);
    socket.destroy();
  }
}

function withId(message: Buffer, id: number): Buffer {
  const copy = Buffer.from(message);
  copy.writeUInt16BE(id, 0);
  return copy;
}

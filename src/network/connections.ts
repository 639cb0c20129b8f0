/**
 * What a sandbox's TCP connections are doing, from the outside: whether its programs are ready for connections yet,
 * and whether they can be told to stop without cutting anybody short. Pure.
 */
import type { TcpSocket } from "../kernel/types.ts";

/** A connection that was quiet for so long and owes nothing is idle. */
const quietMs = 1_000;

/** Whether each of these ports is listened on, at more than a loopback address. */
export function isListening(sockets: readonly TcpSocket[], ports: readonly number[]): boolean {
  const open = new Set(sockets.filter((one) => one.state === "listen" && !one.loopback).map((one) => one.localPort));
  return ports.every((port) => open.has(port));
}

/**
 * Connections of others to listeners of this sandbox that are in the middle of something: data is under way, the last
 * word was the other side's (an answer is owed), or words were exchanged just now. A connection kept open for later
 * use is not: its user expects it to be closed at any time.
 */
export function busyConnections(sockets: readonly TcpSocket[]): number {
  const ports = new Set(sockets.filter((one) => one.state === "listen").map((one) => one.localPort));
  return sockets.filter(
    (one) =>
      one.state === "connected" &&
      !one.loopback &&
      ports.has(one.localPort) &&
      (one.receiveQueue > 0 ||
        one.sendQueue > 0 ||
        one.receivedMsAgo < one.sentMsAgo ||
        Math.min(one.sentMsAgo, one.receivedMsAgo) < quietMs),
  ).length;
}

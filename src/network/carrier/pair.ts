/**
 * Two stream sockets that are one connection: what one says the other hears, at the pace of whoever is slower, the end of
 * one direction leaves the other open, and a reset on one side is a reset on the other, not an end that looks regular.
 *
 * Watched edge-triggered: an event says that something changed, and then it is read until there is no more, written until
 * there is no room. `readable` and `writable` are what is known of it. What was read goes straight on; only what the other
 * side has no room for is kept, and nothing more is read until it is gone. So an idle connection has no buffer, and a
 * client who does not read costs what its sockets hold and one piece.
 */
import * as epoll from "../../kernel/epoll.ts";

const SMALLEST = 16 << 10;
const LARGEST = 128 << 10;
/** After so much of one direction the others have their turn. */
const TURN = 512 << 10;

/** One thread carries one piece at a time. */
const piece = Buffer.allocUnsafeSlow(LARGEST);

export interface Side {
  readonly fd: number;
  readonly pair: Pair;
  other: Side;
  readable: boolean;
  writable: boolean;
  /** The kernel has said that the end is near: it is read up to it. */
  closing: boolean;
  /** Nothing more comes from here. */
  ended: boolean;
  /** And the other side knows. */
  told: boolean;
  /** Read here, not yet written there. */
  rest: Buffer | undefined;
  /** How much is read at a time: more where more comes. */
  size: number;
}

export type Progress = "waiting" | "more" | "over" | "broken";

export class Pair {
  readonly listener: number;
  readonly client: Side;
  readonly upstream: Side;

  /** `preface` goes to `upstream` before what the client says. */
  constructor(listener: number, client: number, upstream: number, preface: Uint8Array | undefined) {
    this.listener = listener;
    this.client = sideOf(client, this);
    this.upstream = sideOf(upstream, this);
    this.client.other = this.upstream;
    this.upstream.other = this.client;
    if (preface) this.client.rest = Buffer.from(preface);
  }
}

function sideOf(fd: number, pair: Pair): Side {
  const side = {
    fd,
    pair,
    readable: false,
    writable: false,
    closing: false,
    ended: false,
    told: false,
    rest: undefined,
    size: SMALLEST,
  };
  return Object.assign(side, { other: side as unknown as Side });
}

/** Carries from one side to the other what there is. */
export function carry(from: Side): Progress {
  const to = from.other;
  for (let carried = 0; ; ) {
    if (from.rest) {
      if (!to.writable) return "waiting";
      const sent = epoll.transmit(to.fd, from.rest, from.rest.length);
      if (sent === epoll.BROKEN) return "broken";
      if (sent !== from.rest.length) {
        if (sent > 0) from.rest = from.rest.subarray(sent);
        to.writable = false;
        return "waiting";
      }
      from.rest = undefined;
    }
    if (from.ended) {
      if (!from.told) {
        if (!to.writable) return "waiting";
        epoll.endSending(to.fd);
        from.told = true;
      }
      return to.told ? "over" : "waiting";
    }
    if (!from.readable || !to.writable) return "waiting";
    if (carried >= TURN) return "more";
    const got = epoll.receive(from.fd, piece, from.size);
    if (got === epoll.BROKEN) return "broken";
    if (got === epoll.AGAIN) {
      from.readable = false;
      continue;
    }
    if (got === 0) {
      from.ended = true;
      continue;
    }
    carried += got;
    // Less than was asked for is all there was: what comes later is told anew.
    if (got < from.size && !from.closing) from.readable = false;
    if (got === from.size && from.size < LARGEST) from.size *= 2;
    const sent = epoll.transmit(to.fd, piece, got);
    if (sent === epoll.BROKEN) return "broken";
    if (sent === got) continue;
    from.rest = Buffer.from(piece.subarray(sent > 0 ? sent : 0, got));
    from.size = SMALLEST;
    to.writable = false;
    return "waiting";
  }
}

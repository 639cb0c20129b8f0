/** A netlink socket: one request, its answers, the kernel's explanation when it refuses. */
import { errnoOf } from "../../base/errors.ts";
import { KernelError } from "../error.ts";
import * as libc from "../libc.ts";
import {
  attributes,
  type Builder,
  type Message,
  messages,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
  textOf,
} from "./codec.ts";

export const NETLINK_ROUTE = 0;
export const NETLINK_XFRM = 6;
export const NETLINK_NETFILTER = 12;

const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
const SO_RCVBUFFORCE = 33;
const NLMSGERR_ATTR_MSG = 1;
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
const MSG_TRUNC = 0x20;

const ANSWER_SECONDS = 5;
/** Room for the acknowledgements of a whole batch. */
const RECEIVE_BUFFER = 1 << 20;

/** Dumps that keep being interrupted by changes are given as they came after this many attempts. */
const DUMP_ATTEMPTS = 10;

/** All reading is synchronous and copies what it keeps, so one buffer serves every socket. */
const scratch = Buffer.alloc(1 << 18);

/** Opened in the namespace that the calling thread is in. */
export class NetlinkSocket implements Disposable {
  #fd: number;
  #seq = 0;

  constructor(protocol: number) {
    this.#fd = libc.socket(libc.AF_NETLINK, libc.SOCK_RAW, protocol);
    // An answer is there when the request returns. Were one lost, the whole process would wait for it for ever.
    libc.setTimeoutOption(this.#fd, SOL_SOCKET, SO_RCVTIMEO, ANSWER_SECONDS);
    libc.setsockopt(this.#fd, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER);
    // Without CAP_ACK the explanation would sit behind an echo of the whole request.
    libc.setsockopt(this.#fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);
    libc.setsockopt(this.#fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
    if (protocol === NETLINK_ROUTE) libc.setsockopt(this.#fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
  }

  /** Sends a request and gives the messages that came before the acknowledgement. */
  request(operation: string, type: number, flags: number, builder: Builder): Message[] {
    const seq = this.#next();
    libc.send(this.#fd, builder.finish(type, NLM_F_REQUEST | NLM_F_ACK | flags, seq));
    return this.#collect(operation, seq).messages;
  }

  /** As `request`; a pool thread does the sending, for requests during which the kernel sleeps. */
  async requestAsync(operation: string, type: number, flags: number, builder: Builder): Promise<void> {
    const seq = this.#next();
    await libc.sendAsync(this.#fd, builder.finish(type, NLM_F_REQUEST | NLM_F_ACK | flags, seq));
    this.#collect(operation, seq);
  }

  /** Many acknowledged requests in one system call; gives the error of each, or undefined. */
  batch(operation: string, requests: { type: number; flags: number; builder: Builder }[]): (KernelError | undefined)[] {
    const start = this.#seq + 1;
    const parts = requests.map(({ type, flags, builder }) =>
      builder.finish(type, NLM_F_REQUEST | NLM_F_ACK | flags, this.#next()),
    );
    libc.send(this.#fd, Buffer.concat(parts));
    return requests.map((_, index) => {
      try {
        this.#collect(operation, start + index);
        return undefined;
      } catch (error) {
        if (error instanceof KernelError) return error;
        throw error;
      }
    });
  }

  /** A complete listing; begun anew when something changed under it. */
  dump(operation: string, type: number, builder: Builder): Message[] {
    for (let attempt = 1; ; attempt++) {
      const seq = this.#next();
      libc.send(this.#fd, builder.finish(type, NLM_F_REQUEST | NLM_F_DUMP, seq));
      const result = this.#collect(operation, seq);
      if (!result.interrupted || attempt === DUMP_ATTEMPTS) return result.messages;
    }
  }

  #pending: Message[] = [];

  /** Reads up to the end of the answer to `seq`. What belongs to later requests of a batch is kept. */
  #collect(operation: string, seq: number): { messages: Message[]; interrupted: boolean } {
    const found: Message[] = [];
    let interrupted = false;
    for (;;) {
      const message = this.#pending.shift() ?? this.#receive(operation);
      if (!message || message.seq !== seq) continue;
      if (message.flags & NLM_F_DUMP_INTR) interrupted = true;
      if (message.type === NLMSG_ERROR || message.type === NLMSG_DONE) {
        const errno = message.body.length >= 4 ? -message.body.readInt32LE() : 0;
        if (errno !== 0) throw new KernelError(errno, operation, explanation(message));
        return { messages: found, interrupted };
      }
      found.push(message);
    }
  }

  #receive(operation: string): Message | undefined {
    const length = this.#read(operation);
    if (length > scratch.length) throw new KernelError("EMSGSIZE", operation);
    this.#pending.push(...messages(Buffer.from(scratch.subarray(0, length))));
    return this.#pending.shift();
  }

  #read(operation: string): number {
    try {
      return libc.recv(this.#fd, scratch, MSG_TRUNC);
    } catch (error) {
      const code = errnoOf(error) ?? "EIO";
      throw new KernelError(code === "EAGAIN" ? "ETIMEDOUT" : code, operation, "no answer from the kernel");
    }
  }

  #next(): number {
    this.#seq = (this.#seq + 1) >>> 0;
    return this.#seq;
  }

  [Symbol.dispose](): void {
    if (this.#fd < 0) return;
    libc.close(this.#fd);
    this.#fd = -1;
  }
}

/** The text of the extended acknowledgement. */
function explanation({ type, flags, body }: Message): string {
  if (!(flags & NLM_F_ACK_TLVS) && type === NLMSG_ERROR) return "";
  // errno, then (in errors) the header of the refused request, with its body unless capped.
  let at = 4;
  if (type === NLMSG_ERROR) at += flags & NLM_F_CAPPED ? 16 : body.readUInt32LE(4);
  return textOf(attributes(body, at), NLMSGERR_ATTR_MSG) ?? "";
}

/** The way to the manager that leads, while that is another one. */
import { type Channel, GrpcError, status } from "../../../base/grpc.ts";
import type { Reader } from "../../store/memory.ts";
import type { Standing } from "./standing.ts";

const CONNECT_MS = 500;

/** "ip:port" of the manager that leads; undefined when that is this one, or nobody. */
export function leaderAddr({ leader, self }: Standing, view: Reader): string | undefined {
  if (leader === 0n || leader === self) return undefined;
  return view.all("node").find(({ managerStatus }) => managerStatus?.raftId === leader)?.managerStatus?.addr;
}

export interface Link {
  readonly channel: Channel;
  /** Aborted when that manager leads no more, or is to be reached otherwise. */
  readonly gone: AbortSignal;
}

export class LeaderLink {
  readonly #addr: () => string | undefined;
  readonly #connect: (addr: string) => Channel;
  #current: { readonly addr: string; readonly link: Link; readonly over: AbortController } | undefined;

  constructor(addr: () => string | undefined, connect: (addr: string) => Channel) {
    this.#addr = addr;
    this.#connect = connect;
  }

  /** A connection to the leading manager, which may not answer; undefined when that is this one, or nobody. */
  get(): Link | undefined {
    const addr = this.#addr();
    if (addr === undefined) return undefined;
    if (this.#current?.addr === addr) return this.#current.link;
    this.forget("another manager leads");
    const over = new AbortController();
    const link = { channel: this.#connect(addr), gone: over.signal };
    this.#current = { addr, link, over };
    return link;
  }

  /** The same when it answers. One that does not is replaced soon: who calls waits for that instead of failing. */
  async answering(): Promise<Link | undefined> {
    const link = this.get();
    return link && (await link.channel.ready(CONNECT_MS)) && !link.gone.aborted ? link : undefined;
  }

  /** To be called when another manager may lead: ends what goes to the last one. */
  follow(): void {
    if (this.#current && this.#addr() !== this.#current.addr) this.forget("another manager leads");
  }

  forget(why: string): void {
    const last = this.#current;
    this.#current = undefined;
    last?.over.abort(new GrpcError(status.UNAVAILABLE, why));
    last?.link.channel.close();
  }
}

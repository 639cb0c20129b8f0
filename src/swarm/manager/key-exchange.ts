/**
 * How data keys come from one manager to another: only in calls between managers, whose certificates both sides check, and
 * never through the store.
 */
import { type DataKey as Message, DataKeys as Service } from "#proto/skein/swarm/managers_pb.js";
import { type Clock, sleep } from "../../base/clock.ts";
import { messageOf, unavailable } from "../../base/errors.ts";
import { type Channel, GrpcError, grpcCodeOf, status } from "../../base/grpc.ts";
import type { Handlers } from "../../base/grpc-server.ts";
import type { Logger } from "../../base/log.ts";
import type { DataKey } from "../ca/files.ts";
import { KEY_BYTES, keyId } from "../ca/seal.ts";
import type { DataKeys } from "../store/data-keys.ts";
import type { Answer } from "../store/ring.ts";
import { type Authority, MANAGERS } from "./auth.ts";

const CALL_MS = 2_000;
const ASK_AGAIN_MS = 500;
const MAX_KEYS = 64;

/** What a manager brought; throws INVALID_ARGUMENT for what are no keys. */
export function receivedKeys(keys: readonly Message[]): DataKey[] {
  if (keys.length > MAX_KEYS || keys.some(({ key }) => key.length !== KEY_BYTES)) {
    throw new GrpcError(status.INVALID_ARGUMENT, "these are no data keys");
  }
  return keys.map(({ generation, key }) => ({ generation, key }));
}

/** `open`: this manager has its store open, and with that knows which managers were removed. */
export function keyHandlers(keys: DataKeys, authority: Authority, open: () => boolean): Handlers<typeof Service> {
  const check = (context: Parameters<Authority["require"]>[0]) => {
    authority.require(context, MANAGERS);
    if (!open()) throw new GrpcError(status.UNAVAILABLE, "this manager's store is not open yet");
  };
  return {
    keep: (request, context) => {
      check(context);
      keys.add(receivedKeys(request.keys));
      keys.save();
      return {};
    },
    tell: (_request, context) => {
      check(context);
      return { keys: keys.list };
    },
  };
}

export type Connect = (addr: string) => Channel;

/** Brings a manager a new key. */
export async function bringKey(connect: Connect, addr: string, key: DataKey, log: Logger): Promise<Answer> {
  const channel = connect(addr);
  try {
    await channel.client(Service).keep({ keys: [key] }, { timeoutMs: CALL_MS });
    return "kept";
  } catch (error) {
    if (grpcCodeOf(error) === status.UNIMPLEMENTED) return "older";
    log.warn("a manager did not take the new data key: it has to ask for it later", { manager: addr, error });
    return "away";
  } finally {
    channel.close();
  }
}

export interface AskOptions {
  /** The other managers, "host:port". */
  readonly others: () => readonly string[];
  /** Nobody else will come: one round of questions is all there is. */
  readonly alone: () => boolean;
  readonly connect: Connect;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Asks one manager after the other until one tells the key with this name. */
export async function askForKey(options: AskOptions, id: string, signal: AbortSignal): Promise<DataKey[]> {
  const { alone, clock, connect, log, others } = options;
  for (;;) {
    const why: string[] = [];
    for (const addr of others()) {
      signal.throwIfAborted();
      const channel = connect(addr);
      try {
        const told = receivedKeys((await channel.client(Service).tell({}, { timeoutMs: CALL_MS, signal })).keys);
        if (told.some(({ key }) => keyId(key) === id)) return told;
        why.push(`${addr}: does not have it`);
      } catch (error) {
        why.push(`${addr}: ${messageOf(error)}`);
      } finally {
        channel.close();
      }
    }
    if (alone()) throw unavailable("the swarm store is encrypted under a data key that this manager does not have");
    log.warn("the data key of the swarm store is not here, asking the other managers", { why: why.join("; ") });
    await sleep(clock, ASK_AGAIN_MS, signal);
  }
}

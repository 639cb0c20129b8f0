/**
 * Asks the managers for an address on an attachable network, and gives it back.
 * (SwarmKit: manager/resourceapi; moby: daemon/cluster/networks.go)
 */

import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import { ResourceAllocator } from "#proto/docker/swarmkit/resource_pb.js";
import { type Clock, sleep } from "../../base/clock.ts";
import { messageOf, SkeinError } from "../../base/errors.ts";
import { grpcCodeOf, status } from "../../base/grpc.ts";
import type { Logger } from "../../base/log.ts";
import type { Attachments } from "./attachments.ts";
import { rpcErrorText } from "./rpc-error.ts";
import type { RegisteredSession } from "./session.ts";
import { isTerminal } from "./transitions.ts";

/** Docker's own limit for an attachment, in all. */
const attachMs = 20_000;
const detachMs = 5_000;

/** What the managers refuse, by the API's kinds. */
const kinds: Partial<Record<number, "notFound" | "forbidden" | "invalid">> = {
  [status.NOT_FOUND]: "notFound",
  [status.PERMISSION_DENIED]: "forbidden",
  [status.FAILED_PRECONDITION]: "forbidden",
  [status.INVALID_ARGUMENT]: "invalid",
};

export interface AttachmentClientOptions {
  readonly attachments: Attachments;
  readonly clock: Clock;
  readonly log: Logger;
  /** Every task assigned here. */
  tasks(): Task[];
  /** The session of now, or the next one. */
  session(signal: AbortSignal): Promise<RegisteredSession>;
}

export class AttachmentClient {
  #options: AttachmentClientOptions;

  constructor(options: AttachmentClientOptions) {
    this.#options = options;
  }

  async attach(request: {
    target: string;
    addresses: string[];
    containerId: string;
    signal?: AbortSignal;
  }): Promise<{ attachmentId: string; task: Task }> {
    const { target, addresses, containerId } = request;
    using limit = timeLimit(this.#options.clock, attachMs, request.signal);
    const attachmentId = await this.#ask(target, addresses, containerId, limit.signal);
    try {
      return { attachmentId, task: await this.#options.attachments.wait(attachmentId, limit.signal) };
    } catch (error) {
      void this.detach(attachmentId);
      throw new SkeinError(
        "internal",
        `attaching to network failed, make sure your network options are correct and check manager logs: ${messageOf(error)}`,
        { cause: error },
      );
    }
  }

  /**
   * Resolves also when no manager answers. The task is then complete, here and on disk, and its address is given
   * back with the next session, even after a restart.
   */
  async detach(attachmentId: string): Promise<void> {
    this.#options.attachments.detached(attachmentId);
    using limit = timeLimit(this.#options.clock, detachMs);
    try {
      const { connection } = await this.#options.session(limit.signal);
      await connection.client(ResourceAllocator).detachNetwork({ attachmentId }, { signal: limit.signal });
    } catch (error) {
      if (grpcCodeOf(error) !== status.NOT_FOUND) {
        this.#options.log.warn("a network attachment is not yet given back", { attachment: attachmentId, error });
      }
    }
  }

  /** A new session is there: gives back what could not be before. */
  resume(): void {
    for (const { id, spec, status: state } of this.#options.tasks()) {
      if (spec?.runtime.case === "attachment" && state && isTerminal(state.state)) void this.detach(id);
    }
  }

  async #ask(target: string, addresses: string[], containerId: string, signal: AbortSignal): Promise<string> {
    try {
      const { connection } = await this.#options.session(signal);
      const allocator = connection.client(ResourceAllocator);
      const response = await allocator.attachNetwork({ config: { target, addresses }, containerId }, { signal });
      return response.attachmentId;
    } catch (error) {
      const code = grpcCodeOf(error);
      const kind = (code !== undefined && kinds[code]) || "internal";
      throw new SkeinError(kind, `Could not attach to network ${target}: ${rpcErrorText(error)}`, { cause: error });
    }
  }
}

/** A signal that ends after `ms` as Go's contexts do, or with `outer`. */
function timeLimit(clock: Clock, ms: number, outer?: AbortSignal): Disposable & { readonly signal: AbortSignal } {
  const timer = new AbortController();
  const done = new AbortController();
  sleep(clock, ms, done.signal).then(
    () => timer.abort(new Error("context deadline exceeded")),
    () => {},
  );
  return {
    signal: outer ? AbortSignal.any([timer.signal, outer]) : timer.signal,
    [Symbol.dispose]: () => done.abort(),
  };
}

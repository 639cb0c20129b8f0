/**
 * Keeps the store's members and the nodes' roles as they are wanted, and tells in each manager's node whether it leads
 * and answers. Runs on the leading manager only.
 */
import { create } from "@bufbuild/protobuf";
import type { Node } from "#proto/docker/swarmkit/objects_pb.js";
import { ManagerStatusSchema, NodeRole, RaftMemberStatus_Reachability } from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../../base/clock.ts";
import { GrpcError, grpcMessageOf, status } from "../../../base/grpc.ts";
import type { Logger } from "../../../base/log.ts";
import type { Store } from "../../store/store.ts";
import { Loop } from "../loop.ts";
import type { Members } from "./members.ts";
import { planMembership, type Step, type StoreMember } from "./plan.ts";

const TICK_MS = 1_000;
/** While something is under way. */
const BUSY_MS = 100;
/** Two probes in a row must fail before a manager counts as unreachable. */
const FAILURES = 2;
/** A member that does not vote after this long makes room for another one that wants to. */
const LEARNER_PATIENCE_MS = 20_000;

export interface KeeperOptions {
  readonly store: Store;
  readonly members: Members;
  readonly nodeId: string;
  /** Where this manager is reached. */
  readonly addr: string;
  /** Asks the manager at this address whether it serves; throws when it does not. */
  readonly probe: (addr: string) => Promise<void>;
  readonly clock: Clock;
  readonly log: Logger;
}

export class MembershipKeeper {
  readonly #options: KeeperOptions;
  readonly #loop: Loop;
  readonly #failures = new Map<string, number>();
  readonly #learners = new Map<bigint, number>();
  readonly #stopWatching: () => void;
  #probing: Promise<void> | undefined;
  #closed = false;

  constructor(options: KeeperOptions) {
    this.#options = options;
    const { clock, log, store } = options;
    this.#loop = new Loop({ name: "keeping the managers", clock, log, debounceMs: 0, work: () => this.#tick() });
    this.#stopWatching = store.onCommit((changes) => {
      const concerns = changes.some(
        (change) =>
          change.kind === "node" &&
          (change.action !== "update" || change.old?.spec?.desiredRole !== change.object.spec?.desiredRole),
      );
      if (concerns) this.#loop.mark();
    });
    this.#loop.mark();
  }

  close(): void {
    this.#closed = true;
    this.#stopWatching();
    this.#loop.close();
  }

  /** Takes the caller in as a member without a vote; it is made to vote when it has caught up. */
  async join(nodeId: string, addr: string): Promise<StoreMember[]> {
    const { clock, log, members, probe, store } = this.#options;
    const node = store.view.get("node", nodeId);
    if (node?.spec?.desiredRole !== NodeRole.MANAGER) {
      throw new GrpcError(status.FAILED_PRECONDITION, `node ${nodeId} is not to be a manager`);
    }
    try {
      await probe(addr);
    } catch (error) {
      const reason = grpcMessageOf(error);
      throw new GrpcError(
        status.FAILED_PRECONDITION,
        `could not connect to prospective new cluster member using its advertised address: ${reason}`,
      );
    }
    for (const [id, since] of this.#learners) {
      if (clock.steady() - since > LEARNER_PATIENCE_MS) await members.remove(id);
    }
    const list = await members.add(nodeId);
    const own = list.find((member) => member.nodeId === nodeId);
    await store.update((tx) => {
      const current = tx.get("node", nodeId);
      if (!current) throw new GrpcError(status.NOT_FOUND, `node ${nodeId} not found`);
      const reachability = RaftMemberStatus_Reachability.REACHABLE;
      const managerStatus = create(ManagerStatusSchema, { raftId: own?.id ?? 0n, addr, reachability });
      tx.update("node", { ...current, managerStatus });
    });
    log.info("a manager joins", { node: nodeId, addr });
    this.#loop.mark();
    return list;
  }

  /** Makes a manager a worker; resolves when it is no member any more. */
  async leave(nodeId: string, signal: AbortSignal): Promise<void> {
    const { store } = this.#options;
    await store.update((tx) => {
      const node = tx.get("node", nodeId);
      if (node?.spec) tx.update("node", { ...node, spec: { ...node.spec, desiredRole: NodeRole.WORKER } });
    });
    await new Promise<void>((resolve) => {
      const look = () => {
        if (store.view.get("node", nodeId)?.managerStatus && !signal.aborted) return;
        off();
        signal.removeEventListener("abort", look);
        resolve();
      };
      const off = store.onCommit(look);
      signal.addEventListener("abort", look);
      look();
    });
  }

  async #tick(): Promise<void> {
    const { members, nodeId: self, store } = this.#options;
    this.#probing ??= this.#probe().finally(() => {
      this.#probing = undefined;
    });
    const list = await members.list();
    this.#countLearners(list);
    const reachable = (nodeId: string) => (this.#failures.get(nodeId) ?? 0) < FAILURES;
    const steps = planMembership({ nodes: store.view.all("node"), members: list, self, reachable });
    let busy = false;
    for (const step of steps) {
      if (this.#closed) return;
      busy = (await this.#do(step)) || busy;
    }
    await this.#tell(list, reachable);
    this.#loop.markIn(busy ? BUSY_MS : TICK_MS);
  }

  /** True when there will be more to do soon. */
  async #do(step: Step): Promise<boolean> {
    const { log, members } = this.#options;
    switch (step.kind) {
      case "promoteMember":
        try {
          await members.promote(step.member.id);
          log.info("a manager votes now", { node: step.member.nodeId });
        } catch (error) {
          log.debug("a member has not caught up yet", { node: step.member.nodeId, error });
        }
        return true;
      case "removeMember":
        log.info("a manager is no member any more", { node: step.member.nodeId });
        await members.remove(step.member.id);
        return true;
      case "moveLead":
        log.info("handing over the lead", { to: step.to.nodeId });
        await members.moveLead(step.to.id);
        return true;
      case "makeManager":
        await this.#setRole(step.nodeId, NodeRole.MANAGER);
        return false;
      case "makeWorker":
        await this.#setRole(step.nodeId, NodeRole.WORKER);
        return false;
      case "wait":
        log.warn("a manager cannot leave now: too few of the others answer", { node: step.nodeId });
        return false;
    }
  }

  async #setRole(nodeId: string, role: NodeRole): Promise<void> {
    await this.#options.store.update((tx) => {
      const node = tx.get("node", nodeId);
      if (!node) return;
      const next: Node = { ...node, role };
      if (role === NodeRole.WORKER) delete next.managerStatus;
      tx.update("node", next);
    });
  }

  async #tell(list: readonly StoreMember[], reachable: (nodeId: string) => boolean): Promise<void> {
    const { addr, nodeId: self, store } = this.#options;
    const told = new Map<string, NonNullable<Node["managerStatus"]>>();
    for (const { id: raftId, nodeId } of list) {
      const last = store.view.get("node", nodeId)?.managerStatus;
      const leader = nodeId === self;
      if (!last && !leader) continue;
      const answers = leader || reachable(nodeId);
      const { REACHABLE, UNREACHABLE } = RaftMemberStatus_Reachability;
      const next = create(ManagerStatusSchema, {
        raftId,
        leader,
        addr: leader ? addr : (last?.addr ?? ""),
        reachability: answers ? REACHABLE : UNREACHABLE,
      });
      const same =
        last?.raftId === raftId &&
        last.leader === leader &&
        last.addr === next.addr &&
        last.reachability === next.reachability;
      if (!same) told.set(nodeId, next);
    }
    if (told.size === 0) return;
    await store.update((tx) => {
      for (const [nodeId, managerStatus] of told) {
        const node = tx.get("node", nodeId);
        if (node) tx.update("node", { ...node, managerStatus });
      }
    });
  }

  #countLearners(list: readonly StoreMember[]): void {
    const now = this.#options.clock.steady();
    const learners = new Set(list.filter(({ learner }) => learner).map(({ id }) => id));
    for (const id of this.#learners.keys()) if (!learners.has(id)) this.#learners.delete(id);
    for (const id of learners) if (!this.#learners.has(id)) this.#learners.set(id, now);
  }

  async #probe(): Promise<void> {
    const { nodeId: self, probe, store } = this.#options;
    const managers = store.view.all("node").filter(({ id, managerStatus }) => id !== self && managerStatus?.addr);
    for (const id of this.#failures.keys()) {
      if (!managers.some((node) => node.id === id)) this.#failures.delete(id);
    }
    await Promise.all(
      managers.map(async ({ id, managerStatus }) => {
        try {
          await probe(managerStatus?.addr ?? "");
          this.#failures.set(id, 0);
        } catch {
          this.#failures.set(id, (this.#failures.get(id) ?? 0) + 1);
        }
      }),
    );
  }
}

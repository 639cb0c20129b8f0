/**
 * This manager's lead: takes it when its member of the store leads, runs a reign while it does, ends that at once when it
 * does no more, and hands it over.
 */
import { create } from "@bufbuild/protobuf";
import { ManagerStatusSchema, RaftMemberStatus_Reachability } from "#proto/docker/swarmkit/types_pb.js";
import { type Clock, sleep } from "../../../base/clock.ts";
import type { Logger } from "../../../base/log.ts";
import type { EtcdBackend } from "../../store/etcd/backend.ts";
import type { Store } from "../../store/store.ts";
import type { Reign } from "../reign.ts";
import { noLeader } from "./errors.ts";
import type { Members } from "./members.ts";
import type { StandingWatch } from "./standing.ts";

const LEAD_MS = 3_000;

export interface LeadOptions {
  readonly nodeId: string;
  /** "ip:port" told to others. */
  readonly addr: () => string;
  readonly members: Members;
  /** Before a reign begins: what the store must hold. */
  readonly prepare: (store: Store) => Promise<void>;
  readonly begin: (store: Store) => Reign;
  /** Nobody can take the lead from a manager without others. */
  readonly alone: () => boolean;
  readonly onChange: () => void;
  readonly closing: AbortSignal;
  readonly clock: Clock;
  readonly log: Logger;
}

interface Open {
  readonly backend: EtcdBackend;
  readonly standing: StandingWatch;
  readonly store: Store;
}

export class Lead {
  readonly #options: LeadOptions;
  #open: Open | undefined;
  #current: { readonly term: bigint; readonly reign: Reign; readonly over: AbortController } | undefined;
  #fence: bigint | undefined;
  #settling: Promise<void> | undefined;
  #settleAgain = false;

  constructor(options: LeadOptions) {
    this.#options = options;
  }

  /** While this manager leads. */
  get reign(): Reign | undefined {
    return this.#current?.reign;
  }

  /** For the store's commits; throws when this manager does not lead. */
  get fence(): bigint {
    if (this.#fence === undefined) throw noLeader();
    return this.#fence;
  }

  /** The store is open: takes the lead if it is this manager's. */
  async open(open: Open): Promise<void> {
    this.#open = open;
    this.follow();
    await this.#settling;
  }

  /** To be called when the lead may have moved. */
  follow(): void {
    if (!this.#open) return;
    const { leading, current } = this.#open.standing;
    // Whoever is alone leads on when its etcd was only started again.
    const same = leading && (current.term === this.#current?.term || this.#options.alone());
    if (!same) this.end();
    if (this.#settling) {
      this.#settleAgain = true;
      return;
    }
    this.#settling = this.#settle(this.#open).finally(() => {
      this.#settling = undefined;
      if (!this.#settleAgain) return;
      this.#settleAgain = false;
      this.#options.onChange();
      this.follow();
    });
  }

  /** Whether a quorum says, now, that this manager leads. */
  async confirm(): Promise<boolean> {
    const over = this.#current?.over.signal;
    if (!over || !this.#open) return false;
    if (this.#options.alone()) return true;
    return this.#open.backend.confirmLead(LEAD_MS, over).catch(() => false);
  }

  end(): void {
    this.#fence = undefined;
    const current = this.#current;
    if (!current) return;
    this.#current = undefined;
    const { log, nodeId } = this.#options;
    log.info("this manager leads the swarm no more", { node: nodeId });
    current.over.abort(noLeader());
    current.reign.close();
  }

  /** Gives the lead to another manager that answers, so that nobody has to wait for an election. */
  async handOver(): Promise<void> {
    const { members, nodeId } = this.#options;
    if (!this.#open?.standing.leading) return;
    const heirs = this.#open.store.view
      .all("node")
      .filter(({ id, managerStatus }) => {
        return id !== nodeId && managerStatus?.reachability === RaftMemberStatus_Reachability.REACHABLE;
      })
      .map(({ id }) => id);
    const heir = (await members.list()).find((member) => !member.learner && heirs.includes(member.nodeId));
    if (heir) await members.moveLead(heir.id);
  }

  /** Takes the lead when it is this manager's. */
  async #settle({ backend, standing, store }: Open): Promise<void> {
    if (this.#current) return;
    const { clock, closing, log, nodeId, prepare } = this.#options;
    for (let wait = 100; standing.leading && !closing.aborted; wait = Math.min(2 * wait, 1_000)) {
      const { term } = standing.current;
      const isMine = () => standing.leading && standing.current.term === term;
      try {
        const fence = await backend.takeLead(nodeId, LEAD_MS);
        await store.reached(fence);
        if (!isMine()) continue;
        this.#fence = fence;
        await prepare(store);
        await this.#announce(store, standing.current.self);
        if (!isMine()) continue;
        this.#begin(store, term);
        return;
      } catch (error) {
        log.warn("the lead could not be taken, trying again", { error });
        await sleep(clock, wait, closing).catch(() => {});
      }
    }
  }

  #begin(store: Store, term: bigint): void {
    const { begin, log, nodeId, onChange } = this.#options;
    this.#current = { term, reign: begin(store), over: new AbortController() };
    log.info("this manager leads the swarm", { node: nodeId, term: String(term) });
    onChange();
  }

  /** Tells in the store who leads; a single write, so that a swarm's first start stays quick. */
  async #announce(store: Store, member: bigint): Promise<void> {
    const { addr, nodeId } = this.#options;
    await store.update((tx) => {
      for (const node of tx.all("node")) {
        const last = node.managerStatus;
        if (node.id === nodeId) {
          const managerStatus = create(ManagerStatusSchema, {
            raftId: member,
            addr: addr(),
            leader: true,
            reachability: RaftMemberStatus_Reachability.REACHABLE,
          });
          tx.update("node", { ...node, managerStatus });
        } else if (last?.leader) {
          tx.update("node", { ...node, managerStatus: { ...last, leader: false } });
        }
      }
    });
  }
}

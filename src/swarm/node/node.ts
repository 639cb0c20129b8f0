/**
 * This host's part in a swarm: none, joining, or member. Start reading here.
 */
import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import { Emitter, Mutex } from "../../base/async.ts";
import { type Clock, sleep, systemClock } from "../../base/clock.ts";
import { messageOf, SkeinError, unavailable } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { forgetUnlockKey, Locked, unlockKeys } from "../ca/files.ts";
import { invalidUnlockKey, parseUnlockKey } from "../ca/seal.ts";
import { parseToken } from "../ca/token.ts";
import type { Manager } from "../manager/types.ts";
import type { ControlApi, Executor, InitRequest, JoinRequest, LocalNode, SwarmNode } from "../types.ts";
import { type HostPort, sourceAddressTo } from "./addresses.ts";
import { enrol } from "./enrol.ts";
import { NodeIdentity } from "./identity.ts";
import { Member } from "./member.ts";
import * as messages from "./messages.ts";
import { type ManagerFactory, type ManagerStart, managerCounts, ownManagers, startOwnManager } from "./own-manager.ts";
import { inactive, localNode, type Phase } from "./phase.ts";
import { checkNewCluster, stateOfInit, stateOfJoin } from "./requests.ts";
import { clearState, type NodeState, readState, writeState } from "./state-file.ts";

/** How long `init` and `join` wait for the first registration. */
const registrationMs = 20_000;
/** Removing the tasks of a node that leaves takes no longer than this. */
const leaveMs = 30_000;
/** A manager that leaves waits this long for the others to take it out of their number. */
const resignMs = 6_000;
/** The managers need not hear that this node leaves. */
const goodbyeMs = 1_000;
/** Looks at the clock so often while this node's certificate is over by it. */
const CLOCK_LOOK_MS = 2_000;
/** A member that could not start tries again after this, doubling. */
const comeBackMs = { first: 200, max: 30_000 };

export interface SwarmNodeOptions {
  /** Everything that a membership leaves on disk; removed on leaving. */
  readonly stateDir: string;
  readonly executor: Executor;
  readonly log: Logger;
  readonly clock?: Clock;
  /** Uniform in [0,1). */
  readonly random?: () => number;
  /** Default: Skein's own. */
  readonly managers?: ManagerFactory;
  /** This host's address towards another; default: the kernel's choice of route. */
  readonly sourceAddressTo?: (remote: HostPort) => Promise<string>;
}

export function createSwarmNode(options: SwarmNodeOptions): SwarmNode {
  return new HostNode(options);
}

class HostNode implements SwarmNode {
  #options: Required<SwarmNodeOptions>;
  #phase: Phase = inactive;
  #state: NodeState | undefined;
  /** Found at the start: nobody will talk to this node any more. */
  #expired = false;
  /** Ends the wait for another clock. */
  #stopWatching: () => void = () => {};
  #changes = new Emitter<LocalNode>();
  #mutex = new Mutex();

  constructor(options: SwarmNodeOptions) {
    this.#options = {
      clock: systemClock,
      random: Math.random,
      sourceAddressTo,
      managers: ownManagers,
      ...options,
    };
  }

  local(): LocalNode {
    return localNode(this.#phase, this.#state, this.#options.clock.now());
  }

  onChange(listener: (local: LocalNode) => void): () => void {
    return this.#changes.on(listener);
  }

  restore(): Promise<void> {
    return this.#mutex.run(async () => {
      const { log, stateDir } = this.#options;
      try {
        const state = readState(stateDir);
        if (!state) {
          await this.#options.executor.left?.();
          return;
        }
        this.#state = state;
        const identity = NodeIdentity.read(stateDir);
        this.#expired = identity?.expired(this.#options.clock.now()) ?? false;
        if (this.#expired) {
          this.#watchClock();
          throw messages.certificatesExpired();
        }
        if (identity) await this.#comeBack(identity, state);
        else if (state.join) this.#startJoin(state, true);
        else this.#set({ kind: "inactive", error: "the node's certificate is missing" });
      } catch (error) {
        if (error instanceof Locked) {
          log.warn("this manager is locked: it waits for its unlock key");
          this.#set({ kind: "locked" });
          return;
        }
        log.error("this node's part in the swarm could not be restored", { error });
        this.#set({ kind: "inactive", error: messageOf(error) });
      }
    });
  }

  init(request: InitRequest): Promise<string> {
    return this.#mutex.run(async () => {
      const { clock, managers, stateDir } = this.#options;
      const old = this.#phase.kind === "member" ? this.#phase.member : undefined;
      const forced = request.forceNewCluster && old?.manager !== undefined;
      if (this.#isTaken() && !forced) throw messages.alreadyInSwarm();
      checkNewCluster(request.spec);
      const state = stateOfInit(request);
      if (forced) await old?.close();
      else clearState(stateDir);
      try {
        if (!forced) await managers.bootstrapCluster(stateDir, clock);
        const identity = NodeIdentity.read(stateDir);
        if (!identity) throw new SkeinError("internal", "the new swarm's certificates are missing");
        writeState(stateDir, state);
        const member = await this.#startMember(identity, state, { restored: false, init: request });
        await limited(clock, registrationMs, member.agent.registered, () => {
          throw new SkeinError("internal", "Timeout was reached before the new swarm's first node was ready", {
            cause: member.agent.lastError,
          });
        });
        return member.identity.nodeId;
      } catch (error) {
        // A swarm that could not be begun leaves nothing; one that was forced anew is not thrown away.
        if (!forced) await this.#abandon();
        throw error;
      }
    });
  }

  async join(request: JoinRequest): Promise<void> {
    const { joined } = await this.#mutex.run(async () => {
      if (this.#isTaken()) throw messages.alreadyInSwarm();
      parseToken(request.joinToken);
      const state = await stateOfJoin(request, this.#options.sourceAddressTo);
      clearState(this.#options.stateDir);
      // In an object: the join itself must not hold the mutex.
      return { joined: this.#startJoin(state, false) };
    });
    await limited(this.#options.clock, registrationMs, joined, () => {
      throw messages.joinTimeout();
    });
  }

  leave(force: boolean): Promise<void> {
    return this.#mutex.run(async () => {
      const { clock, log } = this.#options;
      const phase = this.#phase;
      if (phase.kind === "inactive" && phase.error === "" && !this.#state) throw messages.notInSwarm();
      if (phase.kind === "locked" && !force) throw messages.leavingLocked();
      if (phase.kind === "pending") {
        phase.abort.abort(new Error("the node leaves the swarm"));
        await phase.done.catch(() => {});
      }
      if (phase.kind === "member") {
        const { manager } = phase.member;
        if (manager && !force) throw messages.leavingManager(manager.refusal() ? undefined : managerCounts(manager));
        // The others go on without this one, instead of counting on it.
        await manager
          ?.resign(resignMs)
          .catch((error) => log.warn("leaving without the other managers' consent", { error }));
        await limited(clock, leaveMs, phase.member.agent.removeTasks(), () =>
          log.warn("some tasks are not removed in time"),
        );
        await phase.member.sayGoodbye(goodbyeMs).catch((error) => log.debug("leaving without a word", { error }));
      }
      await this.#abandon();
    });
  }

  unlock(key: string): Promise<void> {
    return this.#mutex.run(async () => {
      if (this.#phase.kind === "inactive") throw messages.notInSwarm();
      const { stateDir } = this.#options;
      if (this.#phase.kind !== "locked" || !this.#state) throw messages.notLocked();
      if (!unlockKeys(stateDir, parseUnlockKey(key))) throw invalidUnlockKey();
      const identity = NodeIdentity.read(stateDir);
      if (!identity) throw new SkeinError("internal", "the node's certificate is missing");
      this.#expired = identity.expired(this.#options.clock.now());
      if (this.#expired) throw messages.certificatesExpired();
      await this.#comeBack(identity, this.#state);
    });
  }

  control(): ControlApi {
    if (this.#phase.kind === "locked") throw messages.locked();
    if (this.#phase.kind !== "member") {
      if (this.#phase.kind === "inactive" && this.#expired) throw messages.certificatesExpired();
      throw this.#state?.manager ? messages.managerNotReady() : messages.notManager();
    }
    const { manager } = this.#phase.member;
    if (!manager) throw messages.notManagerButWorker();
    const refusal = manager.refusal();
    if (refusal) throw refusal;
    return manager.control;
  }

  async attachNetwork(request: {
    target: string;
    addresses: string[];
    containerId: string;
    signal?: AbortSignal;
  }): Promise<{ attachmentId: string; task: Task }> {
    return this.#agent("invalid cluster node while attaching to network").attachNetwork(request);
  }

  async detachNetwork(attachmentId: string): Promise<void> {
    // A node that left has nothing to give back.
    if (this.#phase.kind === "member") await this.#phase.member.agent.detachNetwork(attachmentId);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopWatching();
    const phase = this.#phase;
    if (phase.kind === "pending") {
      phase.abort.abort(new Error("the daemon stops"));
      await phase.done.catch(() => {});
    }
    await this.#mutex.run(async () => {
      if (this.#phase.kind === "member") await this.#phase.member.close();
      this.#phase = inactive;
      forgetUnlockKey(this.#options.stateDir);
    });
  }

  /** In a swarm, or in one that cannot be taken up: what is on disk of it may be all that there is. */
  #isTaken(): boolean {
    return this.#phase.kind !== "inactive" || this.#phase.error !== "";
  }

  /** A host without a clock of its own starts at some date until somebody tells it: then it begins again. */
  #watchClock(): void {
    const { clock, log } = this.#options;
    this.#stopWatching();
    this.#stopWatching = clock.every(CLOCK_LOOK_MS, () => {
      if (NodeIdentity.read(this.#options.stateDir)?.expired(clock.now()) !== false) return;
      this.#stopWatching();
      log.info("the clock was set: this node's certificate is good");
      void this.restore();
    });
  }

  #agent(otherwise: string) {
    if (this.#phase.kind !== "member") throw unavailable(otherwise);
    return this.#phase.member.agent;
  }

  #set(phase: Phase): void {
    this.#phase = phase;
    this.#changes.emit(this.local());
  }

  /**
   * Joins in the background; the promise is for whoever waits. A failure before anybody was told to wait in the
   * background undoes the join, as dockerd does; later ones are tried again.
   */
  #startJoin(state: NodeState, patient: boolean): Promise<void> {
    const { clock, log, random, stateDir } = this.#options;
    const abort = new AbortController();
    const phase: Phase & { kind: "pending" } = { kind: "pending", abort, error: "", done: Promise.resolve() };
    this.#state = state;
    const join = async () => {
      const began = clock.steady();
      const enrolled = await enrol(stateDir, state, {
        clock,
        log,
        random,
        signal: abort.signal,
        giveUp: () => !patient && clock.steady() - began < registrationMs,
        onFailure: (error) => {
          phase.error = messageOf(error);
          if (this.#phase === phase) this.#changes.emit(this.local());
        },
      });
      this.#state = enrolled.state;
      const how = { restored: false, signal: abort.signal };
      return this.#startMember(enrolled.identity, enrolled.state, how);
    };
    const done = join().then(
      (member) => member.agent.registered,
      async (error) => {
        if (!abort.signal.aborted) {
          log.warn("joining the swarm failed", { error });
          await this.#abandon();
        }
        throw error;
      },
    );
    phase.done = done.then(() => {});
    phase.done.catch(() => {});
    this.#set(phase);
    return done;
  }

  /**
   * Becomes a member again, after a restart or after its manager failed. What hinders that may pass (a port in use,
   * a store without quorum): the first attempt is waited for, the others go on in the background.
   */
  async #comeBack(identity: NodeIdentity, state: NodeState): Promise<void> {
    const { clock, log } = this.#options;
    const abort = new AbortController();
    const phase: Phase & { kind: "pending" } = { kind: "pending", abort, error: "", done: Promise.resolve() };
    this.#state = state;
    const once = async () => {
      try {
        await this.#startMember(identity, state, { restored: true, signal: abort.signal });
        return true;
      } catch (error) {
        log.error("this node could not take up its part in the swarm", { error });
        phase.error = messageOf(error);
        if (!abort.signal.aborted) this.#set(phase);
        return false;
      }
    };
    if (await once()) return;
    const again = async () => {
      let wait = comeBackMs.first;
      do {
        await sleep(clock, wait, abort.signal);
        wait = Math.min(2 * wait, comeBackMs.max);
      } while (!(await once()));
    };
    phase.done = again();
    phase.done.catch(() => {});
  }

  /** The manager of this node cannot serve any more: begins again from what is on disk. */
  #onManagerFailed(member: Member, error: unknown): Promise<void> {
    this.#options.log.error("the manager on this node failed", { error });
    return this.#mutex.run(async () => {
      if (this.#phase.kind !== "member" || this.#phase.member !== member || !this.#state) return;
      await member.close();
      await this.#comeBack(member.identity, this.#state);
    });
  }

  async #startMember(
    identity: NodeIdentity,
    state: NodeState,
    how: { restored: boolean; init?: InitRequest; signal?: AbortSignal },
  ): Promise<Member> {
    const { clock, executor, log, random, stateDir } = this.#options;
    this.#state = state;
    const remotes = () => state.remotes.map(({ addr }) => addr);
    const { init, signal } = how;
    const manager = state.manager ? await this.#startManager(state, { init, remotes, signal }) : undefined;
    if (how.signal?.aborted) {
      await manager?.close();
      throw how.signal.reason;
    }
    const member = new Member({
      stateDir,
      identity,
      remotes: state.remotes,
      manager,
      startManager: (known, given) => this.#startManager(this.#state ?? state, { remotes: known, signal: given }),
      onRole: (current) => this.#onRole(member, current),
      executor,
      clock,
      log: log.with({ node: identity.nodeId }),
      random,
      onChange: () => this.#onMemberChange(member),
    });
    const phase: Phase & { kind: "member" } = { kind: "member", member, settled: how.restored };
    this.#set(phase);
    try {
      await member.start();
    } catch (error) {
      await member.close();
      throw error;
    }
    void member.agent.registered.then(() => {
      phase.settled = true;
      if (this.#phase === phase) this.#changes.emit(this.local());
    });
    this.#watchManager(member, manager);
    return member;
  }

  #watchManager(member: Member, manager: Manager | undefined): void {
    manager?.failed.catch((error) => this.#onManagerFailed(member, error));
    manager?.onChange(() => {
      if (this.#phase.kind === "member" && this.#phase.member === member) this.#changes.emit(this.local());
    });
  }

  /** The node was promoted or demoted, and is a manager or not from now on. */
  #onRole(member: Member, manager: Manager | undefined): void {
    if (this.#phase.kind !== "member" || this.#phase.member !== member || !this.#state) return;
    this.#keep({ ...this.#state, manager: manager !== undefined });
    this.#watchManager(member, manager);
    this.#changes.emit(this.local());
  }

  #startManager(state: NodeState, how: ManagerStart): Promise<Manager> {
    return startOwnManager(this.#options, state, how);
  }

  #onMemberChange(member: Member): void {
    if (this.#phase.kind !== "member" || this.#phase.member !== member || !this.#state) return;
    this.#keep({ ...this.#state, remotes: member.remotes.peers() });
    this.#changes.emit(this.local());
  }

  /** A full disk does not end a session: what is new is written with the next change. */
  #keep(state: NodeState): void {
    this.#state = state;
    try {
      writeState(this.#options.stateDir, state);
    } catch (error) {
      this.#options.log.warn("this host's place in the swarm is not on disk", { error });
    }
  }

  /** Ends the membership and forgets it. */
  async #abandon(): Promise<void> {
    const phase = this.#phase;
    if (phase.kind === "member") await phase.member.close();
    const { executor, log, stateDir } = this.#options;
    this.#stopWatching();
    clearState(stateDir);
    forgetUnlockKey(stateDir);
    this.#state = undefined;
    this.#expired = false;
    await executor.left?.().catch((error) => log.error("this host is not yet clean of its swarm", { error }));
    this.#set(inactive);
  }
}

/** Waits for `promise` no longer than `ms`, then does what `late` says. */
async function limited(clock: Clock, ms: number, promise: Promise<unknown>, late: () => void): Promise<void> {
  const done = new AbortController();
  const timer = sleep(clock, ms, done.signal).then(late);
  timer.catch(() => {});
  await Promise.race([promise, timer]).finally(() => done.abort());
}

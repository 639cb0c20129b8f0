/**
 * This host's part in a swarm: none, joining, or member. Start reading here.
 */
import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import { Emitter, Mutex } from "../../base/async.ts";
import { type Clock, sleep, systemClock } from "../../base/clock.ts";
import { messageOf, notImplemented, SkeinError, unavailable } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { hostOf } from "../agent/host-updates.ts";
import type { BootstrapCluster, Manager, StartManager } from "../manager/types.ts";
import type { ControlApi, Executor, InitRequest, JoinRequest, LocalNode, SwarmNode } from "../types.ts";
import { defaultPort, formatHostPort, type HostPort, parseHostPort, sourceAddressTo } from "./addresses.ts";
import { enrol } from "./enrol.ts";
import { NodeIdentity } from "./identity.ts";
import { Member } from "./member.ts";
import * as messages from "./messages.ts";
import { clearState, type NodeState, readState, writeState } from "./state-file.ts";

/** How long `init` and `join` wait for the first registration. */
const registrationMs = 20_000;
/** Removing the tasks of a node that leaves takes no longer than this. */
const leaveMs = 30_000;

/** Where managers come from; given from outside so that this room's tests need none. */
export interface ManagerFactory {
  readonly bootstrapCluster: BootstrapCluster;
  readonly startManager: StartManager;
}

export interface SwarmNodeOptions {
  /** Everything that a membership leaves on disk; removed on leaving. */
  readonly stateDir: string;
  readonly executor: Executor;
  readonly log: Logger;
  readonly clock?: Clock;
  /** Uniform in [0,1). */
  readonly random?: () => number;
  readonly managers?: ManagerFactory;
  /** This host's address towards another; default: the kernel's choice of route. */
  readonly sourceAddressTo?: (remote: HostPort) => Promise<string>;
}

type Phase =
  | { readonly kind: "inactive"; readonly error: string }
  /** A join, or a restart, under way in the background. */
  | { readonly kind: "pending"; readonly abort: AbortController; error: string; done: Promise<void> }
  /** `settled`: was registered with a manager at least once; from then on it is active, managers or not. */
  | { readonly kind: "member"; readonly member: Member; settled: boolean };

export function createSwarmNode(options: SwarmNodeOptions): SwarmNode {
  return new HostNode(options);
}

const inactive: Phase = { kind: "inactive", error: "" };

class HostNode implements SwarmNode {
  #options: Required<Omit<SwarmNodeOptions, "managers">> & Pick<SwarmNodeOptions, "managers">;
  #phase: Phase = inactive;
  #state: NodeState | undefined;
  #changes = new Emitter<LocalNode>();
  #mutex = new Mutex();

  constructor(options: SwarmNodeOptions) {
    this.#options = { clock: systemClock, random: Math.random, sourceAddressTo, ...options };
  }

  local(): LocalNode {
    const phase = this.#phase;
    const member = phase.kind === "member" ? phase.member : undefined;
    const nodeAddr = this.#state ? hostOf(this.#state.advertiseAddr) : "";
    return {
      state: this.#localState(),
      nodeId: member?.identity.nodeId ?? "",
      clusterId: member?.identity.clusterId ?? "",
      nodeAddr,
      dataPathAddr: this.#state?.dataPathAddr || nodeAddr,
      dataPathPort: member?.agent.node?.VXLANUDPPort || 4789,
      isManager: member?.manager !== undefined,
      error: phase.kind === "member" ? "" : phase.error,
      remoteManagers: member?.remotes.peers() ?? [],
    };
  }

  #localState(): LocalNode["state"] {
    switch (this.#phase.kind) {
      case "inactive":
        return this.#phase.error === "" ? "inactive" : "error";
      case "pending":
        return "pending";
      case "member":
        return this.#phase.settled ? "active" : "pending";
    }
  }

  onChange(listener: (local: LocalNode) => void): () => void {
    return this.#changes.on(listener);
  }

  restore(): Promise<void> {
    return this.#mutex.run(async () => {
      const { log, stateDir } = this.#options;
      try {
        const state = readState(stateDir);
        if (!state) return;
        this.#state = state;
        const identity = NodeIdentity.read(stateDir);
        if (identity) await this.#startMember(identity, state, { restored: true });
        else if (state.join) this.#startJoin(state, true);
        else this.#set({ kind: "inactive", error: "the node's certificate is missing" });
      } catch (error) {
        log.error("this node's part in the swarm could not be restored", { error });
        this.#set({ kind: "inactive", error: messageOf(error) });
      }
    });
  }

  init(request: InitRequest): Promise<string> {
    return this.#mutex.run(async () => {
      const { clock, managers, stateDir } = this.#options;
      if (request.autoLock) throw notImplemented("locking managers (autolock)");
      if (!managers) throw notImplemented("being a manager");
      const old = this.#phase.kind === "member" ? this.#phase.member : undefined;
      const forced = request.forceNewCluster && old?.manager !== undefined;
      if (this.#phase.kind !== "inactive" && !forced) throw messages.alreadyInSwarm();
      const listen = parseHostPort(request.listenAddr || "0.0.0.0");
      const state: NodeState = {
        listenAddr: formatHostPort(listen),
        advertiseAddr: formatHostPort(parseHostPort(request.advertiseAddr, listen.port)),
        dataPathAddr: request.dataPathAddr,
        remotes: [],
      };
      if (forced) await old?.close();
      else clearState(stateDir);
      try {
        if (!forced) await managers.bootstrapCluster(stateDir, clock);
        const identity = NodeIdentity.read(stateDir);
        if (!identity) throw new SkeinError("internal", "the new swarm's certificates are missing");
        writeState(stateDir, state);
        const member = await this.#startMember(identity, state, { restored: false, init: request });
        await this.#registered(member, this.#options.clock);
        return member.identity.nodeId;
      } catch (error) {
        // A swarm that could not be begun leaves nothing; one that was forced anew is not thrown away.
        if (!forced) await this.#abandon();
        throw error;
      }
    });
  }

  async join(request: JoinRequest): Promise<void> {
    const pending = await this.#mutex.run(async () => {
      if (this.#phase.kind !== "inactive") throw messages.alreadyInSwarm();
      const state = await this.#joinState(request);
      clearState(this.#options.stateDir);
      return this.#startJoin(state, false);
    });
    const timeout = new AbortController();
    const late = sleep(this.#options.clock, registrationMs, timeout.signal).then(() => {
      throw messages.joinTimeout();
    });
    late.catch(() => {});
    try {
      await Promise.race([pending, late]);
    } finally {
      timeout.abort();
    }
  }

  leave(force: boolean): Promise<void> {
    return this.#mutex.run(async () => {
      const phase = this.#phase;
      if (phase.kind === "inactive" && phase.error === "" && !this.#state) throw messages.notInSwarm();
      if (phase.kind === "pending") {
        phase.abort.abort(new Error("the node leaves the swarm"));
        await phase.done.catch(() => {});
      }
      if (phase.kind === "member") {
        if (phase.member.manager && !force) throw messages.leavingManager(managerCounts(phase.member.manager.control));
        await this.#removeTasks(phase.member);
      }
      await this.#abandon();
    });
  }

  async unlock(_key: string): Promise<void> {
    if (this.#phase.kind === "inactive") throw messages.notInSwarm();
    throw unavailable("swarm is not locked");
  }

  control(): ControlApi {
    if (this.#phase.kind !== "member") throw messages.notManager();
    const { manager } = this.#phase.member;
    if (!manager) throw messages.notManagerButWorker();
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
    const phase = this.#phase;
    if (phase.kind === "pending") {
      phase.abort.abort(new Error("the daemon stops"));
      await phase.done.catch(() => {});
    }
    await this.#mutex.run(async () => {
      if (this.#phase.kind === "member") await this.#phase.member.close();
      this.#phase = inactive;
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

  async #joinState(request: JoinRequest): Promise<NodeState> {
    const remotes = request.remoteAddrs.map((addr) => parseHostPort(addr, defaultPort));
    const [first] = remotes;
    if (!first) throw new SkeinError("invalid", "at least 1 RemoteAddr is required to join");
    const listen = parseHostPort(request.listenAddr || "0.0.0.0");
    const advertise = request.advertiseAddr
      ? parseHostPort(request.advertiseAddr, listen.port)
      : { host: await this.#options.sourceAddressTo(first), port: listen.port };
    return {
      listenAddr: formatHostPort(listen),
      advertiseAddr: formatHostPort(advertise),
      dataPathAddr: request.dataPathAddr,
      remotes: [],
      join: {
        remoteAddrs: remotes.map(formatHostPort),
        token: request.joinToken,
        availability: request.availability,
      },
    };
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
      const began = clock.now();
      const enrolled = await enrol(stateDir, state, {
        clock,
        log,
        random,
        signal: abort.signal,
        giveUp: () => !patient && clock.now() - began < registrationMs,
        onFailure: (error) => {
          phase.error = messageOf(error);
          if (this.#phase === phase) this.#changes.emit(this.local());
        },
      });
      this.#state = enrolled.state;
      const member = await this.#startMember(enrolled.identity, enrolled.state, { restored: false });
      return member;
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

  async #startMember(
    identity: NodeIdentity,
    state: NodeState,
    how: { restored: boolean; init?: InitRequest },
  ): Promise<Member> {
    const { clock, executor, log, random, stateDir } = this.#options;
    this.#state = state;
    const manager = identity.isManager ? await this.#startManager(state, how.init) : undefined;
    const member = new Member({
      stateDir,
      identity,
      remotes: state.remotes,
      manager,
      executor,
      clock,
      log: log.with({ node: identity.nodeId }),
      random,
      onChange: () => this.#onMemberChange(member),
    });
    const phase: Phase & { kind: "member" } = { kind: "member", member, settled: how.restored };
    this.#set(phase);
    await member.start();
    void member.agent.registered.then(() => {
      phase.settled = true;
      if (this.#phase === phase) this.#changes.emit(this.local());
    });
    manager?.failed.catch((error) => log.error("the manager on this node failed", { error }));
    return member;
  }

  #startManager(state: NodeState, init: InitRequest | undefined): Promise<Manager> {
    const { clock, log, managers, stateDir } = this.#options;
    if (!managers) throw notImplemented("being a manager");
    return managers.startManager({
      stateDir,
      listenAddr: state.listenAddr,
      advertiseAddr: state.advertiseAddr,
      ...(init ? { bootstrap: { ...init, clusterSpec: init.spec } } : {}),
      log,
      clock,
    });
  }

  #onMemberChange(member: Member): void {
    if (this.#phase.kind !== "member" || this.#phase.member !== member || !this.#state) return;
    this.#state = { ...this.#state, remotes: member.remotes.peers() };
    writeState(this.#options.stateDir, this.#state);
    this.#changes.emit(this.local());
  }

  async #registered(member: Member, clock: Clock): Promise<void> {
    const done = new AbortController();
    const late = sleep(clock, registrationMs, done.signal).then(() => {
      throw new SkeinError("internal", "Timeout was reached before the new swarm's first node was ready", {
        cause: member.agent.lastError,
      });
    });
    late.catch(() => {});
    await Promise.race([member.agent.registered, late]).finally(() => done.abort());
  }

  async #removeTasks(member: Member): Promise<void> {
    const { clock, log } = this.#options;
    const done = new AbortController();
    const late = sleep(clock, leaveMs, done.signal).then(() => log.warn("some tasks are still not removed"));
    late.catch(() => {});
    await Promise.race([member.agent.worker.removeAll(), late]).finally(() => done.abort());
  }

  /** Ends the membership and forgets it. */
  async #abandon(): Promise<void> {
    const phase = this.#phase;
    if (phase.kind === "member") await phase.member.close();
    clearState(this.#options.stateDir);
    this.#state = undefined;
    this.#set(inactive);
  }
}

/** Managers that answer and that do not; undefined when this one cannot tell. */
function managerCounts(control: ControlApi): { reachable: number; unreachable: number } | undefined {
  try {
    const managers = control.nodes().flatMap((node) => node.managerStatus ?? []);
    // RaftMemberStatus.Reachability REACHABLE.
    const reachable = managers.filter((status) => status.reachability === 2).length;
    return { reachable, unreachable: managers.length - reachable };
  } catch {
    return undefined;
  }
}

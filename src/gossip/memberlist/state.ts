/**
 * SWIM's state machine, pure: messages and the time go in, actions come out. It holds who is known, in which
 * state and incarnation, and the running suspicions. It sends nothing and owns no timer.
 */
import { addressText } from "./address.ts";
import type { Alive, Dead, Suspect } from "./messages.ts";
import type { Liveness, PushNode } from "./pushpull.ts";
import { Suspicion, suspicionTimeout } from "./suspicion.ts";

/** What is known of a node. Replaced, never changed in place. */
export interface Member {
  readonly name: string;
  readonly address: string;
  readonly addr: Uint8Array;
  readonly port: number;
  readonly meta: Uint8Array;
  /** pmin, pmax, pcur, dmin, dmax, dcur. */
  readonly vsn: Uint8Array;
  readonly incarnation: number;
  readonly state: Liveness;
  /** Clock's milliseconds of the last change of `state`. */
  readonly changedAt: number;
}

export type MemberChange = "join" | "alive" | "suspect" | "failed" | "left";

export type Action =
  /** Gossip this; it replaces what is queued about the same node. */
  | { readonly kind: "broadcast"; readonly message: Alive | Suspect | Dead }
  | { readonly kind: "changed"; readonly change: MemberChange; readonly member: Member }
  /** We had to defend ourselves: the local health suffers. `dead`: others have already given us up. */
  | { readonly kind: "accused"; readonly dead: boolean }
  | { readonly kind: "ignored"; readonly reason: "badVersion" | "badIncarnation" | "badAddress" | "conflict" | "full" };

export interface StateOptions {
  readonly name: string;
  readonly suspicionMult: number;
  readonly suspicionMaxMult: number;
  readonly suspicionUnitMs: number;
  readonly maxMembers: number;
}

/** Who calls for a push/pull: from where, and whom it knows. */
export interface Caller {
  readonly address: string;
  readonly nodes: readonly PushNode[];
}

/** A legitimate incarnation grows by one per refutation; beyond such a jump it is refused. */
const maxIncarnationJump = 1 << 24;

export class MemberState {
  readonly #options: StateOptions;
  readonly #members = new Map<string, Member>();
  readonly #suspicions = new Map<string, Suspicion>();
  #leaving = false;

  constructor(options: StateOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#members.size;
  }

  get(name: string): Member | undefined {
    return this.#members.get(name);
  }

  all(): Member[] {
    return [...this.#members.values()];
  }

  /**
   * Everybody, for the answer to a push/pull, but whom we still believe alive at the caller's own address under a name
   * that it does not know. The caller was restarted and took that one's place; Docker's networkdb, told of its former
   * life, takes itself for the one that is gone, and its engine waits for itself for half a minute.
   */
  known(caller: Caller): Member[] {
    const names = new Set(caller.nodes.map((node) => node.name));
    const own = caller.nodes.filter((node) => node.state === "alive" && addressText(node.addr) === caller.address);
    const ports = new Set(own.map((node) => node.port));
    const former = ({ name, state, address, port }: Member) =>
      state === "alive" && address === caller.address && ports.has(port) && !names.has(name);
    return this.all().filter((member) => !former(member));
  }

  /** Puts ourselves in, alive. */
  start(self: Omit<Alive, "kind" | "node" | "incarnation">, now: number): Action[] {
    const message: Alive = { kind: "alive", node: this.#options.name, incarnation: 1, ...self };
    const member = memberOf(message, "alive", now);
    if (!member) throw new RangeError("gossip: bad advertise address");
    this.#members.set(member.name, member);
    return [{ kind: "broadcast", message }];
  }

  alive(message: Alive, now: number): Action[] {
    const { name } = this.#options;
    const known = this.#members.get(message.node);
    if (this.#leaving && message.node === name) return [];
    if (!validVersion(message.vsn)) return [{ kind: "ignored", reason: "badVersion" }];
    if (this.#absurd(message.incarnation, known)) return [{ kind: "ignored", reason: "badIncarnation" }];
    const next = memberOf(message, "alive", now);
    if (!next) return [{ kind: "ignored", reason: "badAddress" }];
    if (known && known.name !== name && moved(known, next) && known.state !== "left") {
      return [{ kind: "ignored", reason: "conflict" }];
    }
    if (message.node === name) return this.#aliveSelf(message, now);
    if (!known && this.#members.size >= this.#options.maxMembers) return [{ kind: "ignored", reason: "full" }];
    // A left node that comes back elsewhere may begin with any incarnation.
    const reclaimed = known?.state === "left" && moved(known, next);
    if (message.incarnation <= (known?.incarnation ?? 0) && !reclaimed) return [];
    this.#suspicions.delete(message.node);
    const member = known?.state === "alive" ? { ...next, changedAt: known.changedAt } : next;
    this.#members.set(member.name, member);
    const actions: Action[] = [{ kind: "broadcast", message }];
    if (!known || known.state === "dead" || known.state === "left") {
      actions.push({ kind: "changed", change: "join", member });
    } else if (known.state === "suspect") {
      actions.push({ kind: "changed", change: "alive", member });
    }
    return actions;
  }

  suspect(message: Suspect, now: number): Action[] {
    const known = this.#members.get(message.node);
    if (!known || message.incarnation < known.incarnation) return [];
    if (this.#absurd(message.incarnation, known)) return [{ kind: "ignored", reason: "badIncarnation" }];
    const running = this.#suspicions.get(message.node);
    if (running) return running.confirm(message.from) ? [{ kind: "broadcast", message }] : [];
    if (known.state !== "alive") return [];
    if (message.node === this.#options.name) return this.#refute(message.incarnation);
    const member: Member = { ...known, incarnation: message.incarnation, state: "suspect", changedAt: now };
    this.#members.set(member.name, member);
    this.#suspicions.set(member.name, this.#newSuspicion(message.from, now));
    return [
      { kind: "broadcast", message },
      { kind: "changed", change: "suspect", member },
    ];
  }

  dead(message: Dead, now: number): Action[] {
    const known = this.#members.get(message.node);
    if (!known || message.incarnation < known.incarnation) return [];
    if (this.#absurd(message.incarnation, known)) return [{ kind: "ignored", reason: "badIncarnation" }];
    if (known.state === "dead" || known.state === "left") return [];
    if (message.node === this.#options.name && !this.#leaving) {
      return this.#refute(message.incarnation, true);
    }
    this.#suspicions.delete(message.node);
    const state = message.node === message.from ? "left" : "dead";
    const member: Member = { ...known, incarnation: message.incarnation, state, changedAt: now };
    this.#members.set(member.name, member);
    return [
      { kind: "broadcast", message },
      { kind: "changed", change: state === "left" ? "left" : "failed", member },
    ];
  }

  /** Another node's view of everybody. Its dead are only suspected here: they get the chance to refute. */
  merge(nodes: readonly PushNode[], now: number): Action[] {
    return nodes.flatMap((node) => this.#mergeOne(node, now));
  }

  /** A probe of this node went unanswered. */
  unanswered(target: Member, now: number): Action[] {
    const from = this.#options.name;
    return this.suspect({ kind: "suspect", node: target.name, incarnation: target.incarnation, from }, now);
  }

  /** Announces our own departure. */
  leave(now: number): Action[] {
    this.#leaving = true;
    const self = this.#members.get(this.#options.name);
    if (!self) return [];
    return this.dead({ kind: "dead", node: self.name, incarnation: self.incarnation, from: self.name }, now);
  }

  /** Declares dead whose time is up. */
  tick(now: number): Action[] {
    const actions: Action[] = [];
    for (const [name, suspicion] of [...this.#suspicions]) {
      const member = this.#members.get(name);
      if (suspicion.deadline > now || !member) continue;
      const { incarnation } = member;
      actions.push(...this.dead({ kind: "dead", node: name, incarnation, from: this.#options.name }, now));
    }
    return actions;
  }

  /** When `tick` has something to do, if ever. */
  nextDeadline(): number | undefined {
    let next: number | undefined;
    for (const { deadline } of this.#suspicions.values()) {
      if (next === undefined || deadline < next) next = deadline;
    }
    return next;
  }

  /** Forgets who has been dead or gone for longer than `ageMs`. */
  forget(ageMs: number, now: number): void {
    for (const member of this.all()) {
      const gone = member.state === "dead" || member.state === "left";
      if (gone && now - member.changedAt > ageMs && member.name !== this.#options.name) {
        this.#members.delete(member.name);
      }
    }
  }

  #mergeOne(node: PushNode, now: number): Action[] {
    const { name, incarnation } = node;
    switch (node.state) {
      case "alive":
        return this.alive({ kind: "alive", node: name, ...node }, now);
      case "left":
        return this.dead({ kind: "dead", node: name, incarnation, from: name }, now);
      case "dead":
        if (name === this.#options.name && !this.#leaving) return this.#takenForDead(incarnation);
        return this.suspect({ kind: "suspect", node: name, incarnation, from: this.#options.name }, now);
      case "suspect":
        return this.suspect({ kind: "suspect", node: name, incarnation, from: this.#options.name }, now);
    }
  }

  #aliveSelf(message: Alive, now: number): Action[] {
    const self = this.#members.get(this.#options.name);
    if (!self || message.incarnation < self.incarnation) return [];
    const other = memberOf(message, "alive", now);
    const same =
      message.incarnation === self.incarnation &&
      other !== undefined &&
      !moved(self, other) &&
      Buffer.compare(message.meta, self.meta) === 0 &&
      Buffer.compare(message.vsn, self.vsn) === 0;
    return same ? [] : this.#refute(message.incarnation);
  }

  /** Another node has given us up. Even where our incarnation proves it wrong, it has forgotten what we had. */
  #takenForDead(accused: number): Action[] {
    const self = this.#members.get(this.#options.name);
    if (self && accused < self.incarnation) return [{ kind: "accused", dead: true }];
    return this.#absurd(accused, self) ? [{ kind: "ignored", reason: "badIncarnation" }] : this.#refute(accused, true);
  }

  #refute(accused: number, dead = false): Action[] {
    const self = this.#members.get(this.#options.name);
    if (!self) return [];
    const member: Member = { ...self, incarnation: Math.max(self.incarnation, accused) + 1 };
    this.#members.set(member.name, member);
    return [
      { kind: "accused", dead },
      { kind: "broadcast", message: aliveOf(member) },
    ];
  }

  #newSuspicion(from: string, now: number): Suspicion {
    const { suspicionMult, suspicionMaxMult, suspicionUnitMs } = this.#options;
    const nodes = this.#members.size;
    const wanted = nodes - 2 < suspicionMult - 2 ? 0 : suspicionMult - 2;
    const min = suspicionTimeout(suspicionMult, nodes, suspicionUnitMs);
    return new Suspicion(from, wanted, min, suspicionMaxMult * min, now);
  }

  #absurd(incarnation: number, known: Member | undefined): boolean {
    return incarnation > (known?.incarnation ?? 0x7fffffff - maxIncarnationJump) + maxIncarnationJump;
  }
}

/** Not known to be gone: suspects have their chance. */
export function isLive(member: Member): boolean {
  return member.state === "alive" || member.state === "suspect";
}

/** A member as an alive message. */
function aliveOf(member: Member): Alive {
  const { name: node, incarnation, addr, port, meta, vsn } = member;
  return { kind: "alive", node, incarnation, addr, port, meta, vsn };
}

function memberOf(message: Alive, state: Liveness, now: number): Member | undefined {
  const address = addressText(message.addr);
  if (address === undefined || message.port === 0 || message.node === "") return undefined;
  // Copies: a view would keep the whole packet, or push/pull, in memory.
  return {
    name: message.node,
    address,
    addr: Uint8Array.from(message.addr),
    port: message.port,
    meta: Uint8Array.from(message.meta),
    vsn: Uint8Array.from(message.vsn),
    incarnation: message.incarnation,
    state,
    changedAt: now,
  };
}

function moved(a: Member, b: Member): boolean {
  return a.address !== b.address || a.port !== b.port;
}

/** Lowest and highest protocol version must be there and in order. */
function validVersion(vsn: Uint8Array): boolean {
  const [min, max] = vsn;
  return min !== undefined && max !== undefined && min > 0 && max > 0 && min <= max;
}

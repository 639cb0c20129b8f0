/** Memberlist's two sides: what it is given, and who is built on it. */
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { Transport } from "../types.ts";
import type { MemberlistConfig } from "./config.ts";
import type { Counters } from "./counters.ts";
import type { Keyring } from "./crypto.ts";
import type { Member, MemberChange } from "./state.ts";

/** What is built on memberlist. */
export interface Delegate {
  /** A user message came in, by packet or by stream. */
  message(payload: Buffer): void;
  /** User messages to gossip along, each costing `overhead` bytes beside itself. */
  broadcasts(overhead: number, room: number): Uint8Array[];
  localState(join: boolean): Uint8Array;
  mergeState(state: Buffer): void;
  /** Never about ourselves. */
  changed(change: MemberChange, member: Member): void;
  /** Others had given us up, and forgotten what we had; they are being told that we live. */
  declaredDead(): void;
}

export interface MemberlistOptions {
  readonly name: string;
  readonly advertiseAddress: string;
  readonly advertisePort: number;
  readonly config: MemberlistConfig;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly random: () => number;
  readonly keyring: Keyring;
  readonly counters: Counters;
  readonly log: Logger;
}

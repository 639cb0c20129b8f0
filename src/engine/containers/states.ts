/** The states of a container and the only ways between them. */
import { conflict } from "../../base/errors.ts";

export type Status = "created" | "running" | "paused" | "restarting" | "exited" | "removing" | "dead";
export type Transition =
  | "start"
  | "startFailed"
  | "pause"
  | "unpause"
  | "exit"
  | "exitToRestart"
  | "boot"
  | "cancelRestart"
  | "remove"
  | "removeFailed";

/**
 *   created ──start──▶ running ──exit──▶ exited ──start──▶ running
 *                      │  ▲ ▲ └─exitToRestart─▶ restarting ─start─▶ running
 *                 pause▼  │unpause                   └─cancelRestart─▶ exited
 *                      paused ──exit──▶ exited
 *   exited ──boot──▶ restarting: a restart policy after the daemon's start
 *   any that does not run ──remove──▶ removing ──removeFailed──▶ dead ──remove──▶ removing
 */
export const transitions: Record<Status, Partial<Record<Transition, Status>>> = {
  created: { start: "running", startFailed: "created", remove: "removing" },
  running: { pause: "paused", exit: "exited", exitToRestart: "restarting" },
  paused: { unpause: "running", exit: "exited", exitToRestart: "restarting" },
  restarting: { start: "running", startFailed: "exited", cancelRestart: "exited", remove: "removing" },
  exited: { start: "running", startFailed: "exited", boot: "restarting", remove: "removing" },
  removing: { removeFailed: "dead" },
  dead: { remove: "removing", removeFailed: "dead" },
};

/** The state after `transition`; throws when the table has no such way. */
export function next(status: Status, transition: Transition): Status {
  const to = transitions[status][transition];
  if (to === undefined) throw conflict(`container is ${status}: it cannot ${transition}`);
  return to;
}

/** A process is there (possibly frozen). */
export const isUp = (status: Status): boolean => status === "running" || status === "paused";

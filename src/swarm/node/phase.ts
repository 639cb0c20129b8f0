/** Where this host stands, and how that is shown. */
import { messageOf } from "../../base/errors.ts";
import { hostOf } from "../agent/host-updates.ts";
import type { LocalNode } from "../types.ts";
import type { Member } from "./member.ts";
import * as messages from "./messages.ts";
import type { NodeState } from "./state-file.ts";

/** What Docker's nodes use when the cluster does not say. */
const defaultDataPathPort = 4789;

export type Phase =
  /** In no swarm; or, with an error, in one that cannot be taken up. */
  | { readonly kind: "inactive"; readonly error: string }
  /** A manager whose keys are encrypted, until somebody brings the unlock key. */
  | { readonly kind: "locked" }
  /** A join, or a restart, under way in the background. */
  | { readonly kind: "pending"; readonly abort: AbortController; error: string; done: Promise<void> }
  /** `settled`: was registered with a manager at least once; from then on it is active, managers or not. */
  | { readonly kind: "member"; readonly member: Member; settled: boolean };

export const inactive: Phase = { kind: "inactive", error: "" };

export function localNode(phase: Phase, state: NodeState | undefined, nowMs: number): LocalNode {
  const member = phase.kind === "member" ? phase.member : undefined;
  const nodeAddr = state ? hostOf(state.advertiseAddr) : "";
  return {
    state: stateOf(phase),
    nodeId: member?.identity.nodeId ?? "",
    clusterId: member?.identity.clusterId ?? "",
    nodeAddr,
    dataPathAddr: state?.dataPathAddr || nodeAddr,
    dataPathPort: member?.agent.node?.VXLANUDPPort || defaultDataPathPort,
    isManager: member?.manager !== undefined,
    error: errorOf(phase, nowMs),
    remoteManagers: member?.remotes.peers() ?? [],
  };
}

function stateOf(phase: Phase): LocalNode["state"] {
  switch (phase.kind) {
    case "inactive":
      return phase.error === "" ? "inactive" : "error";
    case "locked":
      return "locked";
    case "pending":
      return "pending";
    case "member":
      return phase.settled ? "active" : "pending";
  }
}

function errorOf(phase: Phase, nowMs: number): string {
  if (phase.kind === "locked") return messages.locked().message;
  if (phase.kind !== "member") return phase.error;
  // Nobody talks to it any more, and what it hears says only that connections fail.
  if (phase.member.identity.expired(nowMs)) return messages.certificatesExpired().message;
  const { lastError } = phase.member.agent;
  return phase.settled || lastError === undefined ? "" : messageOf(lastError);
}

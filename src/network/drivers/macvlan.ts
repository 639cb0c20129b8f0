/** Options of macvlan and ipvlan networks. */
import { invalid, notImplemented } from "../../base/errors.ts";
import type { IpvlanMode, MacvlanMode } from "../plan/types.ts";
import type { NetworkSpec } from "../types.ts";
import { mtuOption } from "./options.ts";

export interface MacvlanOptions {
  /** Device of the host; a dummy of our own when none was named. */
  readonly parent: string;
  readonly ownParent: boolean;
  readonly mode: MacvlanMode;
  readonly mtu: number | undefined;
}

export interface IpvlanOptions {
  readonly parent: string;
  readonly ownParent: boolean;
  readonly mode: IpvlanMode;
  readonly mtu: number | undefined;
}

type Spec = Pick<NetworkSpec, "id" | "options" | "internal">;

function parentOf(spec: Spec): { parent: string; ownParent: boolean } {
  const named = spec.options.parent;
  if (named?.includes(".")) throw notImplemented("VLAN sub-interfaces as parent");
  if (named) {
    if (named === "lo") throw invalid("loopback interface is not a valid macvlan parent link");
    return { parent: named, ownParent: false };
  }
  return { parent: `dm-${spec.id.slice(0, 12)}`, ownParent: true };
}

const mtuOf = (spec: Spec) => {
  const mtu = mtuOption(spec.options, 0);
  return mtu === 0 ? undefined : mtu;
};

export function parseMacvlan(spec: Spec): MacvlanOptions {
  const mode = spec.options.macvlan_mode || "bridge";
  if (mode !== "bridge" && mode !== "private" && mode !== "vepa" && mode !== "passthru") {
    throw invalid(`requested macvlan mode '${mode}' is not valid, 'bridge' mode is the macvlan driver default`);
  }
  return { ...parentOf(spec), mode, mtu: mtuOf(spec) };
}

export function parseIpvlan(spec: Spec): IpvlanOptions {
  const mode = spec.options.ipvlan_mode || "l2";
  if (mode !== "l2" && mode !== "l3" && mode !== "l3s") {
    throw invalid(`requested ipvlan mode '${mode}' is not valid, 'l2' mode is the ipvlan driver default`);
  }
  if (spec.options.ipvlan_flag && spec.options.ipvlan_flag !== "bridge") {
    throw notImplemented(`ipvlan_flag=${spec.options.ipvlan_flag}`);
  }
  return { ...parentOf(spec), mode, mtu: mtuOf(spec) };
}

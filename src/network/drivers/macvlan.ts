/** Options of macvlan and ipvlan networks. */
import { invalid, notImplemented } from "../../base/errors.ts";
import type { IpvlanMode, MacvlanMode } from "../plan/types.ts";
import type { NetworkSpec } from "../types.ts";
import { mtuOption } from "./options.ts";

/** The host's device below the containers': one that was named, a VLAN of one, or a dummy of our own. */
export type Parent =
  | { readonly kind: "device"; readonly name: string }
  /** "eth0.10"; made by us unless the host has it. */
  | { readonly kind: "vlan"; readonly name: string; readonly lower: string; readonly id: number }
  | { readonly kind: "dummy"; readonly name: string };

export interface MacvlanOptions {
  readonly parent: Parent;
  readonly mode: MacvlanMode;
  readonly mtu: number | undefined;
}

export interface IpvlanOptions {
  readonly parent: Parent;
  readonly mode: IpvlanMode;
  readonly mtu: number | undefined;
}

type Spec = Pick<NetworkSpec, "id" | "options" | "internal">;

function parentOf(spec: Spec): { parent: Parent } {
  const name = spec.options.parent;
  if (!name) return { parent: { kind: "dummy", name: `dm-${spec.id.slice(0, 12)}` } };
  if (name === "lo") throw invalid("loopback interface is not a valid macvlan parent link");
  const dot = name.lastIndexOf(".");
  if (dot < 0) return { parent: { kind: "device", name } };
  const id = Number(name.slice(dot + 1));
  if (!/^\d{1,4}$/.test(name.slice(dot + 1)) || id < 1 || id > 4094 || dot === 0 || name.length > 15) {
    throw invalid(`failed to parse ${name}: vlan must be in the form parent.id, with an id from 1 to 4094`);
  }
  return { parent: { kind: "vlan", name, lower: name.slice(0, dot), id } };
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

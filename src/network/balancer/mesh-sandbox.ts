/**
 * The routing mesh, second station: ingress_sbox. Table `ip skein-mesh`.
 *
 * 1. From docker_gwbridge, to this sandbox's address, port P. nat `prerouting`: one of the service's tasks at random,
 *    by its ingress address, port P kept: so do real Docker nodes, and so do tasks expect it. A port without tasks
 *    refuses.
 * 2. Over the ingress network to the task, here or on another host (mesh-task.ts). The client's address is kept,
 *    with two exceptions that get this sandbox's own:
 *    - tasks whose node cannot send answers back through the entry node (`hidden`: real Docker nodes);
 *    - sources on docker_gwbridge, an address that every host has.
 *    Overlay packets are smaller than others: `clamping` tells both ends of TCP connections.
 * 3. The answer arrives here, is translated back and leaves by the default route, docker_gwbridge.
 */
import type { PlannedTable } from "../plan/table.ts";
import {
  baseChain,
  body,
  CLAMP_MSS,
  chain,
  DSTNAT,
  dnatToOneOf,
  MANGLE,
  namedMap,
  namedSet,
  portChain,
  quoted,
  REFUSAL,
  SRCNAT,
  toPortChain,
} from "./text.ts";
import type { MeshPort, MeshSandbox } from "./types.ts";

const rulesOf = ({ backends }: MeshPort): string[] =>
  backends.length > 0 ? [dnatToOneOf(backends.map(({ address }) => address))] : REFUSAL;

export function meshSandboxTable(state: MeshSandbox): PlannedTable {
  const hidden = new Set(
    state.ports.flatMap(({ backends }) => backends.filter((one) => !one.returnsToEntry).map((one) => one.address)),
  );
  const out = `oifname ${quoted(state.ingressDevice)}`;
  return {
    family: "ip",
    name: "skein-mesh",
    body: body(
      namedMap("services", "inet_proto . inet_service : verdict", state.ports.map(toPortChain)),
      namedSet("hidden", "ipv4_addr", [...hidden]),
      ...state.ports.map((port) => chain(portChain(port), rulesOf(port))),
      baseChain("prerouting", "nat", "prerouting", DSTNAT, [
        `iifname ${quoted(state.gatewayDevice)} fib daddr type local meta l4proto . th dport vmap @services`,
      ]),
      baseChain("clamping", "filter", "forward", MANGLE, [CLAMP_MSS]),
      baseChain("postrouting", "nat", "postrouting", SRCNAT, [
        `${out} ip saddr ${state.gatewaySubnet} snat to ${state.ingressAddress}`,
        `${out} ip daddr @hidden snat to ${state.ingressAddress}`,
      ]),
    ),
  };
}

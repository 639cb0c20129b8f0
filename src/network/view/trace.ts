/**
 * The way of a packet from a container of this host to a name or an address, step by step, out of what is planned, told
 * and in the kernel. No packet is sent: what is wrong on other hosts or between them is not seen from here. Pure.
 */
import { contains, parseCidr, parseIp, plainIp } from "../address.ts";
import type { EndpointState, SandboxState } from "../state.ts";
import type { Backend, NetworkLook, ServiceLook, Trace, TraceStep } from "./types.ts";

export interface TraceInputs {
  readonly sandbox: SandboxState;
  /** What the sandbox is called. */
  readonly from: string;
  readonly networks: readonly NetworkLook[];
  readonly services: readonly ServiceLook[];
  /** Addresses as the sandbox's resolver gives them; undefined for names that no network of its knows. */
  readonly resolve: (name: string) => readonly string[] | undefined;
  /** The gateway of the default route and its network, where there is a way out. */
  readonly wayOut: { readonly gateway: string; readonly ifName: string; readonly network: string } | undefined;
}

interface Way {
  readonly steps: TraceStep[];
  readonly reaches: boolean;
}

export function trace(to: string, inputs: TraceInputs): Trace {
  const { from, sandbox } = inputs;
  const common: TraceStep[] = [];
  const result = (ways: Trace["ways"]): Trace => ({ from, to, steps: common, ways });
  const step = (what: string, ok = true) => common.push({ where: from, what, ok });
  if (!sandbox.path) {
    step("uses the host's own network: its routes decide");
    return result([]);
  }
  let addresses: readonly string[] = [to];
  if (!parseIp(to)) {
    const found = inputs.resolve(to);
    if (!found || found.length === 0) {
      step(`no network of the container knows ${to}: outside servers are asked, where there are any`, false);
      return result([]);
    }
    addresses = found;
    step(`127.0.0.11: ${to} is ${found.join(", ")}`);
  }
  const ways = addresses.flatMap((address): Trace["ways"] => {
    const called = serviceAt(address, inputs);
    if (!called) return [{ address, share: 1 / addresses.length, ...wayTo(address, inputs) }];
    const { service, backends } = called;
    const serving = backends.filter(({ state }) => state === "serving");
    const choice =
      serving.length === 0 ? "no task serves: refused" : `DNAT to one of ${serving.length}, chosen at random`;
    step(
      `nft ${address.includes(":") ? "ip6" : "ip"} skein-vips: ${address} is the VIP of ${service.name}, ${choice}`,
      serving.length > 0,
    );
    return serving.map((one) => {
      const at = address.includes(":") ? one.address6 : one.address;
      return { address: at, share: one.share, ...wayTo(at, inputs) };
    });
  });
  return result(ways);
}

/** The service that has this VIP on a network of the sandbox. */
function serviceAt(
  address: string,
  { sandbox, services }: TraceInputs,
): { service: ServiceLook; backends: readonly Backend[] } | undefined {
  const on = new Set(sandbox.endpoints.map(({ networkId }) => networkId));
  for (const service of services) {
    const network = service.networks.find(
      ({ networkId, vip, vip6, ingress }) => [vip, vip6].includes(address) && !ingress && on.has(networkId),
    );
    if (network) return { service, backends: network.backends };
  }
  return undefined;
}

function wayTo(address: string, inputs: TraceInputs): Way {
  const { sandbox, from, networks } = inputs;
  for (const endpoint of sandbox.endpoints) {
    if ([endpoint.ipv4, endpoint.ipv6].some((cidr) => plainIp(cidr) === address)) {
      return { steps: [{ where: from, what: `${address} is its own address: lo`, ok: true }], reaches: true };
    }
    const network = networks.find(({ id }) => id === endpoint.networkId);
    if (network && isOn(network, address)) return through(network, endpoint, address, from);
  }
  return outside(address, inputs);
}

function isOn(network: NetworkLook, address: string): boolean {
  const ip = parseIp(address);
  return network.subnets.some(({ subnet }) => {
    const parsed = parseCidr(subnet)?.subnet;
    return ip !== undefined && parsed !== undefined && contains(parsed, ip);
  });
}

/** From the container's device over its network's switch. */
function through(network: NetworkLook, endpoint: EndpointState, address: string, from: string): Way {
  const overlay = network.namespace?.split("/").at(-1);
  const where = overlay ?? "host";
  const steps: TraceStep[] = [];
  const link = network.links.find(({ name }) => name === endpoint.outerName);
  const up = !link || link.state === "up";
  const stands = link && !up ? `, which is ${link.state}` : "";
  steps.push({
    where: from,
    what: `${endpoint.ifName} on network ${network.name}, to ${endpoint.outerName || "its device"}${stands}`,
    ok: up,
  });
  const has = (one: { address: string; address6: string }) => one.address === address || one.address6 === address;
  const neighbour = network.here.find(has);
  if (neighbour) {
    steps.push({ where, what: `bridge, to ${neighbour.link} of ${neighbour.name} on this host`, ok: true });
    return end(steps, neighbour.name);
  }
  if (network.subnets.some(({ gateway }) => gateway === address)) {
    steps.push({ where, what: `${address} is the network's gateway, on the bridge itself`, ok: true });
    return { steps, reaches: steps.every(({ ok }) => ok) };
  }
  const remote = network.elsewhere.find((one) => has(one) && one.unused === "" && one.host !== "");
  if (!overlay || !remote) {
    const told = network.elsewhere.find(has);
    const why = told ? `its record is not used: ${told.unused || told.state}` : "nobody has told of it";
    steps.push({ where, what: `${address} is unknown here: ${why}`, ok: false });
    return { steps, reaches: false };
  }
  steps.push({
    where,
    what: `vxlan0 answers for ${address}: ${remote.mac}${wrong("neighbour", remote.neighbour)}`,
    ok: remote.neighbour === "ok" || remote.neighbour === "",
  });
  steps.push({
    where,
    what: `vxlan0 sends ${remote.mac} to host ${remote.host}${wrong("fdb", remote.fdb)}; told by ${remote.announcedBy.node}`,
    ok: remote.fdb === "ok" || remote.fdb === "",
  });
  const host = network.hosts.find((one) => one.address === remote.host);
  const vni = network.subnets.find(({ vni: one }) => one !== undefined)?.vni ?? 0;
  const mtu = host?.pathMtu === undefined ? "" : `, packets of up to ${host.pathMtu} bytes arrive`;
  const state = host?.state ?? "unknown";
  steps.push({
    where: "host",
    what: `UDP to ${remote.host}, VNI ${vni}${mtu}${state === "alive" ? "" : `; gossip has it as ${state}`}`,
    ok: state === "alive",
  });
  return end(steps, remote.name || address);
}

const wrong = (what: string, verdict: string) =>
  verdict === "ok" || verdict === "" ? "" : ` (the kernel's ${what}: ${verdict})`;

function end(steps: TraceStep[], name: string): Way {
  steps.push({ where: name, what: "arrives", ok: true });
  return { steps, reaches: steps.every(({ ok }) => ok) };
}

function outside(address: string, { from, wayOut }: TraceInputs): Way {
  if (!wayOut) return { steps: [{ where: from, what: `no route to ${address}`, ok: false }], reaches: false };
  const { gateway, ifName, network } = wayOut;
  return {
    steps: [
      { where: from, what: `${ifName} on network ${network}, default route via ${gateway}`, ok: true },
      { where: "host", what: "masqueraded, then the host's own routes", ok: true },
    ],
    reaches: true,
  };
}

/** The views as text for a person. Pure: a document in, text out; `now` in milliseconds since the epoch. */
import type { NamedGossip, NetworkRow, PortView, ServiceView, StatusView } from "../../engine/view/types.ts";
import type { NetworkLook, Trace } from "../../network/view/types.ts";
import { ago, count, fields, indent, section, table } from "./table.ts";

const short = (id: string) => id.slice(0, 12);
const percent = (share: number) => `${Math.round(share * 100)} %`;
/** An address with the host's name where it is known. */
const place = (address: string, name: string | undefined) => (name ? `${name} (${address})` : address);

export function statusText(status: StatusView, now: number): string {
  const { host, swarm, gossip, networks, kernel, paths } = status;
  const mended = Object.entries(kernel.repairs.byKind).map(([kind, times]) => `${times} ${kind}`);
  const open = kernel.differences.reduce((sum, one) => sum + one.differences.length, 0);
  const narrow = paths.filter(({ mtu, expected }) => mtu !== null && mtu < expected).length;
  return [
    fields([
      [
        "host",
        `${host.name}, Skein ${host.version}, up ${ago(now - Date.parse(host.startedAt))}, Linux ${host.kernel}`,
      ],
      ["containers", `${host.containers.running} running of ${host.containers.total}`],
      ["swarm", swarm.role === "none" ? swarm.state : `${swarm.state}, ${swarm.role}, node ${short(swarm.nodeId)}`],
      ["address", swarm.address && `${swarm.address}, data path ${swarm.dataPath}`],
      ["managers", swarm.managers.join(", ")],
      [
        "gossip",
        gossip &&
          `${gossip.alive} alive, ${gossip.suspect} suspect, ${gossip.dead} dead; health ${gossip.health} (0 is well); ${count(gossip.keys, "key")}`,
      ],
      [
        "networks",
        `${networks.overlay} overlay, ${networks.local} local; ${count(networks.endpoints, "endpoint")} on this host`,
      ],
      ["paths", paths.length > 0 ? `${count(paths.length, "host")}, ${narrow} too narrow` : undefined],
      [
        "kernel",
        `${count(kernel.namespaces, "namespace")}, ${open === 0 ? "as planned" : count(open, "difference")}; mended ${kernel.repairs.total} since the start${mended.length > 0 ? ` (${mended.join(", ")})` : ""}`,
      ],
    ]),
    swarm.nodes
      ? section(
          "nodes",
          ["HOSTNAME", "ADDRESS", "ROLE", "STATE", "AVAILABILITY", "ENGINE", "ID"],
          swarm.nodes.map((node) => [
            node.hostname,
            node.address,
            node.reachable === false ? `${node.role}, unreachable` : node.role,
            node.state,
            node.availability,
            node.engine,
            short(node.id),
          ]),
        )
      : "",
    status.warnings.length > 0
      ? `\nwarnings\n${status.warnings.map((text) => `  ${text}\n`).join("")}`
      : "\nno warnings\n",
  ].join("");
}

export function networksText(rows: readonly NetworkRow[]): string {
  return table(
    ["NAME", "ID", "DRIVER", "SUBNET", "VNI", "MTU", "HERE", "ELSEWHERE", "HOSTS", "KERNEL", "MENDED"],
    rows.map((row) => [
      row.name,
      short(row.id),
      row.driver,
      row.subnets.join(","),
      row.vnis.join(","),
      String(row.mtu ?? ""),
      String(row.here),
      row.driver === "overlay" ? String(row.elsewhere) : "",
      row.driver === "overlay" ? String(row.hosts) : "",
      row.driver !== "overlay" ? "" : row.differences === 0 ? "as planned" : count(row.differences, "difference"),
      row.driver === "overlay" ? String(row.repairs) : "",
    ]),
  );
}

export function networkText(network: NetworkLook, now: number): string {
  const subnets = network.subnets.map(
    ({ subnet, gateway, vni }) =>
      `${subnet}${gateway && ` gateway ${gateway}`}${vni === undefined ? "" : ` VNI ${vni}`}`,
  );
  const kind = [network.driver, network.scope, network.ingress && "ingress", network.internal && "internal"];
  return [
    fields([
      ["network", `${network.name}  ${network.id}`],
      ["kind", kind.filter(Boolean).join(", ")],
      ["subnet", subnets.join("; ")],
      ["mtu", network.mtu === undefined ? undefined : String(network.mtu)],
      ["namespace", network.namespace],
      ["balancer", network.balancer],
      [
        "kernel",
        network.driver !== "overlay"
          ? undefined
          : network.differences.length === 0
            ? "as planned"
            : `not as planned: ${network.differences.join("; ")}`,
      ],
    ]),
    section(
      "hosts",
      ["ADDRESS", "NODE", "STATE", "TABLES", "ENDPOINTS", "PATH MTU", "ENGINE"],
      network.hosts.map((host) => [
        host.address,
        host.node,
        host.self ? "this host" : host.state,
        host.self ? "" : host.synced ? "synced" : "not synced",
        String(host.endpoints),
        host.pathMtu === undefined
          ? ""
          : host.pathMtu === host.expectedMtu
            ? String(host.pathMtu)
            : `${host.pathMtu} of ${host.expectedMtu}`,
        host.skein ? "skein" : "docker",
      ]),
    ),
    section(
      "endpoints on this host",
      ["NAME", "ADDRESS", "MAC", "LINK", "STATE", "SERVICE"],
      network.here.map((one) => [
        one.name,
        [one.address, one.address6].filter(Boolean).join(" "),
        one.mac,
        one.link,
        one.kind === "container" ? one.state : "balancer",
        one.service,
      ]),
    ),
    section(
      "endpoints elsewhere",
      ["NAME", "ADDRESS", "MAC", "HOST", "TOLD BY", "STATE", "NEIGHBOUR", "FDB"],
      network.elsewhere.map((one) => [
        one.name,
        one.address,
        one.mac,
        one.host,
        `${one.announcedBy.node}${one.announcedBy.state === "alive" ? "" : ` (${one.announcedBy.state})`}`,
        [one.state, one.doubted && "doubted", one.unused && `not used: ${one.unused}`].filter(Boolean).join(", "),
        one.neighbour,
        one.fdb,
      ]),
    ),
    section(
      "links",
      ["NAME", "KIND", "MTU", "STATE", "LEADS TO"],
      network.links.map((link) => [
        link.name,
        link.kind,
        String(link.mtu ?? ""),
        link.state,
        network.here.find((one) => one.link === link.name)?.name ?? link.purpose,
      ]),
    ),
    section(
      "mended",
      ["AGO", "WHAT"],
      network.repairs.map(({ at, difference }) => [ago(now - at), difference]),
    ),
  ].join("");
}

export function gossipText(gossip: NamedGossip): string {
  const list = (counts: Readonly<Record<string, number>>) =>
    Object.entries(counts)
      .map(([name, value]) => `${value} ${name}`)
      .join(", ");
  const keys = gossip.keys.map(({ id, lamportTime, use }) => `${id} (time ${lamportTime}, ${use})`);
  return [
    fields([
      ["node", gossip.name ?? "waits for its keys"],
      ["address", `${gossip.address}:${gossip.port}`],
      ["health", `${gossip.health} (0 is well)`],
      ["keys", keys.join(", ")],
      ["queues", list(gossip.queues)],
      ["dropped", list(gossip.dropped) || "nothing"],
      ["counted", list(gossip.counters)],
    ]),
    section(
      "members",
      ["ADDRESS", "NODE", "HOSTNAME", "STATE", "SINCE", "INCARNATION", "NETWORKS", "ENGINE"],
      gossip.members.map((member) => [
        member.address,
        member.name,
        member.hostname,
        member.self ? "this host" : member.state,
        ago(member.sinceMs),
        String(member.incarnation),
        String(member.networks),
        member.skein ? "skein" : "docker",
      ]),
    ),
  ].join("");
}

export function servicesText(services: readonly ServiceView[]): string {
  return table(
    ["NAME", "ID", "NETWORKS", "VIP", "SERVING", "DRAINING", "SUSPENDED", "PORTS"],
    services.map((service) => {
      const best = service.networks.find(({ ingress }) => !ingress) ?? service.networks[0];
      const of = (state: string) => String(best?.backends.filter((one) => one.state === state).length ?? 0);
      return [
        service.name,
        short(service.id),
        service.networks.map(({ network }) => network).join(","),
        best?.vip || "dnsrr",
        of("serving"),
        of("draining"),
        of("suspended"),
        service.ports.map(portText).join(","),
      ];
    }),
  );
}

const portText = (port: ServiceView["ports"][number]) => `${port.published}->${port.target}/${port.protocol}`;

export function serviceText(service: ServiceView): string {
  return [
    fields([
      ["service", `${service.name}  ${service.id}`],
      ["ports", service.ports.map(portText).join(", ")],
    ]),
    ...service.networks.map((network) =>
      section(
        `${network.network}: ${network.vip ? `VIP ${[network.vip, network.vip6].filter(Boolean).join(", ")}` : "no VIP, names lead to the tasks"}`,
        ["TASK", "ADDRESS", "HOST", "STATE", "SHARE"],
        network.backends.map((one) => [
          one.task,
          one.address,
          `${place(one.host, one.hostname)}${one.here ? ", here" : ""}`,
          one.state,
          network.vip ? percent(one.share) : "",
        ]),
      ),
    ),
    service.networks.length === 0 ? "\nno network of this node tells of its tasks\n" : "",
    section(
      "tasks as the managers have them",
      ["TASK", "NODE", "STATE", "BACKEND HERE", "MESSAGE"],
      (service.tasks ?? []).map((task) => [
        task.name,
        task.node,
        task.state,
        task.announced ? "yes" : "no",
        task.message,
      ]),
    ),
  ].join("");
}

export function portsText(ports: readonly PortView[]): string {
  return table(
    ["PORT", "AT", "BY", "WHO", "TARGET", "BACKENDS"],
    ports.map((port) => [
      `${port.port}/${port.protocol}`,
      atText(port.addresses, "all addresses", ","),
      port.kind === "mesh" ? "routing mesh" : "container",
      port.kind === "mesh" ? port.services.join(",") : (port.names[port.container] ?? short(port.container)),
      port.kind === "mesh" ? port.target.join(",") : String(port.target),
      port.kind === "mesh" ? String(port.backends.filter(({ share }) => share > 0).length) : port.address,
    ]),
  );
}

const atText = (addresses: readonly string[] | undefined, all: string, separator: string): string =>
  addresses === undefined ? all : addresses.join(separator) || "no address";

/** One port, with the way that a connection takes. */
export function onePortText(port: PortView): string {
  const at = atText(port.addresses, "every address of this host", ", ");
  if (port.kind === "container") {
    const name = port.names[port.container] ?? short(port.container);
    return [
      fields([["port", `${port.port}/${port.protocol} at ${at}: container ${name}`]]),
      "\nthe way\n",
      indent(
        fields([
          ["host", `DNAT to ${port.address}:${port.target}`],
          [name, "answers; the client's address is kept"],
        ]),
      ),
    ].join("");
  }
  const serving = port.backends.filter(({ share }) => share > 0);
  const hidden = serving.filter(({ keepsClientAddress }) => !keepsClientAddress).length;
  const oneOf = `one of ${count(serving.length, "task")}, chosen at random`;
  return [
    fields([
      ["port", `${port.port}/${port.protocol} at ${at}: routing mesh, ${port.services.join(", ")}`],
      ["policy", port.policy === "local" ? "local: only tasks of this host are asked" : undefined],
      ["proxy", port.proxy ? "tasks are told the client's address by the PROXY protocol" : undefined],
    ]),
    "\nthe way\n",
    ...(port.door.leg
      ? [
          `  host          DNAT to ${oneOf}, out of ${port.door.leg}\n`,
          `                (clients on this host's loopback and in its containers: as below, by ingress_sbox)\n`,
        ]
      : []),
    `  host          DNAT to ${port.door.gateway}, over docker_gwbridge\n`,
    `  ingress_sbox  DNAT to ${oneOf}${serving.length === 0 ? ": refused" : ""}\n`,
    `  task          port ${port.port} redirected to ${port.target.join(" or ")}\n`,
    `  back          ${hidden === 0 ? "through this host; the client's address is kept" : `${hidden} of them see ${port.door.ingress} in place of the client: their engine is Docker's`}\n`,
    section(
      "who answers",
      ["TASK", "ADDRESS", "HOST", "STATE", "SHARE", "CLIENT'S ADDRESS"],
      port.backends.map((one) => [
        one.task,
        one.address,
        `${place(one.host, port.names[one.host])}${one.here ? ", here" : ""}`,
        one.state,
        percent(one.share),
        one.share === 0 ? "" : one.keepsClientAddress ? "kept" : "hidden",
      ]),
    ),
  ].join("");
}

export function traceText(found: Trace): string {
  const all = [...found.steps, ...found.ways.flatMap(({ steps }) => steps)];
  const width = Math.max(0, ...all.map(({ where }) => where.length));
  const lines = (steps: Trace["steps"]) =>
    steps.map(({ where, what, ok }) => `${ok ? "  " : "! "}${where.padEnd(width)}  ${what}\n`).join("");
  return [
    lines(found.steps),
    ...found.ways.map(({ address, share, steps, reaches }) => {
      const part = found.ways.length > 1 ? `, ${percent(share)}` : "";
      return `\n${address}${part}: ${reaches ? "nothing amiss" : "does not get there"}\n${lines(steps)}`;
    }),
  ].join("");
}

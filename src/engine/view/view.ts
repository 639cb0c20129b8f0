/** The views put together: the network room's part and what this node knows of the swarm. Reading changes nothing. */
import { release } from "node:os";
import { invalid, notFound } from "../../base/errors.ts";
import type { NetworkLook, PortLook, ServiceLook } from "../../network/view/types.ts";
import type { EngineContext } from "../context.ts";
import { VERSION } from "../version.ts";
import { controlIfAny, hostnames, nodeRows, taskRows } from "./swarm.ts";
import type { NamedGossip, NetworkRow, PortView, ServiceView, StatusView, Views } from "./types.ts";
import { warningsOf } from "./warnings.ts";

export function createViews(ctx: EngineContext): Views {
  const { view } = ctx.network;
  const startedAt = new Date(ctx.clock.now()).toISOString();
  const control = () => controlIfAny(ctx.swarm()?.node);

  function swarmPart(): StatusView["swarm"] {
    const local = ctx.swarm()?.node.local();
    const base = { state: local?.state ?? "inactive", nodeId: local?.nodeId ?? "", error: local?.error ?? "" };
    const managers = local?.remoteManagers.map(({ addr }) => addr) ?? [];
    if (!local || local.state === "inactive") {
      return { ...base, role: "none", address: "", dataPath: "", managers };
    }
    const manager = control();
    const host = local.dataPathAddr || local.nodeAddr;
    return {
      ...base,
      role: local.isManager ? (manager?.isLeader() ? "leader" : "manager") : "worker",
      address: local.nodeAddr,
      dataPath: `${host.includes(":") ? `[${host}]` : host}:${local.dataPathPort}`,
      managers,
      ...(manager && { nodes: nodeRows(manager) }),
    };
  }

  function withHosts({ networks, ...service }: ServiceLook): ServiceView {
    const manager = control();
    const names = hostnames(manager);
    const backends = networks.flatMap((network) => network.backends);
    return {
      ...service,
      networks: networks.map((network) => ({
        ...network,
        backends: network.backends.map((one) => ({ ...one, hostname: names.get(one.host) ?? "" })),
      })),
      ...(manager && {
        tasks: taskRows(manager, service.id, (task) =>
          backends.some((one) => one.state === "serving" && one.task.endsWith(`.${task.id}`)),
        ),
      }),
    };
  }

  /** A service that no network of this node tells of: without networks, or with none of its tasks announced. */
  function unannounced(ref: string): ServiceLook | undefined {
    const found = control()
      ?.services()
      .find((service) => service.id === ref || service.spec?.annotations?.name === ref);
    return found && { id: found.id, name: found.spec?.annotations?.name ?? "", networks: [], ports: [] };
  }

  return {
    async status() {
      const gossip = view.gossip();
      const count = (state: string) => gossip?.members.filter((member) => member.state === state).length ?? 0;
      const repairs = view.repairs();
      const networks = ctx.network.list();
      const differences = await view.differences();
      const status = {
        host: {
          name: ctx.hostname,
          version: VERSION,
          kernel: release(),
          startedAt,
          containers: {
            running: ctx.registry.all().filter(({ record }) => record.state.status === "running").length,
            total: ctx.registry.all().length,
          },
        },
        swarm: swarmPart(),
        ...(gossip && {
          gossip: {
            health: gossip.health,
            alive: count("alive"),
            suspect: count("suspect"),
            dead: count("dead"),
            keys: gossip.keys.length,
          },
        }),
        networks: {
          overlay: networks.filter(({ driver }) => driver === "overlay").length,
          local: networks.filter(({ scope }) => scope === "local").length,
          endpoints: networks.reduce((sum, { id }) => sum + ctx.network.endpoints(id).length, 0),
        },
        kernel: {
          namespaces: ctx.network.explain().length,
          differences,
          repairs: { total: repairs.total, byKind: repairs.byKind },
        },
        paths: ctx.network.paths().map(({ host, mtu, expected }) => ({ host, mtu: mtu ?? null, expected })),
      };
      return { ...status, warnings: warningsOf(status, gossip) };
    },

    async networks() {
      return (await view.networks()).map(rowOf);
    },

    async network(ref) {
      const { id, name } = ctx.networks.get(ref);
      const found = (await view.networks()).find((network) => network.id === id);
      if (found) return found;
      throw notFound(`network ${name} is one of the swarm, but nothing on this node is on it`);
    },

    gossip(): NamedGossip {
      const gossip = view.gossip();
      if (!gossip) throw notFound("this node is in no swarm: there is no gossip");
      const names = hostnames(control());
      return {
        ...gossip,
        members: gossip.members.map((member) => ({ ...member, hostname: names.get(member.address) ?? "" })),
      };
    },

    services: () => view.services().map(withHosts),

    service(ref) {
      const all = view.services();
      const found =
        all.find(({ id }) => id === ref) ??
        all.find(({ name }) => name === ref) ??
        unannounced(ref) ??
        all.find(({ id }) => id.startsWith(ref));
      if (found) return withHosts(found);
      throw notFound(`no network of this node tells of a service ${ref}`);
    },

    ports(port): PortView[] {
      const wanted = port === undefined ? undefined : parsePort(port);
      const names = Object.fromEntries(hostnames(control()));
      const named = (look: PortLook): PortView => {
        if (look.kind === "mesh") return { ...look, names };
        const name = ctx.registry.byId(look.container)?.record.name ?? "";
        return { ...look, names: { [look.container]: name.replace(/^\//, "") } };
      };
      return view
        .ports()
        .filter(
          ({ port: number, protocol }) =>
            !wanted || (number === wanted.port && (wanted.protocol === undefined || protocol === wanted.protocol)),
        )
        .map(named);
    },

    async trace(from, to) {
      if (to === "") throw invalid("no destination: name one, or an address");
      const { id, record } = ctx.registry.get(from);
      const found = await view.trace(id, record.name.replace(/^\//, ""), to);
      if (!found) throw notFound(`container ${from} does not run: it has no network`);
      return found;
    },
  };
}

function rowOf(network: NetworkLook): NetworkRow {
  return {
    id: network.id,
    name: network.name,
    driver: network.driver,
    scope: network.scope,
    subnets: network.subnets.map(({ subnet }) => subnet),
    vnis: network.subnets.flatMap(({ vni }) => vni ?? []),
    ...(network.mtu !== undefined && { mtu: network.mtu }),
    here: network.here.length,
    elsewhere: network.elsewhere.length,
    hosts: network.hosts.length,
    differences: network.differences.length,
    repairs: network.repairs.length,
  };
}

function parsePort(text: string): { port: number; protocol: string | undefined } {
  const [, digits = "", protocol] = /^(\d{1,5})(?:\/(tcp|udp|sctp))?$/.exec(text) ?? [];
  const port = Number(digits);
  if (port < 1 || port > 65535)
    throw invalid(`invalid port ${text}: expected a number up to 65535, like 8080 or 53/udp`);
  return { port, protocol };
}

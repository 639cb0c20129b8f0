/** `docker network`: this host's networks through the network room, swarm-scoped ones through the managers. */
import { conflict, forbidden, invalid, messageOf, notFound, SkeinError } from "../../base/errors.ts";
import { hexId } from "../../base/id.ts";
import type { DriverName, NetworkSpec } from "../../network/types.ts";
import type { EngineContext } from "../context.ts";
import { emitPrune } from "../events.ts";
import { exact, flag, knownFilters, labels, pattern, withoutLabels } from "../filters.ts";
import type { NetworkCreate } from "../shapes.ts";
import { parseRfc3339, parseTimestamp, rfc3339Nano } from "../time.ts";
import type { Filters, Networks } from "../types.ts";
import { containersMap, networkDocument, servicesMap } from "./documents.ts";

const PREDEFINED = ["bridge", "host", "none"];
const isPredefined = (spec: NetworkSpec): boolean => PREDEFINED.includes(spec.name) && spec.scope === "local";
const DRIVERS: readonly string[] = ["bridge", "host", "null", "overlay", "macvlan", "ipvlan"];
const isDriver = (name: string): name is DriverName => DRIVERS.includes(name);

export function createNetworks(ctx: EngineContext): Networks {
  const usedBy = (spec: NetworkSpec): boolean =>
    ctx.registry
      .all()
      .some((container) => Object.values(container.record.networks).some((use) => use.networkId === spec.id));

  async function remove(spec: NetworkSpec): Promise<void> {
    if (isPredefined(spec)) throw forbidden(`${spec.name} is a pre-defined network and cannot be removed`);
    const swarm = ctx.swarm();
    if (spec.scope === "swarm" && swarm) {
      await swarm.networks.remove(spec.id);
      return;
    }
    const configUsers = ctx.network.list().filter((other) => other.configFrom === spec.name);
    if (spec.configOnly && configUsers.length > 0) {
      throw forbidden(`configuration network "${spec.name}" is in use`);
    }
    await ctx.network.remove(spec.id);
  }

  return {
    async create(request) {
      checkRequest(request);
      const driver = request.Driver || "bridge";
      const known = ctx.networks.all().filter((spec) => spec.name === request.Name);
      if (known.length > 0) throw conflict(`network with name ${request.Name} already exists`);
      if (driver === "overlay" && request.Scope === "local") {
        throw forbidden("cannot downgrade network scope for overlay networks");
      }
      if ((driver === "overlay" && !request.ConfigOnly) || request.Scope === "swarm") {
        const swarm = ctx.swarm();
        const local = swarm?.node.local();
        if (!swarm || local?.state === "inactive") {
          if (driver !== "overlay") {
            throw forbidden("cannot create a swarm scoped network when swarm is not active.");
          }
          throw new SkeinError(
            "unavailable",
            'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
          );
        }
        if (local?.state === "active" && !local.isManager) {
          throw forbidden(
            "cannot create a multi-host network from a worker node. Please create the network from a manager node.",
          );
        }
        return { Id: await swarm.networks.create(request), Warning: "" };
      }
      const spec = await ctx.network.create(specOf(ctx, request, driver));
      return { Id: spec.id, Warning: "" };
    },

    async list(filters) {
      knownFilters(filters, ["dangling", "driver", "id", "label", "name", "scope", "type"]);
      return ctx.networks
        .all()
        .filter((spec) => matches(spec, filters, usedBy))
        .map(networkDocument);
    },

    async inspect(ref, options = {}) {
      const spec = ctx.networks.get(ref, options.scope);
      const here = ctx.network.get(spec.id) !== undefined;
      const peers = here && spec.scope === "swarm" ? ctx.network.peers(spec.id) : [];
      return {
        ...networkDocument(spec),
        // Docker's own sign of a swarm network that this host does not take part in.
        Containers: here ? containersMap(ctx.network.endpoints(spec.id)) : spec.scope === "swarm" ? null : {},
        ...(peers.length > 0 && { Peers: peers.map(({ name, address }) => ({ Name: name, IP: address })) }),
        ...(options.verbose &&
          here &&
          spec.scope === "swarm" && { Services: servicesMap(ctx.network.services(spec.id)) }),
      };
    },

    async remove(ref) {
      await remove(ctx.networks.get(ref));
    },

    async prune(filters) {
      knownFilters(filters, ["label", "label!", "until"]);
      const [until] = filters.get("until") ?? [];
      const before = until === undefined ? Number.POSITIVE_INFINITY : parseTimestamp(until, ctx.clock.now());
      const gone: string[] = [];
      for (const spec of ctx.networks.all()) {
        const made = parseRfc3339(spec.created) ?? 0;
        if (isPredefined(spec) || spec.ingress || usedBy(spec) || made > before) continue;
        if (!labels(filters, spec.labels) || !withoutLabels(filters, spec.labels)) continue;
        try {
          await remove(spec);
          gone.push(spec.name);
        } catch (error) {
          ctx.log.debug("network not pruned", { network: spec.name, error: messageOf(error) });
        }
      }
      emitPrune(ctx, "network", 0);
      return { NetworksDeleted: gone.length ? gone : null };
    },

    find: (ref) => ctx.networks.find(ref),
  };
}

function checkRequest(request: NetworkCreate): void {
  if (request.Name === "") throw invalid("invalid network name: name is empty");
  if (PREDEFINED.includes(request.Name) || request.Name === "default" || request.Name.startsWith("container:")) {
    throw forbidden(`operation is not permitted on predefined ${request.Name} network`);
  }
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(request.Name)) {
    throw invalid(`invalid network name: ${request.Name}`);
  }
  if (request.Ingress && request.Driver !== "overlay") throw invalid("ingress is only supported for overlay networks");
  if (request.ConfigOnly && request.ConfigFrom?.Network)
    throw forbidden("a configuration network cannot depend on another configuration network");
  if (!["", "local", "swarm"].includes(request.Scope)) throw invalid(`invalid network scope: ${request.Scope}`);
  if (request.ConfigOnly && request.Scope !== "") {
    throw forbidden(
      "configuration network can only contain network specific fields. " +
        "Network operator fields like [ ingress | internal | attachable | scope ] are not supported.",
    );
  }
}

function specOf(ctx: EngineContext, request: NetworkCreate, driver: string): NetworkSpec {
  if (!isDriver(driver)) {
    throw notFound(
      `could not resolve driver ${driver} in registry: could not find plugin ${driver} in v1 plugin registry: plugin not found`,
    );
  }
  if (!request.ConfigOnly && (driver === "host" || driver === "null")) {
    throw forbidden(`only one instance of "${driver}" network is allowed`);
  }
  const ipam = request.IPAM;
  return {
    id: hexId(),
    name: request.Name,
    driver,
    scope: "local",
    created: rfc3339Nano(ctx.clock.now()),
    enableIPv4: request.EnableIPv4 ?? true,
    enableIPv6: request.EnableIPv6 ?? false,
    internal: request.Internal,
    attachable: request.Attachable,
    ingress: request.Ingress,
    configOnly: request.ConfigOnly,
    configFrom: request.ConfigFrom?.Network ?? "",
    ipam: {
      driver: ipam?.Driver || "default",
      options: ipam?.Options ?? null,
      config: (ipam?.Config ?? []).map((pool) => ({
        subnet: pool.Subnet,
        ...(pool.IPRange && { ipRange: pool.IPRange }),
        ...(pool.Gateway && { gateway: pool.Gateway }),
        ...((pool.AuxiliaryAddresses ?? pool.AuxAddress) && {
          auxAddresses: pool.AuxiliaryAddresses ?? pool.AuxAddress ?? {},
        }),
      })),
    },
    options: request.Options,
    labels: request.Labels,
  };
}

function matches(spec: NetworkSpec, filters: Filters, usedBy: (spec: NetworkSpec) => boolean): boolean {
  const dangling = flag(filters, "dangling");
  const type = filters.get("type");
  for (const word of type ?? []) {
    if (word !== "builtin" && word !== "custom") throw invalid(`invalid filter: 'type'='${word}'`);
  }
  const builtin = isPredefined(spec);
  return (
    pattern(filters, "name", spec.name) &&
    pattern(filters, "id", spec.id) &&
    exact(filters, "driver", spec.driver) &&
    exact(filters, "scope", spec.scope) &&
    labels(filters, spec.labels) &&
    (!type?.length || type.includes(builtin ? "builtin" : "custom")) &&
    (dangling === undefined || dangling === (!usedBy(spec) && !builtin))
  );
}

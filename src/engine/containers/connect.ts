/** `docker network connect` and `disconnect`. */
import { conflict, forbidden, invalid, notFound } from "../../base/errors.ts";
import type { EngineContext } from "../context.ts";
import type { EndpointSettings } from "../shapes.ts";
import type { Container } from "./container.ts";
import { checkSettings, use } from "./create.ts";
import { connectUse, disconnectUse, writeEtc } from "./networking.ts";

function refuseShared(container: Container): void {
  const mode = container.record.hostConfig.NetworkMode;
  if (mode.startsWith("container:")) {
    throw invalid(
      "container sharing network namespace with another container or host cannot be connected to any other network",
    );
  }
}

export async function connect(
  ctx: EngineContext,
  container: Container,
  networkRef: string,
  settings: EndpointSettings,
): Promise<void> {
  await ctx.locks.run(container.id, async () => {
    const { record } = container;
    if (record.state.status === "removing" || record.state.status === "dead") {
      throw conflict(
        `Container ${record.id} is marked for removal and cannot be connected or disconnected to the network ${networkRef}`,
      );
    }
    refuseShared(container);
    const network = ctx.networks.find(networkRef);
    if (!network && ctx.swarm()?.node.local().state !== "active") throw notFound(`network ${networkRef} not found`);
    const key = network?.name ?? networkRef;
    if (network?.driver === "host") {
      throw invalid("cannot connect container to host network");
    }
    if (record.hostConfig.NetworkMode === "host") {
      throw invalid(
        "container sharing network namespace with another container or host cannot be connected to any other network",
      );
    }
    if (record.networks.none !== undefined || network?.driver === "null") {
      throw invalid(
        "container cannot be connected to multiple networks with one of the networks in private (none) mode",
      );
    }
    if (record.networks[key]) {
      if (network?.scope === "swarm") throw conflict(`${record.name} is already attached to network ${key}`);
      throw forbidden(`endpoint with name ${record.name} already exists in network ${key}`);
    }
    checkSettings(key, settings, ctx);
    const wanted = use(settings, network?.id ?? "");
    if (container.up) {
      await connectUse(ctx, container, key, wanted);
      writeEtc(ctx, container);
      if (!record.task) await ctx.network.setActivity(record.id, "active");
    }
    record.networks[key] = wanted;
    ctx.registry.save(container);
  });
}

export async function disconnect(ctx: EngineContext, container: Container, networkRef: string): Promise<void> {
  await ctx.locks.run(container.id, async () => {
    const { record } = container;
    const network = ctx.networks.get(networkRef);
    if (network.driver === "host" || record.hostConfig.NetworkMode === "host") {
      throw invalid("container cannot be disconnected from host network or connected to host network");
    }
    const entry = Object.entries(record.networks).find(
      ([key, known]) => known.networkId === network.id || key === network.name,
    );
    if (!entry) throw forbidden(`container ${record.id} is not connected to network ${network.name}`);
    const [key, known] = entry;
    // The record first: an endpoint that it does not know is taken away at the next start (`mend.ts`).
    const before = record.networks;
    record.networks = Object.fromEntries(Object.entries(before).filter(([name]) => name !== key));
    ctx.registry.save(container);
    try {
      if (container.up) await disconnectUse(ctx, container, known);
    } catch (error) {
      record.networks = before;
      ctx.registry.note(container);
      throw error;
    }
  });
}

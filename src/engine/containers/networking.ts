/**
 * A container's part in networks: its sandbox is made when it starts and removed when it stops; what it is to be connected
 * to is kept in its record. On attachable swarm networks the managers are asked for an address first.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { conflict, forbidden, messageOf, notFound, SkeinError, unavailable } from "../../base/errors.ts";
import { grpcCodeOf, status as grpcStatus } from "../../base/grpc.ts";
import { shortId } from "../../base/id.ts";
import type { Endpoint, EndpointRequest, NetworkSpec } from "../../network/types.ts";
import type { ContainerSpec } from "../../runtime/types.ts";
import type { EngineContext } from "../context.ts";
import type { Container } from "./container.ts";
import { linkHosts } from "./links.ts";
import { portBindings } from "./ports.ts";
import type { NetworkUse, StoredAttachment } from "./record.ts";

export interface Place {
  readonly netnsPath: string | undefined;
  readonly etc: ContainerSpec["etc"];
  /** The sandbox is its own, not another container's. */
  readonly own: boolean;
}

const shares = (container: Container): string | undefined => {
  const mode = container.record.hostConfig.NetworkMode;
  return mode.startsWith("container:") ? mode.slice("container:".length) : undefined;
};

const etcFiles = (ctx: EngineContext, container: Container): NonNullable<ContainerSpec["etc"]> => {
  const dir = ctx.registry.dir(container.id);
  return { hosts: join(dir, "hosts"), hostname: join(dir, "hostname"), resolvConf: join(dir, "resolv.conf") };
};

/** Makes the sandbox and connects it to everything the record names. Leaves nothing behind when it fails. */
export async function joinNetworks(ctx: EngineContext, container: Container): Promise<Place> {
  const other = shares(container);
  if (other !== undefined) return joinOther(ctx, other);
  const { record } = container;
  const { config, hostConfig: host } = record;
  const hostMode = host.NetworkMode === "host";
  const sandbox = await ctx.network.createSandbox({
    id: record.id,
    mode: hostMode ? "host" : "private",
    hostname: config.Hostname,
    domainname: config.Domainname,
    dns: { servers: host.Dns, search: host.DnsSearch, options: host.DnsOptions },
    extraHosts: host.ExtraHosts.map((entry) => (/^[^:]+=/.test(entry) ? entry.replace("=", ":") : entry)),
    ports: hostMode ? [] : portBindings(config, host),
  });
  try {
    for (const attachment of record.task?.attachments ?? []) await connectTask(ctx, container, attachment);
    for (const [key, use] of Object.entries(record.networks)) {
      if (!record.task?.attachments.some((attachment) => attachment.networkName === key)) {
        await connectUse(ctx, container, key, use);
      }
    }
    writeEtc(ctx, container);
    return { netnsPath: sandbox.path, etc: etcFiles(ctx, container), own: true };
  } catch (error) {
    await leaveNetworks(ctx, container);
    throw error;
  }
}

function joinOther(ctx: EngineContext, ref: string): Place {
  const other = ctx.registry.get(ref);
  if (!other.up) throw conflict(`cannot join network of a non running container: ${other.id}`);
  return { netnsPath: ctx.network.sandbox(other.id)?.path, etc: etcFiles(ctx, other), own: false };
}

/** Removes the sandbox and gives back what the managers lent. Never rejects: what is left is swept at the next start. */
export async function leaveNetworks(ctx: EngineContext, container: Container): Promise<void> {
  if (shares(container) !== undefined) return;
  try {
    await ctx.network.removeSandbox(container.id);
  } catch (error) {
    ctx.log.error("network sandbox could not be removed", { container: container.id, error: messageOf(error) });
  }
  for (const use of Object.values(container.record.networks)) {
    use.endpoint = undefined;
    detachFromManagers(ctx, container, use);
  }
}

/** In the background: nobody waits for the managers to hear that an address is free. */
function detachFromManagers(ctx: EngineContext, container: Container, use: NetworkUse): void {
  const id = use.attachmentId;
  use.attachmentId = "";
  if (!id) return;
  ctx
    .swarm()
    ?.node.detachNetwork(id)
    .catch((error) =>
      ctx.log.warn("network attachment not given back", { container: container.id, error: messageOf(error) }),
    );
}

/** Hosts and resolv.conf as they should be now, written in place: the files are bind-mounted. */
export function writeEtc(ctx: EngineContext, container: Container): void {
  const paths = etcFiles(ctx, container);
  const { hosts, resolvConf } = ctx.network.files(container.id);
  mkdirSync(ctx.registry.dir(container.id), { recursive: true });
  writeFileSync(paths.hosts, hosts + linkHosts(ctx, container), { mode: 0o644 });
  writeFileSync(paths.resolvConf, resolvConf, { mode: 0o644 });
  writeFileSync(paths.hostname, `${container.record.config.Hostname}\n`, { mode: 0o644 });
}

/** DNS names beside the container's own. The default bridge has none. */
export function dnsNames(container: Container, network: NetworkSpec, use: NetworkUse): string[] {
  if (["bridge", "host", "none"].includes(network.name) && network.scope === "local") return [];
  const { config, id } = container.record;
  return [...new Set([...use.settings.Aliases, shortId(id), config.Hostname])].filter((name) => name !== "");
}

async function ensureHere(ctx: EngineContext, network: NetworkSpec, lbAddress: string | undefined): Promise<void> {
  if (ctx.network.get(network.id)) return;
  await ctx.network.create(network, lbAddress ? { lbAddress } : {});
}

async function connectTask(ctx: EngineContext, container: Container, stored: StoredAttachment): Promise<void> {
  const network = ctx.networks.find(stored.networkId);
  if (!network) throw notFound(`network ${stored.networkName} not found`);
  await ensureHere(ctx, network, stored.lbAddress);
  const { service, ...request } = stored.request;
  const endpoint = await ctx.network.connect(container.id, {
    ...withoutEmpty(request),
    aliases: [...new Set([...request.aliases, shortId(container.id), container.record.config.Hostname])].filter(
      Boolean,
    ),
    networkId: network.id,
    ...(service && { service }),
  });
  const use = container.record.networks[network.name];
  if (use) remember(use, endpoint);
}

function withoutEmpty(request: Omit<StoredAttachment["request"], "service">): Omit<EndpointRequest, "networkId"> {
  const { ipv4, ipv6, mac, ...rest } = request;
  return { ...rest, ...(ipv4 && { ipv4 }), ...(ipv6 && { ipv6 }), ...(mac && { mac }) };
}

function remember(use: NetworkUse, endpoint: Endpoint): void {
  use.endpoint = endpoint;
  use.networkId = endpoint.networkId;
}

/** Connects a sandbox that exists to one network. */
export async function connectUse(
  ctx: EngineContext,
  container: Container,
  key: string,
  use: NetworkUse,
): Promise<void> {
  const known = (use.networkId && ctx.networks.find(use.networkId)) || ctx.networks.find(key);
  const network = known?.scope === "local" ? known : await attachThroughManagers(ctx, container, key, known, use);
  const { settings } = use;
  const mac = settings.MacAddress || (isMain(container, network) ? container.record.config.MacAddress : "");
  const lent = lentAddresses.get(use);
  const ipv4 = lent?.ipv4 ?? settings.IPAMConfig?.IPv4Address;
  const ipv6 = lent?.ipv6 ?? settings.IPAMConfig?.IPv6Address;
  const endpoint = await ctx.network.connect(container.id, {
    networkId: network.id,
    name: container.name,
    aliases: dnsNames(container, network, use),
    ...(ipv4 && { ipv4 }),
    ...(ipv6 && { ipv6 }),
    ...(mac && { mac }),
    driverOptions: settings.DriverOpts,
  });
  remember(use, endpoint);
}

const isMain = (container: Container, network: NetworkSpec): boolean => {
  const mode = container.record.hostConfig.NetworkMode;
  return mode === network.name || mode === network.id || (mode === "default" && network.name === "bridge");
};

/** Addresses that the managers chose, between their answer and the connection. */
const lentAddresses = new WeakMap<NetworkUse, { ipv4?: string; ipv6?: string }>();

async function attachThroughManagers(
  ctx: EngineContext,
  container: Container,
  key: string,
  known: NetworkSpec | undefined,
  use: NetworkUse,
): Promise<NetworkSpec> {
  const swarm = ctx.swarm();
  if (swarm?.node.local().state !== "active") throw notFound(`network ${key} not found`);
  const wanted = [use.settings.IPAMConfig?.IPv4Address, use.settings.IPAMConfig?.IPv6Address].filter(
    (address): address is string => address !== undefined && address !== "",
  );
  try {
    const { attachmentId, task } = await swarm.node.attachNetwork({
      // By the name that the user gave, which is then the one in the managers' words; a short id they do not know.
      target: known?.id.startsWith(key) ? known.id : key,
      addresses: wanted,
      containerId: container.id,
    });
    use.attachmentId = attachmentId;
    const [attachment] = await swarm.networks.attachments(task);
    if (!attachment) throw unavailable("the managers assigned no address");
    await ensureHere(ctx, attachment.network, attachment.lbAddress);
    const { ipv4, ipv6 } = attachment.request;
    lentAddresses.set(use, { ...(ipv4 !== undefined && { ipv4 }), ...(ipv6 !== undefined && { ipv6 }) });
    return attachment.network;
  } catch (error) {
    detachFromManagers(ctx, container, use);
    throw attachError(key, error);
  }
}

function attachError(key: string, error: unknown): SkeinError {
  // On a node of a swarm the agent has said it already.
  if (error instanceof SkeinError && /^(Could not attach to|attaching to) network /.test(error.message)) return error;
  const code = grpcCodeOf(error);
  const name = code === undefined ? undefined : grpcNames[code];
  const detail = name ? `rpc error: code = ${name} desc = ${detailOf(error)}` : messageOf(error);
  const message = `Could not attach to network ${key}: ${detail}`;
  if (code === grpcStatus.NOT_FOUND) return notFound(message);
  if (code === grpcStatus.PERMISSION_DENIED) return forbidden(message);
  return new SkeinError(error instanceof SkeinError ? error.code : "internal", message, { cause: error });
}

const detailOf = (error: unknown): string =>
  error instanceof Error && "details" in error && typeof error.details === "string" ? error.details : messageOf(error);

/** Go's names of gRPC codes, as they appear in Docker's messages. */
const grpcNames: Partial<Record<number, string>> = {
  [grpcStatus.CANCELLED]: "Canceled",
  [grpcStatus.UNKNOWN]: "Unknown",
  [grpcStatus.INVALID_ARGUMENT]: "InvalidArgument",
  [grpcStatus.DEADLINE_EXCEEDED]: "DeadlineExceeded",
  [grpcStatus.NOT_FOUND]: "NotFound",
  [grpcStatus.ALREADY_EXISTS]: "AlreadyExists",
  [grpcStatus.PERMISSION_DENIED]: "PermissionDenied",
  [grpcStatus.RESOURCE_EXHAUSTED]: "ResourceExhausted",
  [grpcStatus.FAILED_PRECONDITION]: "FailedPrecondition",
  [grpcStatus.ABORTED]: "Aborted",
  [grpcStatus.UNIMPLEMENTED]: "Unimplemented",
  [grpcStatus.INTERNAL]: "Internal",
  [grpcStatus.UNAVAILABLE]: "Unavailable",
  [grpcStatus.UNAUTHENTICATED]: "Unauthenticated",
};

/** Disconnects a running container from one network. */
export async function disconnectUse(ctx: EngineContext, container: Container, use: NetworkUse): Promise<void> {
  await ctx.network.disconnect(container.id, use.networkId);
  use.endpoint = undefined;
  detachFromManagers(ctx, container, use);
  writeEtc(ctx, container);
}

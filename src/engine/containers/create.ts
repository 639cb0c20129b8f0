/** `docker create`: from a request to a container that is ready to start, or to nothing at all. */
import { chmodSync, chownSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { isIP } from "node:net";
import { join } from "node:path";
import { conflict, invalid, messageOf, notFound } from "../../base/errors.ts";
import { hexId, shortId } from "../../base/id.ts";
import { runtimeNamed } from "../../runtime/oci.ts";
import type { Image } from "../../runtime/types.ts";
import type { EngineContext } from "../context.ts";
import type { EndpointSettings, HostConfig } from "../shapes.ts";
import { cgroupVersion } from "../system/system.ts";
import { NEVER, rfc3339Nano } from "../time.ts";
import type { ContainerCreate, TaskExtras } from "../types.ts";
import { emitContainer } from "./attributes.ts";
import type { Container } from "./container.ts";
import { copyUp } from "./copyup.ts";
import { discardUnsupported } from "./limits.ts";
import { checkLinks } from "./links.ts";
import { commandLine, mergeConfig } from "./merge.ts";
import { planMounts } from "./mounts.ts";
import { checkName, randomName } from "./names.ts";
import type { ContainerRecord, NetworkUse } from "./record.ts";
import { runtimeSpec } from "./spec.ts";
import { verifyConfig } from "./verify.ts";

const SHM_SIZE = 64 * 1024 * 1024;

/** "alpine" is asked for as "alpine:latest"; digests and ids stay. */
function withTag(reference: string): string {
  return /[:@][^/]*$/.test(reference) ? reference : `${reference}:latest`;
}

export async function createContainer(
  ctx: EngineContext,
  request: ContainerCreate,
): Promise<{ Id: string; Warnings: string[] }> {
  if (request.config.Image === "") throw invalid("no image specified");
  const id = hexId();
  const name = request.name ? checkName(request.name) : randomName((taken) => ctx.registry.nameTaken(taken));
  const image = await ctx.runtime.images.find(request.config.Image);
  if (!image) throw notFound(`No such image: ${withTag(request.config.Image)}`);
  checkPlatform(request, image);
  ctx.registry.reserve(name, id);
  const undo = new AsyncDisposableStack();
  undo.defer(() => ctx.registry.release(name, id));
  try {
    const { container, warnings } = await build(ctx, id, name, image, request, undo);
    undo.move();
    emitContainer(ctx, container, "create");
    return { Id: id, Warnings: warnings };
  } catch (error) {
    await undo.disposeAsync();
    throw error;
  }
}

/** Another container that this one needs; 400 and not 404, which the command line takes for a missing image. */
function existing(ctx: EngineContext, ref: string): Container {
  const found = ctx.registry.find(ref);
  if (!found) throw invalid(`No such container: ${ref}`);
  return found;
}

/** The images that mounts name, as far as they are here. */
async function mountedImages(ctx: EngineContext, { Mounts }: HostConfig): Promise<Map<string, Image>> {
  const images = new Map<string, Image>();
  for (const { Type, Source } of Mounts) {
    const image = Type === "image" && Source !== "" ? await ctx.runtime.images.find(Source) : undefined;
    if (image) images.set(Source, image);
  }
  return images;
}

/** "linux/arm64/v8" must be the image's own, as far as it is given. */
function checkPlatform({ platform, config }: ContainerCreate, image: Image): void {
  if (!platform) return;
  const [os = "", architecture = ""] = platform.toLowerCase().split("/");
  if (os === image.os && (architecture === "" || architecture === image.architecture)) return;
  throw notFound(
    `image with reference ${config.Image} was found but does not match the specified platform: ` +
      `wanted ${platform}, actual: ${image.os}/${image.architecture}`,
  );
}

async function build(
  ctx: EngineContext,
  id: string,
  name: string,
  image: Image,
  request: ContainerCreate,
  undo: AsyncDisposableStack,
): Promise<{ container: Container; warnings: string[] }> {
  const wanted = withDefaults(request.hostConfig);
  const config = mergeConfig(request.config, image.config);
  verifyConfig(config, wanted);
  wanted.Runtime ||= runtimeNamed(ctx.runtime.ociRuntimes, "").name;
  runtimeNamed(ctx.runtime.ociRuntimes, wanted.Runtime);
  const { host: hostConfig, warnings } = discardUnsupported(wanted);
  checkLinks(ctx, hostConfig.Links);
  if (!config.Hostname) {
    config.Hostname = hostConfig.NetworkMode === "host" || hostConfig.UTSMode === "host" ? ctx.hostname : shortId(id);
  }
  const images = await mountedImages(ctx, hostConfig);
  const mounts = planMounts(config, hostConfig, {
    volume: (wanted) => {
      const { volume, made } = ctx.volumes.create(wanted);
      if (made) {
        ctx.events.emit({ type: "volume", action: "create", id: volume.name, attributes: { driver: "local" } });
        undo.defer(() => void ctx.volumes.remove(volume.name, [], true));
      }
      return volume;
    },
    isEmpty: (volume) => ctx.volumes.isEmpty(volume),
    mountsOf: (ref) => existing(ctx, ref).record.mounts,
    image: (ref) => images.get(ref),
    flatReadOnly: request.flatReadOnly ?? false,
  });
  const { path, args } = commandLine(config);
  const record: ContainerRecord = {
    id,
    name,
    created: rfc3339Nano(ctx.clock.now()),
    imageId: image.id,
    path,
    args,
    config,
    hostConfig,
    networks: planNetworks(ctx, hostConfig, request),
    mounts,
    state: { status: "created", pid: 0, exitCode: 0, error: "", oomKilled: false, startedAt: NEVER, finishedAt: NEVER },
    restartCount: 0,
    restartDelay: 0,
    manuallyStopped: false,
    started: false,
    task: request.task && storeTask(ctx, id, request.task, undo),
  };
  const container = ctx.registry.add(record);
  undo.defer(() => ctx.registry.drop(container));
  undo.defer(() =>
    ctx.runtime
      .remove(id)
      .catch((error) => ctx.log.warn("half-made container left", { container: id, error: messageOf(error) })),
  );
  await ctx.runtime.create(
    runtimeSpec(record, {
      netnsPath: undefined,
      etc: undefined,
      extraMounts: [],
      pidOf: () => 0,
      ipcOf: () => ({ containerPid: 0, containerId: "" }),
      partOf: ({ source }) => source,
    }),
  );
  await copyUp(ctx, record);
  // Last: what has no record when a daemon was killed was promised to nobody, and is swept.
  ctx.registry.save(container);
  return { container, warnings };
}

function withDefaults(host: HostConfig): HostConfig {
  return {
    ...host,
    NetworkMode: host.NetworkMode === "" || host.NetworkMode === "default" ? "bridge" : host.NetworkMode,
    LogConfig: { Type: host.LogConfig.Type || "json-file", Config: host.LogConfig.Config },
    RestartPolicy: { ...host.RestartPolicy, Name: host.RestartPolicy.Name || "no" },
    ShmSize: host.ShmSize || SHM_SIZE,
    IpcMode: host.IpcMode || "private",
    // As much swap as memory.
    MemorySwap: host.MemorySwap || Math.max(0, host.Memory) * 2,
    CgroupnsMode: host.CgroupnsMode || (cgroupVersion() === "2" && !host.Privileged ? "private" : "host"),
  };
}

/** The networks of a new container by name, its main one first. */
function planNetworks(ctx: EngineContext, host: HostConfig, request: ContainerCreate): Record<string, NetworkUse> {
  const mode = host.NetworkMode;
  if (request.task && request.task.attachments.length > 0) {
    return Object.fromEntries(
      request.task.attachments.map(({ network }) => [network.name, use(emptySettings(), network.id)]),
    );
  }
  if (mode.startsWith("container:")) {
    const ref = mode.slice("container:".length);
    if (ref === "") throw invalid("invalid container format container:<name|id>");
    existing(ctx, ref);
    return {};
  }
  const nameOf = (key: string) => (key === "default" ? "bridge" : (ctx.networks.find(key)?.name ?? key));
  const main = nameOf(mode);
  const wanted = new Map<string, EndpointSettings>([[main, emptySettings()]]);
  for (const [key, settings] of Object.entries(request.networking.EndpointsConfig)) wanted.set(nameOf(key), settings);
  if (wanted.size > 1 && ["host", "none"].includes(main)) {
    throw invalid(
      main === "host"
        ? "cannot connect container to host network - container must be in host network mode"
        : "container cannot be connected to multiple networks with one of the networks in private (none) mode",
    );
  }
  const out: Record<string, NetworkUse> = {};
  for (const [name, settings] of wanted) {
    checkSettings(name, settings, ctx);
    out[name] = use(settings, ctx.networks.find(name)?.id ?? "");
  }
  return out;
}

/** What only user-defined networks can do. */
export function checkSettings(name: string, settings: EndpointSettings, ctx: EngineContext): void {
  const isDefault = ["bridge", "host", "none"].includes(name);
  const { IPv4Address = "", IPv6Address = "", LinkLocalIPs = [] } = settings.IPAMConfig ?? {};
  if (IPv4Address && isIP(IPv4Address) !== 4) throw invalid(`invalid IPv4 address: ${IPv4Address}`);
  if (IPv6Address && isIP(IPv6Address) !== 6) throw invalid(`invalid IPv6 address: ${IPv6Address}`);
  if (isDefault && (IPv4Address || IPv6Address)) {
    throw invalid("user specified IP address is supported on user defined networks only");
  }
  if (isDefault && settings.Aliases.length > 0) {
    throw invalid("network-scoped aliases are only supported for user-defined networks");
  }
  if (LinkLocalIPs.length > 0) throw conflict("link-local addresses are not supported by skein");
  const network = ctx.networks.find(name);
  if (network?.configOnly) throw invalid(`cannot connect container to config-only network ${name}`);
}

const emptySettings = (): EndpointSettings => ({
  IPAMConfig: undefined,
  Links: [],
  Aliases: [],
  MacAddress: "",
  DriverOpts: {},
  GwPriority: 0,
});

export const use = (settings: EndpointSettings, networkId: string): NetworkUse => ({
  settings,
  networkId,
  endpoint: undefined,
  attachmentId: "",
});

/** Files of a task go to the run directory, which is a tmpfs: secrets are never written to a disk. */
function storeTask(
  ctx: EngineContext,
  id: string,
  task: TaskExtras,
  undo: AsyncDisposableStack,
): ContainerRecord["task"] {
  const dir = taskDir(ctx, id);
  undo.defer(() => rmSync(dir, { recursive: true, force: true }));
  mkdirSync(dir, { recursive: true, mode: 0o711 });
  const files = task.files.map((file, index) => {
    const path = join(dir, String(index));
    writeFileSync(path, file.data, { mode: 0o600 });
    chownSync(path, file.uid, file.gid);
    chmodSync(path, file.mode);
    return { target: file.target, path };
  });
  const attachments = task.attachments.map(({ network, lbAddress, request }) => ({
    networkId: network.id,
    networkName: network.name,
    lbAddress: lbAddress ?? "",
    request: {
      name: request.name,
      aliases: request.aliases,
      ipv4: request.ipv4 ?? "",
      ipv6: request.ipv6 ?? "",
      mac: request.mac ?? "",
      driverOptions: request.driverOptions ?? {},
      service: request.service,
    },
  }));
  return { attachments, files };
}

export const taskDir = (ctx: EngineContext, id: string): string => join(ctx.paths.run, "tasks", id);

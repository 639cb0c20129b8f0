/** `docker ps`. */
import { invalid } from "../../base/errors.ts";
import type { EngineContext } from "../context.ts";
import { exact, flag, knownFilters, labels, pattern } from "../filters.ts";
import { humanDuration, parseRfc3339 } from "../time.ts";
import type { Filters, Json } from "../types.ts";
import type { Container } from "./container.ts";
import { endpointDocument, mountDocument, sizes, withoutEmpty } from "./inspect.ts";
import { linkNames } from "./links.ts";
import { parsePort, portList } from "./ports.ts";
import type { ContainerRecord } from "./record.ts";

const KNOWN = [
  "ancestor",
  "before",
  "exited",
  "expose",
  "health",
  "id",
  "isolation",
  "is-task",
  "label",
  "name",
  "network",
  "publish",
  "since",
  "status",
  "volume",
];
const STATUSES = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];

const HEALTHS = ["starting", "healthy", "unhealthy", "none"];

/** "Up 5 minutes (healthy)", "Exited (0) 2 hours ago". */
export function statusText(container: Container, now: number): string {
  const { state } = container.record;
  const since = (time: string) => humanDuration(Math.max(0, now - (parseRfc3339(time) ?? now)));
  switch (state.status) {
    case "created":
      return "Created";
    case "removing":
      return "Removal In Progress";
    case "dead":
      return "Dead";
    case "exited":
      return `Exited (${state.exitCode}) ${since(state.finishedAt)} ago`;
    case "restarting":
      return `Restarting (${state.exitCode}) ${since(state.finishedAt)} ago`;
    case "paused":
      return `Up ${since(state.startedAt)} (Paused)`;
    case "running": {
      const health = container.health?.status;
      const suffix = health === undefined ? "" : health === "starting" ? " (health: starting)" : ` (${health})`;
      return `Up ${since(state.startedAt)}${suffix}`;
    }
  }
}

export interface ListOptions {
  readonly all: boolean;
  readonly limit?: number | undefined;
  readonly size: boolean;
  readonly filters: Filters;
}

export async function listContainers(ctx: EngineContext, options: ListOptions): Promise<Json[]> {
  const { filters } = options;
  knownFilters(filters, KNOWN);
  for (const status of filters.get("status") ?? []) {
    if (!STATUSES.includes(status)) throw invalid(`invalid filter 'status=${status}'`);
  }
  for (const health of filters.get("health") ?? []) {
    if (!HEALTHS.includes(health)) throw invalid(`Unrecognised filter value for health: ${health}`);
  }
  const created = (container: Container) => parseRfc3339(container.record.created) ?? 0;
  let found = ctx.registry.all().sort((a, b) => created(b) - created(a));
  found = between(ctx, found, filters);
  const limit = options.limit ?? 0;
  const everything = options.all || limit > 0 || ["status", "exited"].some((name) => filters.get(name)?.length);
  const wanted = await ancestors(ctx, filters);
  found = found.filter(
    (container) =>
      (everything || container.up || container.record.state.status === "restarting") &&
      matches(ctx, container, filters, wanted),
  );
  if (limit > 0) found = found.slice(0, limit);
  return Promise.all(found.map((container) => summary(ctx, container, options.size)));
}

/** `before` and `since` cut the list, which is newest first, at a container. */
function between(ctx: EngineContext, all: Container[], filters: Filters): Container[] {
  let found = all;
  for (const ref of filters.get("before") ?? []) found = found.slice(found.indexOf(ctx.registry.get(ref)) + 1);
  for (const ref of filters.get("since") ?? []) {
    const at = found.indexOf(ctx.registry.get(ref));
    found = at < 0 ? found : found.slice(0, at);
  }
  return found;
}

/** Image ids that count for `ancestor`: the image itself and those built on its layers. */
async function ancestors(ctx: EngineContext, filters: Filters): Promise<Set<string> | undefined> {
  const refs = filters.get("ancestor");
  if (!refs?.length) return undefined;
  const ids = new Set<string>();
  const all = await ctx.runtime.images.list();
  for (const ref of refs) {
    const image = await ctx.runtime.images.find(ref);
    if (!image) continue;
    const chain = image.layers.join();
    for (const other of all) if (`${other.layers.join()},`.startsWith(`${chain},`)) ids.add(other.id);
  }
  return ids;
}

function matches(
  ctx: EngineContext,
  container: Container,
  filters: Filters,
  wantedImages: Set<string> | undefined,
): boolean {
  const { record } = container;
  const { state, config } = record;
  const isTask = flag(filters, "is-task");
  const networks = Object.entries(record.networks).flatMap(([key, use]) => [key, use.networkId]);
  const volumes = record.mounts.flatMap((mount) => [mount.name, mount.source, mount.target]);
  return (
    pattern(filters, "name", record.name, `/${record.name}`) &&
    (filters.get("id") ?? [record.id]).some((id) => id !== "" && record.id.startsWith(id)) &&
    labels(filters, config.Labels) &&
    exact(filters, "status", state.status) &&
    exact(filters, "health", container.health?.status ?? "none") &&
    (!filters.get("exited")?.length ||
      (state.status === "exited" && exact(filters, "exited", String(state.exitCode)))) &&
    (isTask === undefined || isTask === (record.task !== undefined)) &&
    (wantedImages === undefined || wantedImages.has(record.imageId)) &&
    exactOrPrefix(filters, "network", networks) &&
    exact(filters, "volume", ...volumes) &&
    portsMatch("expose", filters.get("expose"), exposed(ctx, container)) &&
    portsMatch("publish", filters.get("publish"), published(ctx, container))
  );
}

function exactOrPrefix(filters: Filters, name: string, candidates: readonly string[]): boolean {
  const wanted = filters.get(name);
  return (
    !wanted?.length ||
    wanted.some((value) => candidates.some((c) => c === value || (c.length === 64 && c.startsWith(value))))
  );
}

function published(ctx: EngineContext, container: Container): string[] {
  // Ports of the host, which only a running container has.
  return container.up ? ctx.network.publishedPorts(container.id).map((p) => `${p.hostPort}/${p.protocol}`) : [];
}

function exposed(ctx: EngineContext, container: Container): string[] {
  if (!container.up) return [];
  const ports = ctx.network.publishedPorts(container.id).map((p) => `${p.containerPort}/${p.protocol}`);
  return [...Object.keys(container.record.config.ExposedPorts), ...ports];
}

function portNumber(filter: string, value: string, text: string): number {
  const refuse = (why: string) =>
    invalid(
      `error while looking up for ${filter} ${value}: strconv.ParseUint: parsing ${JSON.stringify(text)}: ${why}`,
    );
  if (!/^\d+$/.test(text)) throw refuse("invalid syntax");
  if (Number(text) > 65535) throw refuse("value out of range");
  return Number(text);
}

/** "80", "80/udp", "8000-8010/tcp". */
function portsMatch(filter: string, wanted: readonly string[] | undefined, have: readonly string[]): boolean {
  if (!wanted?.length) return true;
  return wanted.some((value) => {
    const [range = "", protocol = "tcp"] = value.split("/");
    const [from = 0, to = from] = range.split("-").map((text) => portNumber(filter, value, text));
    return have.map(parsePort).some((p) => p.protocol === protocol && p.port >= from && p.port <= to);
  });
}

async function summary(ctx: EngineContext, container: Container, size: boolean): Promise<Json> {
  const { record } = container;
  return {
    Id: record.id,
    Names: [`/${record.name}`, ...linkNames(ctx, container)],
    Image: await imageName(ctx, record),
    ImageID: record.imageId,
    Command: [record.path, ...record.args.map((arg) => (/\s/.test(arg) ? `'${arg}'` : arg))].join(" "),
    Created: Math.floor((parseRfc3339(record.created) ?? 0) / 1000),
    Ports: container.up ? portList(Object.keys(record.config.ExposedPorts), ctx.network.publishedPorts(record.id)) : [],
    ...(size && withoutEmpty(await sizes(ctx, record), ["SizeRw"])),
    Labels: record.config.Labels,
    State: record.state.status,
    Status: statusText(container, ctx.clock.now()),
    HostConfig: { NetworkMode: record.hostConfig.NetworkMode },
    NetworkSettings: {
      Networks: Object.fromEntries(
        Object.entries(record.networks).map(([key, use]) => [key, endpointDocument(ctx, container, key, use)]),
      ),
    },
    Mounts: record.mounts.filter((mount) => mount.type !== "tmpfs").map(mountDocument),
  };
}

/** The name it was made from, or the id when that name means another image by now. */
async function imageName(ctx: EngineContext, record: ContainerRecord): Promise<string> {
  const now = await ctx.runtime.images.find(record.config.Image);
  return now?.id === record.imageId ? record.config.Image : record.imageId;
}

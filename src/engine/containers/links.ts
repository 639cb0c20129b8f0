/**
 * `--link`: other containers by an alias of one's own, in /etc/hosts, and on the default bridge as variables too. The
 * hosts file follows a target that starts again with another address; the variables are those of the start, as Docker's.
 */
import { conflict, invalid, messageOf, notFound, SkeinError } from "../../base/errors.ts";
import { shortId } from "../../base/id.ts";
import type { EngineContext } from "../context.ts";
import type { Container } from "./container.ts";
import { parsePort } from "./ports.ts";

interface Link {
  readonly ref: string;
  readonly alias: string;
}

/** "name:alias", "name", and Docker's stored form "/name:/self/alias". */
export function parseLink(text: string): Link {
  const [ref = "", alias = ref, ...more] = text.split(":");
  const name = alias.split("/").at(-1) ?? "";
  if (ref === "" || name === "" || more.length > 0) throw invalid(`bad format for links: ${text}`);
  return { ref: ref.replace(/^\//, ""), alias: name };
}

/** Refuses links of a new container that lead nowhere. */
export function checkLinks(ctx: EngineContext, links: readonly string[]): void {
  for (const text of links) {
    const { ref } = parseLink(text);
    let target: Container;
    try {
      target = ctx.registry.get(ref);
    } catch (error) {
      // As Docker 400 and not 404, which the command line takes for a missing image.
      throw new SkeinError("invalid", `could not get container for ${ref}: ${messageOf(error)}`, { cause: error });
    }
    if (target.record.hostConfig.NetworkMode === "host") {
      throw conflict(
        "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
      );
    }
  }
}

/** On the default bridge links are Docker's old ones; elsewhere the network's endpoint has them as well. */
const isLegacy = (container: Container): boolean => container.record.hostConfig.NetworkMode === "bridge";

interface Resolved extends Link {
  readonly target: Container;
  readonly ipv4: string;
}

/** Links that hold now: the target runs on the network that the link was asked for. */
function resolved(ctx: EngineContext, container: Container): { legacy: Resolved[]; all: Resolved[] } {
  const { hostConfig, networks } = container.record;
  const on = (network: string, texts: readonly string[]): Resolved[] =>
    texts.map(parseLink).flatMap((link) => {
      const target = ctx.registry.find(link.ref);
      const address = target?.up ? target.record.networks[network]?.endpoint?.ipv4 : undefined;
      return target && address ? [{ ...link, target, ipv4: address.split("/")[0] ?? "" }] : [];
    });
  const legacy = isLegacy(container) ? on("bridge", hostConfig.Links) : [];
  return { legacy, all: [...legacy, ...Object.entries(networks).flatMap(([key, use]) => on(key, use.settings.Links))] };
}

/** Lines for /etc/hosts: "172.17.0.2	alias 0123456789ab name". */
export function linkHosts(ctx: EngineContext, container: Container): string {
  return resolved(ctx, container)
    .all.map(({ ipv4, alias, target }) => {
      const names = [...new Set([alias, shortId(target.id), target.name])];
      return `${ipv4}\t${names.join(" ")}\n`;
    })
    .join("");
}

/** The variables of a start on the default bridge. Throws where a target does not run. */
export function linkEnv(ctx: EngineContext, container: Container): string[] {
  if (!isLegacy(container)) return [];
  const { legacy } = resolved(ctx, container);
  for (const text of container.record.hostConfig.Links) {
    const { ref, alias } = parseLink(text);
    if (legacy.some((link) => link.ref === ref)) continue;
    const target = ctx.registry.get(ref);
    throw conflict(`Cannot link to a non running container: /${target.name} AS /${container.name}/${alias}`);
  }
  return legacy.flatMap(({ alias, target, ipv4 }) => {
    const prefix = alias.toUpperCase().replace(/-/g, "_");
    const ports = Object.keys(target.record.config.ExposedPorts)
      .map(parsePort)
      .sort((a, b) => a.port - b.port || a.protocol.localeCompare(b.protocol));
    const [first] = ports;
    return [
      `${prefix}_NAME=/${container.name}/${alias}`,
      ...(first ? [`${prefix}_PORT=${first.protocol}://${ipv4}:${first.port}`] : []),
      ...ports.flatMap(({ port, protocol }) => {
        const name = `${prefix}_PORT_${port}_${protocol.toUpperCase()}`;
        return [
          `${name}=${protocol}://${ipv4}:${port}`,
          `${name}_ADDR=${ipv4}`,
          `${name}_PORT=${port}`,
          `${name}_PROTO=${protocol}`,
        ];
      }),
      ...target.record.config.Env.filter((entry) => entry.includes("=") && !/^(HOME|PATH)=/.test(entry)).map(
        (entry) => `${prefix}_ENV_${entry}`,
      ),
    ];
  });
}

const linkTexts = (container: Container): string[] => [
  ...container.record.hostConfig.Links,
  ...Object.values(container.record.networks).flatMap((use) => use.settings.Links),
];

/** Running containers that link to this one. */
export function linkersOf(ctx: EngineContext, target: Container): Container[] {
  return ctx.registry
    .all()
    .filter(
      (other) =>
        other !== target &&
        other.up &&
        linkTexts(other).some((text) => ctx.registry.find(parseLink(text).ref) === target),
    );
}

/** Names that links on the default bridge give a container: "/other/alias". */
export function linkNames(ctx: EngineContext, target: Container): string[] {
  return ctx.registry.all().flatMap((other) =>
    (isLegacy(other) ? other.record.hostConfig.Links : [])
      .map(parseLink)
      .filter(({ ref }) => ctx.registry.find(ref) === target)
      .map(({ alias }) => `/${other.name}/${alias}`),
  );
}

/** `docker rm --link other/alias`. */
export function removeLink(ctx: EngineContext, name: string): void {
  const [, parent = "", alias = ""] = /^\/?([^/]+)\/([^/]+)$/.exec(name) ?? [];
  const container = parent ? ctx.registry.get(parent) : undefined;
  const host = container?.record.hostConfig;
  const kept = host?.Links.filter((text) => parseLink(text).alias !== alias);
  if (!container || !host || !kept || kept.length === host.Links.length) {
    throw notFound(`Could not get parent name ${name}: no such link`);
  }
  host.Links = kept;
  ctx.registry.save(container);
}

/**
 * How a service's published ports are answered, by labels of the service. Docker's tools and managers carry them along
 * as they carry any label; nodes of ours act on them.
 *
 *   skein.publish.OPTION                   of every port
 *   skein.publish.PORT[/PROTOCOL].OPTION   of one published port; goes before the other
 *
 * OPTION is `address` (addresses and subnets of hosts, by commas), `policy` (`mesh` or `local`) or `proxy` (`none` or
 * `v2`). Labels that cannot be understood close the port: whoever asked for 127.0.0.1 and mistyped is not opened to the
 * world. (Managers of ours refuse such labels; others cannot.)
 */
import { containsSubnet, formatSubnet, parseCidr, parseIp, type Subnet, subnetOf } from "./address.ts";

export interface PublishOptions {
  /** Subnets of host addresses at which the port is published, CIDR; none: nowhere. Undefined: at all addresses. */
  readonly bound?: readonly string[] | undefined;
  /** Answered only where a task runs. */
  readonly local?: boolean | undefined;
  /** Tasks are told the client's address by the PROXY protocol, version 2. */
  readonly proxy?: boolean | undefined;
}

export interface PublishedPortSpec {
  readonly protocol: "tcp" | "udp" | "sctp";
  /** 0: the managers choose. */
  readonly publishedPort: number;
  readonly mode: "ingress" | "host";
}

const PREFIX = "skein.publish.";
const key = /^(?:(\d{1,5})(?:\/(tcp|udp|sctp))?\.)?(address|policy|proxy)$/;
const choices: Record<"policy" | "proxy", readonly [string, string]> = {
  policy: ["mesh", "local"],
  proxy: ["none", "v2"],
};

interface Entry {
  readonly label: string;
  readonly port: number | undefined;
  readonly protocol: string | undefined;
  readonly options: PublishOptions;
}

type Labels = Readonly<Record<string, string>>;

/** Whether a service has labels of this kind at all. */
export const hasPublishLabels = (labels: Labels): boolean => Object.keys(labels).some((one) => one.startsWith(PREFIX));

/** The labels of this kind alone, in order: what tasks have to be made anew for when it changes. */
export function publishLabels(labels: Labels): [string, string][] {
  return Object.entries(labels)
    .filter(([label]) => label.startsWith(PREFIX))
    .sort(([a], [b]) => (a < b ? -1 : 1));
}

/** The options of one port. */
export function publishOptions(labels: Labels, port: Omit<PublishedPortSpec, "mode">): PublishOptions {
  const entries: Entry[] = [];
  for (const [label, value] of publishLabels(labels)) {
    const entry = parseLabel(label, value);
    if (typeof entry === "string") return { bound: [] };
    const { port: number, protocol } = entry;
    const concerns =
      (number ?? port.publishedPort) === port.publishedPort && (protocol ?? port.protocol) === port.protocol;
    if (concerns) entries.push(entry);
  }
  const precision = ({ port: number, protocol }: Entry) =>
    Number(number !== undefined) + Number(protocol !== undefined);
  entries.sort((a, b) => precision(a) - precision(b));
  const { bound, local, proxy }: PublishOptions = Object.assign({}, ...entries.map(({ options }) => options));
  return { ...(bound && { bound }), ...(local && { local }), ...(proxy && { proxy }) };
}

/** What is wrong with the labels of a service with these ports, in words for its user. */
export function publishProblem(labels: Labels, ports: readonly PublishedPortSpec[]): string | undefined {
  for (const [label, value] of publishLabels(labels)) {
    const entry = parseLabel(label, value);
    if (typeof entry === "string") return entry;
    if (entry.port === undefined) continue;
    const is = (one: PublishedPortSpec) =>
      one.publishedPort === entry.port && one.protocol === (entry.protocol ?? one.protocol);
    if (!ports.some(is)) return `label ${label}: the service does not publish port ${entry.port}`;
  }
  for (const port of ports) {
    const { bound, proxy } = publishOptions(labels, port);
    const name = `port ${port.publishedPort || "chosen by the managers"}/${port.protocol}`;
    if (proxy && port.mode === "host") return `${name}: skein does not support the PROXY protocol in mode host yet`;
    if (proxy && port.protocol !== "tcp") {
      return `${name}: the PROXY protocol is for TCP; name the ports that are to have it: ${PREFIX}PORT.proxy=v2`;
    }
    if (port.protocol === "sctp" && bound?.some((one) => one.includes(":"))) {
      return `${name}: SCTP is published at IPv4 addresses only`;
    }
    const subnet = port.mode === "host" ? bound?.find((one) => !isHost(one) && !everywhere.has(one)) : undefined;
    if (subnet) return `${name}: mode host takes addresses, not subnets: ${subnet}`;
  }
  return undefined;
}

/** Addresses for a socket, in the words of `docker run -p`: only for lists without subnets. */
export const hostAddresses = (bound: readonly string[]): string[] => bound.map((one) => one.split("/")[0] ?? "");

/** Subnets of one family, without those that lie in another: a set of the kernel takes none that overlap. */
export function subnetsOf(bound: readonly string[], family: 4 | 6): string[] {
  const parsed = bound.flatMap((text) => parseCidr(text)?.subnet ?? []).filter((one) => one.family === family);
  const distinct = [...new Map(parsed.map((one) => [formatSubnet(one), one])).values()];
  const outermost = distinct.filter((one) => !distinct.some((other) => other !== one && containsSubnet(other, one)));
  return outermost.map(formatSubnet).sort();
}

const everywhere = new Set(["0.0.0.0/0", "::/0"]);
const isHost = (cidr: string): boolean => cidr.endsWith(cidr.includes(":") ? "/128" : "/32");

/** A label, or what is wrong with it. */
function parseLabel(label: string, value: string): Entry | string {
  const [, port, protocol, option] = key.exec(label.slice(PREFIX.length)) ?? [];
  if (option === undefined) return `invalid label ${label}: options of published ports are address, policy and proxy`;
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65535)) return `invalid label ${label}: invalid port`;
  const entry = (options: PublishOptions): Entry => ({
    label,
    port: port === undefined ? undefined : Number(port),
    protocol,
    options,
  });
  if (option === "policy" || option === "proxy") {
    const [off, on] = choices[option];
    if (value !== off && value !== on) return `invalid value of label ${label}: '${value}': must be ${off} or ${on}`;
    return entry(option === "policy" ? { local: value === on } : { proxy: value === on });
  }
  const bound: string[] = [];
  for (const part of value.split(",")) {
    const subnet = parsePlace(part.trim());
    if (!subnet) return `invalid value of label ${label}: '${part.trim()}' is no IP address or subnet`;
    bound.push(formatSubnet(subnet));
  }
  return entry({ bound });
}

/** 0.0.0.0 and :: are all addresses of their family, as with `docker run -p`. */
function parsePlace(text: string): Subnet | undefined {
  const ip = parseIp(text);
  if (!ip) return parseCidr(text)?.subnet;
  return subnetOf(ip, ip.value === 0n ? 0 : ip.family === 4 ? 32 : 128);
}

/** Contents of /etc/hosts and /etc/resolv.conf of containers, as Docker writes them. */
import { parseIp } from "./address.ts";
import type { DnsConfig } from "./types.ts";

export interface ResolvConf {
  readonly servers: string[];
  readonly search: string[];
  readonly options: string[];
}

export function parseResolvConf(text: string): ResolvConf {
  const servers: string[] = [];
  let search: string[] = [];
  const options: string[] = [];
  for (const raw of text.split("\n")) {
    const [keyword, ...rest] = raw
      .replace(/[#;].*$/, "")
      .trim()
      .split(/\s+/);
    if (keyword === "nameserver" && rest[0]) servers.push(rest[0]);
    else if ((keyword === "search" || keyword === "domain") && rest.length > 0) search = rest;
    else if (keyword === "options") options.push(...rest);
  }
  return { servers, search, options };
}

/** Name servers on the host's loopback mean something else inside a container. */
export const isLoopback = (server: string): boolean => {
  const ip = parseIp(server.split("%")[0] ?? "");
  return ip !== undefined && (ip.family === 4 ? ip.value >> 24n === 127n : ip.value === 1n);
};

const publicServers = ["8.8.8.8", "8.8.4.4"];

/** What a container's resolver is made of: the user's settings where given, else the host's. */
export function effectiveDns(dns: DnsConfig, host: ResolvConf): ResolvConf {
  return {
    servers: dns.servers.length > 0 ? dns.servers : host.servers,
    search: dns.search.length > 0 ? dns.search.filter((domain) => domain !== ".") : host.search,
    options: dns.options.length > 0 ? dns.options : host.options,
  };
}

/**
 * "embedded": the resolver at 127.0.0.11 (user-defined networks); "direct": name servers that the container can
 * reach itself (default bridge); "host": the host's own file (host mode, no network).
 */
export function resolvConf(kind: "embedded" | "direct" | "host", dns: DnsConfig, host: ResolvConf): string {
  const effective = effectiveDns(dns, host);
  if (kind === "embedded") {
    const ndots = effective.options.some((option) => option.startsWith("ndots:"));
    return format(["127.0.0.11"], effective.search, ndots ? effective.options : [...effective.options, "ndots:0"]);
  }
  let { servers } = effective;
  if (kind === "direct" && dns.servers.length === 0) {
    servers = servers.filter((server) => !isLoopback(server));
    if (servers.length === 0) servers = publicServers;
  }
  return format(servers, effective.search, effective.options);
}

function format(servers: readonly string[], search: readonly string[], options: readonly string[]): string {
  return [
    ...(search.length > 0 ? [`search ${search.join(" ")}`] : []),
    ...servers.map((server) => `nameserver ${server}`),
    ...(options.length > 0 ? [`options ${options.join(" ")}`] : []),
    "",
  ].join("\n");
}

const localhost = [
  "127.0.0.1\tlocalhost",
  "::1\tlocalhost ip6-localhost ip6-loopback",
  "fe00::0\tip6-localnet",
  "ff00::0\tip6-mcastprefix",
  "ff02::1\tip6-allnodes",
  "ff02::2\tip6-allrouters",
];

export interface HostsInput {
  readonly hostname: string;
  readonly domainname: string;
  /** Plain addresses, one per network, in the order of the devices. */
  readonly addresses: readonly string[];
  /** "name:ip" or "name=ip"; "host-gateway" for the address given here. */
  readonly extraHosts: readonly string[];
  readonly hostGateway: string;
}

export function hostsFile(input: HostsInput): string {
  const names = input.domainname ? `${input.hostname}.${input.domainname} ${input.hostname}` : input.hostname;
  const extra = input.extraHosts.flatMap((entry) => {
    const at = entry.search(/[:=]/);
    if (at <= 0) return [];
    const address = entry.slice(at + 1);
    return [`${address === "host-gateway" ? input.hostGateway : address}\t${entry.slice(0, at)}`];
  });
  return [...localhost, ...extra, ...input.addresses.map((address) => `${address}\t${names}`), ""].join("\n");
}

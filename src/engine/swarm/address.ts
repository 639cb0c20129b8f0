/**
 * Where this host listens, what it tells others and where its VXLAN lives: Docker's rules for `--listen-addr`,
 * `--advertise-addr` and `--data-path-addr`, with Docker's words. Pure: the host's interfaces come from outside.
 */
import { isIP } from "node:net";
import ipaddr from "ipaddr.js";
import { invalid, type SkeinError } from "../../base/errors.ts";

/** An interface of this host as the rules need it. */
export interface HostInterface {
  readonly name: string;
  /** rtnetlink kind; "" for hardware. */
  readonly kind: string;
  readonly up: boolean;
  readonly loopback: boolean;
  /** Plain addresses, primary ones first. */
  readonly addresses: string[];
}

const DEFAULT_LISTEN_ADDR = "0.0.0.0:2377";
const DEFAULT_PORT = 2377;
const NO_SUCH_INTERFACE = "no such interface";

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** "ip:port", IPv6 in brackets. */
function joinHostPort({ host, port }: HostPort): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Splits "host:port" or "[v6]:port"; undefined when there is no port. */
function splitHostPort(text: string): HostPort | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]*)):(\d+)$/.exec(text);
  if (!match) return undefined;
  const port = Number(match[3]);
  if (port > 65535) throw invalid(`invalid port ${match[3]} in address ${JSON.stringify(text)}`);
  return { host: match[1] ?? match[2] ?? "", port };
}

/** Fills in the port 2377 and the address 0.0.0.0 where they are missing. Throws for nothing at all. */
export function sanitizeAddr(text: string, field: string): HostPort {
  if (text === "") throw invalid(`invalid ${field} "": invalid empty address`);
  const plain = text.replace(/^tcp:\/\//, "");
  const bare = plain.replace(/^\[(.*)\]$/, "$1");
  const split = isIP(bare) === 6 ? undefined : splitHostPort(plain);
  if (split) return { host: split.host || "0.0.0.0", port: split.port };
  if (bare.includes(":") && isIP(bare) === 0)
    throw invalid(`invalid ${field} ${JSON.stringify(text)}: invalid address`);
  return { host: bare, port: DEFAULT_PORT };
}

const isUnspecified = (address: string): boolean => {
  const parsed = ipaddr.parse(address);
  return parsed.range() === "unspecified";
};

/** Go's IsGlobalUnicast: also private addresses, not loopback, link-local, multicast, broadcast, unspecified. */
function isGlobalUnicast(address: string): boolean {
  if (isIP(address) === 0) return false;
  return !["unspecified", "broadcast", "multicast", "linkLocal", "loopback"].includes(ipaddr.parse(address).range());
}

function interfaceAddress(interfaces: readonly HostInterface[], name: string): string {
  const found = interfaces.find((entry) => entry.name === name);
  if (!found) throw invalid(NO_SUCH_INTERFACE);
  const chosen: { 4?: string; 6?: string } = {};
  for (const address of found.addresses) {
    // A link-local address beside a real one is no second choice.
    if (ipaddr.parse(address).range() === "linkLocal") continue;
    const family = isIP(address) === 4 ? 4 : 6;
    const before = chosen[family];
    if (before !== undefined) {
      throw invalid(`interface ${name} has more than one IPv${family} address (${before} and ${address})`);
    }
    chosen[family] = address;
  }
  const address = chosen[4] ?? chosen[6];
  if (address === undefined) throw invalid(`interface ${name} has no usable IPv4 or IPv6 address`);
  return address;
}

/** An interface's name, or an address; `mayBeUnspecified` allows 0.0.0.0. `bad` is the error for all else. */
function resolveInput(
  interfaces: readonly HostInterface[],
  input: string,
  mayBeUnspecified: boolean,
  bad: string,
): string {
  if (interfaces.some((entry) => entry.name === input)) return interfaceAddress(interfaces, input);
  if (isIP(input) !== 0 && (mayBeUnspecified || !isUnspecified(input))) return input;
  throw invalid(bad);
}

export function resolveListen(interfaces: readonly HostInterface[], text: string): HostPort {
  const { host, port } = sanitizeAddr(text, "ListenAddr");
  const bad = "listen address must be an IP address or network interface (with optional port number)";
  return { host: resolveInput(interfaces, host, true, bad), port };
}

/** "" chooses the only address of the host, or says why there is no choice. */
export function resolveAdvertise(interfaces: readonly HostInterface[], text: string, listenPort: number): HostPort {
  if (text === "") {
    try {
      return { host: systemAddress(interfaces), port: listenPort };
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw invalid(
        why.startsWith("has ") ? `could not choose an IP address to advertise since this system ${why}` : why,
      );
    }
  }
  const split = isIP(text) === 6 ? undefined : splitHostPort(text);
  const host = split?.host ?? text.replace(/^\[(.*)\]$/, "$1");
  const bad = "advertise address must be a non-zero IP address or network interface (with optional port number)";
  return { host: resolveInput(interfaces, host, false, bad), port: split?.port ?? listenPort };
}

/** "" stays "": the advertised address serves. */
export function resolveDataPath(interfaces: readonly HostInterface[], text: string): string {
  if (text === "") return "";
  const bad = "data path address must be a non-zero IP address or network interface (without a port number)";
  return resolveInput(interfaces, text, false, bad);
}

/**
 * The host's only address. Hardware first, as Docker does; where there is none (a network namespace), any interface
 * that is no bridge or tunnel of an engine.
 */
export function systemAddress(interfaces: readonly HostInterface[]): string {
  const usable = interfaces.filter((entry) => entry.up && !entry.loopback && entry.addresses.some(isGlobalUnicast));
  const hardware = usable.filter((entry) => entry.kind === "");
  const candidates = hardware.length
    ? hardware
    : usable.filter((entry) => !["bridge", "vxlan", "dummy"].includes(entry.kind) && !entry.name.startsWith("docker"));
  let chosen: { address: string; name: string } | undefined;
  for (const entry of candidates) {
    const own: { 4?: string; 6?: string } = {};
    for (const address of entry.addresses.filter(isGlobalUnicast)) {
      const family = isIP(address) === 4 ? 4 : 6;
      const before = own[family];
      if (before !== undefined) throw multiple(entry.name, entry.name, before, address);
      own[family] = address;
    }
    const address = own[4] ?? own[6];
    if (address === undefined) continue;
    if (chosen) throw multiple(chosen.name, entry.name, chosen.address, address);
    chosen = { address, name: entry.name };
  }
  if (!chosen) throw invalid("could not find the system's IP address");
  return chosen.address;
}

function multiple(nameA: string, nameB: string, a: string, b: string): SkeinError {
  const where =
    nameA === nameB
      ? `has multiple addresses on interface ${nameA} (${a} and ${b})`
      : `has multiple addresses on different interfaces (${a} on ${nameA} and ${b} on ${nameB})`;
  return invalid(`${where} - specify one with --advertise-addr`);
}

export interface ResolvedInit {
  readonly listenAddr: string;
  readonly advertiseAddr: string;
  readonly dataPathAddr: string;
}

/** All of `swarm init`. A manager that listens everywhere must know an own address that others can dial. */
export function resolveInit(
  interfaces: readonly HostInterface[],
  request: { ListenAddr: string; AdvertiseAddr: string; DataPathAddr: string },
): ResolvedInit {
  const listen = resolveListen(interfaces, request.ListenAddr || DEFAULT_LISTEN_ADDR);
  const advertise = resolveAdvertise(interfaces, request.AdvertiseAddr, listen.port);
  const dataPathAddr = resolveDataPath(interfaces, request.DataPathAddr);
  if (isUnspecified(listen.host) && !interfaces.some((entry) => entry.addresses.includes(advertise.host))) {
    try {
      systemAddress(interfaces);
    } catch {
      throw invalid(
        "must specify a listening address because the address to advertise is not recognized as a system address, " +
          "and a system's IP address to use could not be uniquely identified",
      );
    }
  }
  return { listenAddr: joinHostPort(listen), advertiseAddr: joinHostPort(advertise), dataPathAddr };
}

/** All of `swarm join`. No advertise address is no error: the managers see where we come from. */
export function resolveJoin(
  interfaces: readonly HostInterface[],
  request: { ListenAddr: string; AdvertiseAddr: string; DataPathAddr: string; RemoteAddrs: string[] },
): ResolvedInit & { remoteAddrs: string[] } {
  const listen = resolveListen(interfaces, request.ListenAddr || DEFAULT_LISTEN_ADDR);
  if (request.RemoteAddrs.length === 0) throw invalid("at least 1 RemoteAddr is required to join");
  const remoteAddrs = request.RemoteAddrs.map((text) => joinHostPort(sanitizeAddr(text, "remoteAddr")));
  const advertiseAddr =
    request.AdvertiseAddr === "" ? "" : joinHostPort(resolveAdvertise(interfaces, request.AdvertiseAddr, listen.port));
  const dataPathAddr = resolveDataPath(interfaces, request.DataPathAddr);
  return { listenAddr: joinHostPort(listen), advertiseAddr, dataPathAddr, remoteAddrs };
}

/**
 * What a lab is made of, computed from its few parameters: names, addresses, paths. Pure.
 */
import ipaddr from "ipaddr.js";
import { invalid } from "../base/errors.ts";

export interface LabSpec {
  /** "lab" for the one that `npm start` brings up; another name makes another lab beside it. */
  readonly name: string;
  readonly subnet: string;
  readonly prefix: number;
  /** This machine's address on the switch. */
  readonly gateway: string;
  readonly bridge: string;
  /** Run-time state: sockets, logs, namespaces' pins. */
  readonly runDir: string;
  /** Engines' data. */
  readonly stateDir: string;
  readonly cgroup: string;
  /** Base URL of a registry that every engine asks before Docker Hub; "" for none. */
  readonly mirror: string;
  readonly hosts: readonly HostSpec[];
}

export interface HostSpec {
  readonly name: string;
  readonly address: string;
  /** The lab's. */
  readonly subnet: string;
  readonly mirror: string;
  /** Name of the pinned network namespace, as `ip netns` shows it. */
  readonly netns: string;
  readonly netnsPath: string;
  /** The switch's end of the cable. */
  readonly port: string;
  readonly runDir: string;
  readonly stateDir: string;
  readonly socket: string;
  readonly logFile: string;
  readonly cgroup: string;
}

export const netnsDir = "/run/netns";
const defaultSubnet = "10.77.0.0/24";

/** The names of a lab of `count` hosts: manager, worker-1, worker-2, … (manager-1.. when there are several). */
export function hostNames(count: number, managers = 1): string[] {
  if (!Number.isInteger(count) || count < 1 || count > 50) throw invalid("a lab has 1 to 50 hosts");
  if (!Number.isInteger(managers) || managers < 1 || managers > count) {
    throw invalid(`managers must be between 1 and the number of hosts (${count})`);
  }
  const names = managers === 1 ? ["manager"] : Array.from({ length: managers }, (_, i) => `manager-${i + 1}`);
  for (let i = 1; names.length < count; i++) names.push(`worker-${i}`);
  return names;
}

/**
 * Computes a lab.
 * @throws invalid when the name or the subnet cannot serve.
 */
export function labSpec(
  options: { name?: string; subnet?: string; hosts?: readonly string[]; mirror?: string } = {},
): LabSpec {
  const name = options.name ?? "lab";
  if (!/^[a-z][a-z0-9]{0,7}$/.test(name)) {
    throw invalid(`lab name ${JSON.stringify(name)} must be 1 to 8 lower-case letters and digits, a letter first`);
  }
  const subnet = options.subnet ?? defaultSubnet;
  const [network, prefix] = parseSubnet(subnet);
  const mirror = options.mirror ?? "";
  if (mirror && !(URL.canParse(mirror) && /^https?:/.test(mirror))) {
    throw invalid(`registry mirror ${JSON.stringify(mirror)} is not of the form http://10.77.0.1:5000`);
  }
  const names = options.hosts ?? hostNames(3);
  for (const host of names) {
    if (!/^[a-z][a-z0-9-]{0,30}$/.test(host)) throw invalid(`host name ${JSON.stringify(host)} is not a host name`);
  }
  if (new Set(names).size !== names.length) throw invalid("every host of a lab needs a name of its own");
  const room = 2 ** (32 - prefix) - 2;
  if (names.length + 10 > room) throw invalid(`subnet ${subnet} has no room for ${names.length} hosts`);
  const runDir = `/run/skein/${name}`;
  const stateDir = `/var/lib/skein/${name}`;
  const cgroup = `skein-${name}`;
  const label = name === "lab" ? "skein" : `skein-${name}`;
  const plain = `${toText(network)}/${prefix}`;
  return {
    name,
    subnet: plain,
    mirror,
    prefix,
    gateway: toText(network + 1),
    bridge: `skein-${name}`,
    runDir,
    stateDir,
    cgroup,
    hosts: names.map((host, i) => ({
      name: host,
      address: toText(network + 11 + i),
      subnet: plain,
      mirror,
      netns: `${label}-${host}`,
      netnsPath: `${netnsDir}/${label}-${host}`,
      port: `sk${name.slice(0, 8)}${i + 1}`,
      runDir: `${runDir}/${host}`,
      stateDir: `${stateDir}/${host}`,
      socket: `${runDir}/${host}/docker.sock`,
      logFile: `${runDir}/${host}/skeind.log`,
      cgroup: `/${cgroup}/${host}`,
    })),
  };
}

function parseSubnet(text: string): [network: number, prefix: number] {
  let parsed: [ipaddr.IPv4 | ipaddr.IPv6, number];
  try {
    parsed = ipaddr.parseCIDR(text);
  } catch {
    throw invalid(`subnet ${JSON.stringify(text)} is not of the form 10.77.0.0/24`);
  }
  const [address, prefix] = parsed;
  if (address.kind() !== "ipv4" || prefix < 16 || prefix > 27) {
    throw invalid(`subnet ${text} must be IPv4 with a prefix length of 16 to 27`);
  }
  const value = address.toByteArray().reduce((sum, byte) => sum * 256 + byte, 0);
  return [Math.floor(value / 2 ** (32 - prefix)) * 2 ** (32 - prefix), prefix];
}

function toText(value: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join(".");
}

/** Whether two IPv4 CIDRs share an address. */
export function overlaps(a: string, b: string): boolean {
  const [netA, prefixA] = ipaddr.parseCIDR(a);
  const [netB, prefixB] = ipaddr.parseCIDR(b);
  if (netA.kind() !== netB.kind()) return false;
  const prefix = Math.min(prefixA, prefixB);
  return netA.match([netB, prefix] as never);
}

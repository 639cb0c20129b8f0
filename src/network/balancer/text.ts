/** Pieces of nftables text. Elements come in the order given: equal states give equal text. */

/** `elements = { … }` or nothing: nft refuses an empty list. */
function elementsOf(elements: readonly string[]): string[] {
  return elements.length > 0 ? [`    elements = { ${elements.join(", ")} }`] : [];
}

export function namedSet(name: string, type: string, elements: readonly string[]): string[] {
  return [`  set ${name} {`, `    type ${type}`, ...elementsOf(elements), "  }"];
}

/** A set that may contain subnets, none of which overlap. */
export function intervalSet(name: string, type: string, elements: readonly string[]): string[] {
  return [`  set ${name} {`, `    type ${type}`, "    flags interval", ...elementsOf(elements), "  }"];
}

export function namedMap(name: string, type: string, elements: readonly string[]): string[] {
  return [`  map ${name} {`, `    type ${type}`, ...elementsOf(elements), "  }"];
}

export function chain(name: string, rules: readonly string[]): string[] {
  return [`  chain ${name} {`, ...rules.map((rule) => `    ${rule}`), "  }"];
}

/** Priorities are numbers: nft 1.0.6 knows `dstnat` and `srcnat` only at some hooks. */
export const DSTNAT = -100;
export const SRCNAT = 100;
export const MANGLE = -150;
export const RAW = -300;

export function baseChain(name: string, type: string, hook: string, priority: number, rules: readonly string[]) {
  return chain(name, [`type ${type} hook ${hook} priority ${priority}; policy accept;`, ...rules]);
}

export const body = (...parts: readonly string[][]): string => parts.flat().join("\n");

interface Port {
  readonly protocol: string;
  readonly publishedPort: number;
}

/** The chain of a published port, and the element of a verdict map that leads to it. */
export const portChain = ({ protocol, publishedPort }: Port): string => `${protocol}-${publishedPort}`;

export const toPortChain = (port: Port): string => `${port.protocol} . ${port.publishedPort} : goto ${portChain(port)}`;

/** One of several addresses at random for each new connection, whatever its protocol. */
export function dnatToOneOf(addresses: readonly string[]): string {
  if (addresses.length === 1) return `dnat to ${addresses[0]}`;
  const choices = addresses.map((address, index) => `${index} : ${address}`);
  return `dnat to numgen random mod ${addresses.length} map { ${choices.join(", ")} }`;
}

/**
 * Both ends of a TCP connection learn the path's real packet size from its first packets, instead of from
 * messages that many networks swallow. Only ever lowers.
 */
export const CLAMP_MSS = "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu";

/**
 * Nobody there: a refusal is kinder than silence. Refused before routing, a datagram leaves no connection entry that
 * would keep its successors from the task that comes later.
 */
export const REFUSAL = ["meta l4proto tcp reject with tcp reset", "reject with icmp port-unreachable"];

export const REFUSAL6 = ["meta l4proto tcp reject with tcp reset", "reject with icmpv6 port-unreachable"];

/** A mark, or a mask of one. */
export const hex = (value: number): string => `0x${value.toString(16).padStart(8, "0")}`;

export const quoted = (name: string): string => JSON.stringify(name);

/** Which registries may be spoken to without TLS, and who is asked in place of Docker Hub: Docker's two settings. Pure. */
import { contains, parseCidr, parseIp } from "../../base/address.ts";
import { invalid } from "../../base/errors.ts";

export interface RegistryRules {
  /** "host", "host:port" as images name them, or a CIDR of addresses. This machine's own are insecure in any case. */
  readonly insecure: readonly string[];
  /** Base URLs, asked in this order before Docker Hub. */
  readonly mirrors: readonly string[];
}

export const noRules: RegistryRules = { insecure: [], mirrors: [] };

/** Throws for what means nothing; gives mirrors with a slash at their end. */
export function parseRules(insecure: readonly string[], mirrors: readonly string[]): RegistryRules {
  for (const entry of insecure) {
    const hostAndPort = /^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::\d{1,5})?$/;
    if (!parseCidr(entry) && !hostAndPort.test(entry)) {
      throw invalid(`insecure registry ${entry} is not valid: expected host, host:port or a CIDR`);
    }
  }
  return { insecure, mirrors: mirrors.map(mirrorOf) };
}

function mirrorOf(text: string): string {
  if (!URL.canParse(text)) throw invalid(`invalid mirror: ${JSON.stringify(text)} is not a valid URI`);
  const url = new URL(text);
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw invalid(
      `invalid mirror: unsupported scheme ${JSON.stringify(url.protocol.slice(0, -1))} in ${JSON.stringify(text)}`,
    );
  }
  if (url.search || url.hash)
    throw invalid(`invalid mirror: query or fragment at end of the URI ${JSON.stringify(text)}`);
  if (url.username || url.password) throw invalid("invalid mirror: username/password not allowed in URI");
  return url.href.endsWith("/") ? url.href : `${url.href}/`;
}

/** `host`: "name", "name:port", "[::1]:5000". */
export function isInsecure(host: string, { insecure }: RegistryRules): boolean {
  const name = host.replace(/:\d+$/, "");
  if (isLoopback(name)) return true;
  const ip = parseIp(name.replace(/^\[|\]$/g, ""));
  return insecure.some((entry) => {
    if (entry.toLowerCase() === host.toLowerCase()) return true;
    const subnet = entry.includes("/") ? parseCidr(entry)?.subnet : undefined;
    return ip !== undefined && subnet !== undefined && contains(subnet, ip);
  });
}

export function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(hostname);
}

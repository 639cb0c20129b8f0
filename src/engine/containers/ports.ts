/** Ports as clients write them ("80/tcp", "8000-8010"), as the network room wants them, and as Docker shows them. */
import { invalid } from "../../base/errors.ts";
import type { PortBinding, PublishedPort } from "../../network/types.ts";
import type { ContainerConfig, HostConfig } from "../shapes.ts";

type Protocol = PortBinding["protocol"];

/** "80/tcp" or "80"; throws Docker's words. */
export function parsePort(text: string): { port: number; protocol: Protocol } {
  const [port = "", protocol = "tcp"] = text.split("/");
  if (!/^\d+$/.test(port) || Number(port) > 65535) throw invalid(`invalid port specification: ${JSON.stringify(text)}`);
  if (protocol !== "tcp" && protocol !== "udp" && protocol !== "sctp") {
    throw invalid(`invalid port specification: ${JSON.stringify(text)}`);
  }
  return { port: Number(port), protocol };
}

function parseHostPort(text: string): { from: number; to: number } {
  if (text === "") return { from: 0, to: 0 };
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  const from = Number(match?.[1] ?? Number.NaN);
  const to = Number(match?.[2] ?? from);
  if (!match || from > 65535 || to > 65535 || from > to) {
    throw invalid(`invalid port specification: ${JSON.stringify(text)}`);
  }
  return { from, to };
}

/** What is to be published. With `--publish-all` every exposed port that has no binding gets a free one. */
export function portBindings(config: Pick<ContainerConfig, "ExposedPorts">, host: HostConfig): PortBinding[] {
  const bindings: PortBinding[] = [];
  for (const [key, wanted] of Object.entries(host.PortBindings)) {
    const { port, protocol } = parsePort(key);
    for (const { HostIp, HostPort } of wanted.length ? wanted : [{ HostIp: "", HostPort: "" }]) {
      const { from, to } = parseHostPort(HostPort);
      // 0.0.0.0 is IPv4 only; no address is all of both families.
      bindings.push({ protocol, containerPort: port, hostIp: HostIp, hostPort: from, hostPortEnd: to });
    }
  }
  if (host.PublishAllPorts) {
    for (const key of Object.keys(config.ExposedPorts)) {
      if (host.PortBindings[key]?.length) continue;
      const { port, protocol } = parsePort(key);
      bindings.push({ protocol, containerPort: port, hostIp: "", hostPort: 0, hostPortEnd: 0 });
    }
  }
  return bindings;
}

/** A binding on all addresses is shown once per family. */
function spread(published: readonly PublishedPort[]): PublishedPort[] {
  const out: PublishedPort[] = [];
  const seen = new Set<string>();
  for (const entry of published) {
    for (const hostIp of entry.hostIp === "" ? ["0.0.0.0", "::"] : [entry.hostIp]) {
      const key = `${entry.protocol}/${entry.containerPort}/${hostIp}/${entry.hostPort}`;
      if (!seen.has(key)) out.push({ ...entry, hostIp });
      seen.add(key);
    }
  }
  return out;
}

/** NetworkSettings.Ports of inspect: exposed ports that are not published are null. */
export function portMap(
  exposed: readonly string[],
  published: readonly PublishedPort[],
): Record<string, { HostIp: string; HostPort: string }[] | null> {
  const out: Record<string, { HostIp: string; HostPort: string }[] | null> = {};
  for (const key of exposed) out[key.includes("/") ? key : `${key}/tcp`] = null;
  for (const entry of spread(published)) {
    const key = `${entry.containerPort}/${entry.protocol}`;
    out[key] = [...(out[key] ?? []), { HostIp: entry.hostIp, HostPort: entry.hostPort ? String(entry.hostPort) : "" }];
  }
  return out;
}

/** Ports of `docker ps`. */
export function portList(
  exposed: readonly string[],
  published: readonly PublishedPort[],
): { IP?: string; PrivatePort: number; PublicPort?: number; Type: string }[] {
  // A port at the container's own address is shown as one, whatever the families.
  const seen = new Set<string>();
  const spreadOut = spread(published).filter(({ hostPort, containerPort, protocol }) => {
    const key = `${containerPort}/${protocol}`;
    if (hostPort !== 0) return true;
    return !seen.has(key) && seen.add(key);
  });
  const bound = new Set(spreadOut.map((entry) => `${entry.containerPort}/${entry.protocol}`));
  return [
    ...exposed
      .map(parsePort)
      .filter(({ port, protocol }) => !bound.has(`${port}/${protocol}`))
      .map(({ port, protocol }) => ({ PrivatePort: port, Type: protocol })),
    ...spreadOut.map((entry) => ({
      ...(entry.hostPort ? { IP: entry.hostIp } : {}),
      PrivatePort: entry.containerPort,
      ...(entry.hostPort ? { PublicPort: entry.hostPort } : {}),
      Type: entry.protocol,
    })),
  ].sort((a, b) => a.PrivatePort - b.PrivatePort);
}

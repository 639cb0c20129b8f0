/**
 * Whether the hosts of a lab agree on a network: what each engine says of its own endpoints must be exactly what all
 * other kernels have as forwarding entries, neighbours and backends. Looks at the kernel with `bridge`, `ip` and `nft`.
 */
import type { TestLab } from "./lab.ts";

interface Shown {
  readonly Id: string;
  readonly Ingress: boolean;
  readonly Containers: Record<string, { MacAddress: string; IPv4Address: string }>;
}

/** The MAC of a host's own leg in the ingress network, from that of its ingress_sbox. */
const legOf = (mac: string): string => `06${mac.slice(2)}`;

/** What is wrong, one line each; nothing when all is right. */
export async function inconsistencies(lab: TestLab, network: string): Promise<string[]> {
  const hosts = lab.lab.spec.hosts;
  const shown = new Map<string, Shown>();
  for (const { name } of hosts) {
    const { code, stdout } = await lab.try(name, "network", "inspect", network);
    if (code !== 0) continue;
    const [one] = JSON.parse(stdout) as Shown[];
    if (one) shown.set(name, one);
  }
  const wrong: string[] = [];
  for (const [name, { Id }] of shown) {
    const pin = await namespaceOf(lab, name, Id);
    const { stdout: fdb } = await lab.in(name, "nsenter", `--net=${pin}`, "bridge", "fdb", "show", "dev", "vxlan0");
    const { stdout: neigh } = await lab.in(name, "nsenter", `--net=${pin}`, "ip", "neigh", "show", "dev", "vxlan0");
    const have = {
      fdb: [...fdb.matchAll(/^(\S+) dst (\S+) .*self permanent/gm)].map(([, mac, dst]) => `${mac} at ${dst}`),
      neigh: [...neigh.matchAll(/^(\d\S+) lladdr (\S+) PERMANENT/gm)].map(([, ip, mac]) => `${ip} is ${mac}`),
    };
    const want: typeof have = { fdb: [], neigh: [] };
    for (const [other, { Containers }] of shown) {
      if (other === name) continue;
      const vtep = hosts.find((host) => host.name === other)?.address;
      const ours = [name, other].every((host) => lab.lab.state.engines[host] !== "dockerd");
      for (const [key, { MacAddress, IPv4Address }] of Object.entries(Containers)) {
        want.fdb.push(`${MacAddress} at ${vtep}`);
        // The other host's own leg in the ingress network, which real Docker nodes know nothing of.
        if (ours && key === "ingress-sbox") want.fdb.push(`${legOf(MacAddress)} at ${vtep}`);
        want.neigh.push(`${IPv4Address.split("/")[0]} is ${MacAddress}`);
      }
    }
    for (const kind of ["fdb", "neigh"] as const) {
      wrong.push(...want[kind].filter((one) => !have[kind].includes(one)).map((one) => `${name}: no ${kind} ${one}`));
      wrong.push(
        ...have[kind].filter((one) => !want[kind].includes(one)).map((one) => `${name}: stale ${kind} ${one}`),
      );
    }
  }
  return wrong;
}

/** Where a host's engine keeps its namespace of an overlay network; the real Docker Engine counts its namespaces. */
export async function namespaceOf(lab: TestLab, host: string, networkId: string): Promise<string> {
  const short = networkId.slice(0, 10);
  if (lab.lab.state.engines[host] !== "dockerd") return `/run/docker/netns/1-${short}`;
  const dir = `${lab.host(host).runDir}/docker/netns`;
  return (await lab.in(host, "sh", "-c", `ls -d ${dir}/*-${short}`)).stdout.trim();
}

/** The addresses to which a table of nftables in a namespace translates, in order. */
export async function translations(lab: TestLab, host: string, pin: string, table: string): Promise<string[]> {
  const { stdout } = await lab.in(host, "nsenter", `--net=${pin}`, "nft", "list", "table", "ip", table);
  return [...stdout.matchAll(/\s(?:\d+ :|dnat to) (\d+\.\d+\.\d+\.\d+)/g)].map(([, address]) => address ?? "").sort();
}

/** Backends of the routing mesh on a host. */
export const meshBackends = (lab: TestLab, host: string) =>
  translations(lab, host, "/run/docker/netns/ingress_sbox", "skein-mesh");

/** Those to which a host sends by its own leg. */
export async function legBackends(lab: TestLab, host: string): Promise<string[]> {
  const { stdout } = await lab.in(host, "nft", "list", "table", "ip", "skein-ingress");
  // What goes to ingress_sbox goes to its address on docker_gwbridge.
  const found = [...stdout.matchAll(/\s(?:\d+ :|dnat to) (10\.\d+\.\d+\.\d+)/g)];
  return found.map(([, address]) => address ?? "").sort();
}

/** Addresses on a network of the running containers of a service, on whatever host. */
export async function tasksOf(lab: TestLab, service: string, network: string): Promise<string[]> {
  const found: string[] = [];
  for (const { name } of lab.lab.spec.hosts) {
    const filter = `label=com.docker.swarm.service.name=${service}`;
    const ids = (await lab.ok(name, "ps", "--quiet", "--filter", filter)).split("\n").filter(Boolean);
    if (ids.length === 0) continue;
    const format = `{{(index .NetworkSettings.Networks "${network}").IPAddress}}`;
    found.push(...(await lab.ok(name, "inspect", "--format", format, ...ids)).split("\n"));
  }
  return found.sort();
}

/** MAC addresses on the ingress network of all hosts' doors to the mesh and of their own legs, in order. */
export async function meshDoors(lab: TestLab): Promise<string[]> {
  const format = '{{range $key, $one := .Containers}}{{if eq $key "ingress-sbox"}}{{$one.MacAddress}}{{end}}{{end}}';
  const hosts = lab.lab.spec.hosts;
  return (await Promise.all(hosts.map(({ name }) => lab.ok(name, "network", "inspect", "--format", format, "ingress"))))
    .filter(Boolean)
    .flatMap((mac) => [mac, legOf(mac)])
    .sort();
}

/** Doors through which a task on a host answers the clients of the mesh: by their MAC addresses, in order. */
export async function doorsOf(lab: TestLab, host: string, container: string): Promise<string[]> {
  const pin = await lab.ok(host, "inspect", "--format", "{{.NetworkSettings.SandboxKey}}", container);
  const map = ["nft", "list", "map", "netdev", "skein-mesh", "entries"];
  const { stdout } = await lab.in(host, "nsenter", `--net=${pin}`, ...map);
  return [...stdout.matchAll(/ : (\S\S:[0-9a-f:]+)/g)].map(([, mac]) => mac ?? "").sort();
}

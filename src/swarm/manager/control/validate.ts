/** Checks of what a user asks for, before anything is written. The words are SwarmKit's. */

import type { Network, Service } from "#proto/docker/swarmkit/objects_pb.js";
import {
  type ContainerSpec,
  EndpointSpec_ResolutionMode,
  type NetworkSpec,
  type ServiceSpec,
  type TaskSpec,
} from "#proto/docker/swarmkit/specs_pb.js";
import {
  type Annotations,
  type HealthConfig,
  type IPAMConfig,
  type PortConfig,
  PortConfig_Protocol,
  PortConfig_PublishMode,
  type UpdateConfig,
} from "#proto/docker/swarmkit/types_pb.js";
import { overlaps as overlapsIpv6, parseCidr as parseAnyCidr } from "../../../base/address.ts";
import { invalid, messageOf } from "../../../base/errors.ts";
import { type PublishedPortSpec, publishProblem } from "../../../base/publish.ts";
import { checkTemplates } from "../../expand.ts";
import type { Reader } from "../../store/memory.ts";
import { driverName, isAllocated, isIngress, isKnownDriver, isNodeLocal, VNI_OPTION } from "../allocator/drivers.ts";
import { contains, overlaps, parseCidr, parseIp, type Subnet } from "../allocator/ipv4.ts";
import { isIpv6Config } from "../allocator/ipv6.ts";
import type { AllocatorState } from "../allocator/state.ts";
import { PREDEFINED_LABEL } from "../bootstrap.ts";
import { durationMs } from "../defaults.ts";
import { parseConstraints } from "../scheduler/constraints.ts";
import { rpcError } from "./errors.ts";

const DNS_NAME = /^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$/;
const FILE_NAME = /^[a-zA-Z0-9]+(?:[a-zA-Z0-9\-_.]*[a-zA-Z0-9])?$/;

const MTU_OPTION = "com.docker.network.driver.mtu";
/** What IPv4 needs (RFC 791), and 50 bytes of VXLAN. */
const LEAST_MTU = 68 + 50;

const wrong = (text: string) => rpcError("InvalidArgument", text);

/** Names of services and networks. */
export function checkName(annotations: Annotations | undefined): string {
  const name = annotations?.name ?? "";
  if (name === "") throw wrong("meta: name must be provided");
  if (!DNS_NAME.test(name)) throw wrong("name must be valid as a DNS name component");
  if (name.length > 63) throw wrong("name must be 63 characters or fewer");
  return name;
}

/** Names of secrets and configs. */
export function checkFileName(annotations: Annotations | undefined): string {
  const name = annotations?.name ?? "";
  if (name === "") throw wrong("name must be provided");
  if (name.length > 64 || !FILE_NAME.test(name)) {
    throw wrong(
      "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
    );
  }
  return name;
}

/** A name with optional host, tag and digest; 64 hexadecimal digits alone are an image's id and name no repository. */
function isImageReference(image: string): boolean {
  const part = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
  const host = "(?:[A-Za-z0-9](?:[A-Za-z0-9-.]*[A-Za-z0-9])?|\\[[0-9a-fA-F:]+\\])(?::[0-9]+)?/";
  const digest = "@[A-Za-z][A-Za-z0-9+._-]*:[0-9a-fA-F]{32,}";
  const reference = new RegExp(`^(?:${host})?${part}(?:/${part})*(?::\\w[\\w.-]{0,127})?(?:${digest})?$`);
  return reference.test(image) && !/^[0-9a-f]{64}$/.test(image);
}

function checkHealth(health: HealthConfig | undefined): void {
  if (!health) return;
  const times = { Interval: health.interval, Timeout: health.timeout, StartPeriod: health.startPeriod };
  for (const [name, duration] of Object.entries(times)) {
    const ms = durationMs(duration, 0);
    if (ms !== 0 && ms < 1) throw wrong(`ContainerSpec: ${name} in HealthConfig cannot be less than 1ms`);
  }
  if (health.retries < 0) throw wrong("ContainerSpec: Retries in HealthConfig cannot be negative");
}

function checkContainer(container: ContainerSpec, service: Annotations | undefined): void {
  if (container.image === "") throw wrong("ContainerSpec: image reference must be provided");
  if (!isImageReference(container.image)) {
    throw wrong(`ContainerSpec: "${container.image}" is not a valid repository/tag`);
  }
  const targets = new Set<string>();
  for (const { target } of container.mounts) {
    if (targets.has(target)) throw wrong(`ContainerSpec: duplicate mount point: ${target}`);
    targets.add(target);
  }
  checkHealth(container.healthcheck);
  try {
    checkTemplates(container, service);
  } catch (error) {
    throw wrong(messageOf(error));
  }
  if (durationMs(container.stopGracePeriod, 0) < 0) throw wrong("stop-grace-period cannot be negative");
  const files = new Map<string, string>();
  const references = [
    ...container.secrets.map((secret) => ({ kind: "secret", name: secret.secretName, target: secret.target })),
    ...container.configs.map((config) => ({ kind: "config", name: config.configName, target: config.target })),
  ];
  for (const { kind, name, target } of references) {
    if (name === "") throw wrong(`malformed ${kind} reference`);
    if (target.case !== "file") continue;
    const file = `${kind} ${target.value.name}`;
    const other = files.get(file);
    if (other !== undefined) {
      throw wrong(`${kind} references '${name}' and '${other}' have a conflicting target: '${target.value.name}'`);
    }
    files.set(file, name);
  }
}

function checkTask(task: TaskSpec | undefined, service: Annotations | undefined): void {
  if (!task) throw wrong("missing task spec");
  for (const [what, resources] of [
    ["limits", task.resources?.limits],
    ["reservations", task.resources?.reservations],
  ] as const) {
    if (!resources) continue;
    if (resources.nanoCpus !== 0n && resources.nanoCpus < 1_000_000n) {
      throw wrong(`invalid cpu value ${Number(resources.nanoCpus) / 1e9}: Must be at least 0.001`);
    }
    if (resources.memoryBytes !== 0n && resources.memoryBytes < 4n << 20n) {
      throw wrong(`invalid memory value ${resources.memoryBytes}: Must be at least 4MiB`);
    }
    if (what === "limits" && resources.generic.length > 0) throw wrong("generic resources cannot be limited");
  }
  if (durationMs(task.restart?.delay, 0) < 0) throw wrong("TaskSpec: restart-delay cannot be negative");
  if (durationMs(task.restart?.window, 0) < 0) throw wrong("TaskSpec: restart-window cannot be negative");
  try {
    parseConstraints(task.placement?.constraints ?? []);
  } catch (error) {
    // The only one that SwarmKit gives no code.
    throw invalid(`rpc error: code = Unknown desc = ${messageOf(error)}`);
  }
  switch (task.runtime.case) {
    case "container":
      checkContainer(task.runtime.value, service);
      return;
    case "generic":
      throw rpcError("Unimplemented", "RuntimeUnsupported: unimplemented runtime in service spec");
    case "attachment":
      throw rpcError("Unimplemented", "RuntimeUnsupported: service runtime must be a container");
    default:
      throw wrong("TaskSpec: missing runtime");
  }
}

function checkUpdate(what: string, config: UpdateConfig | undefined): void {
  if (!config) return;
  if (durationMs(config.delay, 0) < 0) throw wrong(`TaskSpec: ${what}-delay cannot be negative`);
  if (durationMs(config.monitor, 0) < 0) throw wrong(`TaskSpec: ${what}-monitor cannot be negative`);
  if (config.maxFailureRatio < 0 || config.maxFailureRatio > 1) {
    throw wrong(`TaskSpec: ${what}-maxfailureratio cannot be less than 0 or bigger than 1`);
  }
}

const PROTOCOLS = {
  [PortConfig_Protocol.TCP]: "tcp",
  [PortConfig_Protocol.UDP]: "udp",
  [PortConfig_Protocol.SCTP]: "sctp",
} as const;
const isIngressPort = (port: PortConfig) => port.publishMode === PortConfig_PublishMode.INGRESS;
const portName = (port: PortConfig) => `${PortConfig_Protocol[port.protocol]}/${port.publishedPort}`;

function checkEndpoint(spec: ServiceSpec): void {
  const ports = spec.endpoint?.ports ?? [];
  if (spec.endpoint?.mode === EndpointSpec_ResolutionMode.DNSRR && ports.some(isIngressPort)) {
    throw wrong("EndpointSpec: port published with ingress mode can't be used with dnsrr mode");
  }
  const seen = new Set<string>();
  for (const port of ports) {
    if (port.targetPort === 0 || port.targetPort > 65535 || port.publishedPort > 65535) throw wrong("invalid port");
    if (port.publishedPort === 0) continue;
    // In one mode or in both.
    if (seen.has(portName(port))) throw wrong("EndpointSpec: duplicate published ports provided");
    seen.add(portName(port));
  }
  const problem = publishProblem(spec.annotations?.labels ?? {}, ports.map(publishedPort));
  if (problem !== undefined) throw wrong(problem);
}

const publishedPort = (port: PortConfig): PublishedPortSpec => ({
  protocol: PROTOCOLS[port.protocol],
  publishedPort: port.publishedPort,
  mode: isIngressPort(port) ? "ingress" : "host",
});

/** Another service has the same published port. */
function checkPortConflicts(spec: ServiceSpec, store: Reader, serviceId: string | undefined): void {
  const wanted = (spec.endpoint?.ports ?? []).filter((port) => port.publishedPort > 0);
  if (wanted.length === 0) return;
  for (const service of store.all("service")) {
    if (service.id === serviceId) continue;
    for (const used of [...(service.spec?.endpoint?.ports ?? []), ...(service.endpoint?.ports ?? [])]) {
      const port = wanted.find((candidate) => portName(candidate) === portName(used));
      if (!port || (!isIngressPort(port) && !isIngressPort(used))) continue;
      const how = isIngressPort(used) ? "an ingress port" : "a host-published port";
      const name = service.spec?.annotations?.name;
      throw wrong(`port '${port.publishedPort}' is already in use by service '${name}' (${service.id}) as ${how}`);
    }
  }
}

function checkDependencies(spec: ServiceSpec, store: Reader): void {
  if (spec.task?.runtime.case !== "container") return;
  const { secrets, configs } = spec.task.runtime.value;
  const missing = (kind: "secret" | "config", references: { id: string; name: string }[]) => {
    const names = references.filter(({ id }) => !store.get(kind, id)).map(({ name }) => name);
    if (names.length === 1) throw wrong(`${kind} not found: ${names[0]}`);
    if (names.length > 1) throw wrong(`${kind}s not found: ${names.join(", ")}`);
  };
  missing(
    "secret",
    secrets.map(({ secretId, secretName }) => ({ id: secretId, name: secretName })),
  );
  missing(
    "config",
    configs.map(({ configId, configName }) => ({ id: configId, name: configName })),
  );
}

function checkMode(spec: ServiceSpec): void {
  const { mode } = spec;
  if (mode.case === undefined) throw wrong("Service mode must be set");
  if (mode.case === "replicatedJob" && mode.value.totalCompletions === 0n && mode.value.maxConcurrent > 0n) {
    throw wrong("Total completions must be set for a replicated job");
  }
  if ((mode.case === "replicatedJob" || mode.case === "globalJob") && (spec.update || spec.rollback)) {
    throw wrong("job mode services may not have an update or rollback config");
  }
}

/** The networks of a service by id; the names in the spec are resolved. */
export function resolveNetworks(spec: ServiceSpec, store: Reader): ServiceSpec {
  const resolve = (target: string) => {
    const network = store.get("network", target) ?? store.byName("network", target);
    if (!network) throw rpcError("NotFound", `network ${target} not found`);
    if (isIngress(network)) {
      throw wrong(`Service cannot be explicitly attached to the ingress network "${network.spec?.annotations?.name}"`);
    }
    return network.id;
  };
  const map = <T extends { target: string }>(configs: T[]) =>
    configs.map((config) => ({ ...config, target: resolve(config.target) }));
  return {
    ...spec,
    networks: map(spec.networks),
    task: spec.task && { ...spec.task, networks: map(spec.task.networks) },
  };
}

/** Checks a new spec of a service (`serviceId` undefined = new). */
export function checkService(spec: ServiceSpec, store: Reader, serviceId?: string): void {
  checkName(spec.annotations);
  checkMode(spec);
  checkTask(spec.task, spec.annotations);
  checkUpdate("update", spec.update);
  checkUpdate("rollback", spec.rollback);
  checkEndpoint(spec);
  checkPortConflicts(spec, store, serviceId);
  checkDependencies(spec, store);
}

/** Checks the spec of a new network. */
export function checkNetwork(spec: NetworkSpec, store: Reader, state: AllocatorState): void {
  checkName(spec.annotations);
  const driver = driverName(spec);
  if (!isKnownDriver(driver)) throw wrong(`could not resolve driver "${driver}" in plugin registry`);
  const ingress = spec.ingress ? store.all("network").find(isIngress) : undefined;
  if (ingress) throw rpcError("AlreadyExists", `ingress network (${ingress.id}) is already present`);
  if (spec.ingress && spec.attachable) throw wrong("ingress network cannot be attachable");
  const ipam = spec.ipam?.driver?.name;
  if (ipam && ipam !== "default") throw wrong(`could not resolve IPAM driver "${ipam}" in plugin registry`);
  if (PREDEFINED_LABEL in (spec.annotations?.labels ?? {})) {
    throw rpcError(
      "PermissionDenied",
      `label ${PREDEFINED_LABEL} is for internally created predefined networks and cannot be applied by users`,
    );
  }
  if (driver === "overlay") checkOverlayOptions(spec.driverConfig?.options ?? {}, state);
  checkIpv6(spec, store);
  for (const config of spec.ipam?.configs ?? []) {
    if (isIpv6Config(config)) continue;
    if (config.subnet === "") {
      if (config.gateway || config.range) throw wrong("ipam configuration: a gateway or range needs a subnet");
      continue;
    }
    const subnet = parseCidr(config.subnet);
    if (!subnet) throw wrong(`ipam configuration: invalid subnet ${config.subnet}`);
    if (subnet.prefix > 30) throw wrong(`ipam configuration: subnet ${config.subnet} is too small`);
    const gateway = config.gateway ? parseIp(config.gateway) : subnet.base + 1;
    if (gateway === undefined) throw wrong(`ipam configuration: invalid gateway ${config.gateway}`);
    if (!contains(subnet, gateway)) {
      throw wrong(`ipam configuration: subnet ${config.subnet} does not contain gateway ${config.gateway}`);
    }
    const range = config.range ? parseCidr(config.range) : subnet;
    if (!range) throw wrong(`ipam configuration: invalid range ${config.range}`);
    if (!overlaps(subnet, range) || range.prefix < subnet.prefix) {
      throw wrong(`ipam configuration: subnet ${config.subnet} does not contain range ${config.range}`);
    }
    for (const address of Object.values(config.reserved)) {
      const ip = parseIp(address);
      if (ip === undefined || !contains(subnet, ip)) {
        throw wrong(`ipam configuration: subnet ${config.subnet} does not contain auxiliary address ${address}`);
      }
    }
    if (driver !== "overlay") continue;
    const asked = (spec.ipam?.configs ?? []).filter((other) => other !== config);
    if (state.overlapping(subnet) !== undefined || overlapsAny(subnet, asked) || isAskedFor(subnet, store)) {
      throw wrong("invalid pool request: Pool overlaps with other one on this address space");
    }
  }
}

/** Options that would otherwise fail on every node, or keep the network waiting for ever. */
function checkOverlayOptions(options: Readonly<Record<string, string>>, state: AllocatorState): void {
  const mtu = options[MTU_OPTION];
  if (mtu !== undefined && !/^\d{1,5}$/.test(mtu)) throw wrong(`failed to parse ${mtu}: invalid syntax`);
  if (mtu !== undefined && mtu !== "0" && (Number(mtu) < LEAST_MTU || Number(mtu) > 65535)) {
    throw wrong(`invalid MTU value: ${mtu}`);
  }
  const list = options[VNI_OPTION];
  if (list === undefined) return;
  const seen = new Set<number>();
  for (const text of list.split(",")) {
    const vni = Number(text);
    if (!/^\d+$/.test(text) || vni < 1 || vni >= 2 ** 24) throw wrong(`invalid vxlan id value "${text}" passed`);
    if (state.vniOwner(vni) !== undefined || seen.has(vni)) {
      throw wrong(`could not assign vxlan id ${vni}: requested bit is already allocated`);
    }
    seen.add(vni);
  }
}

/** What IPv6 on an overlay network needs (`base/dual-stack.ts`). */
function checkIpv6(spec: NetworkSpec, store: Reader): void {
  const configs = spec.ipam?.configs ?? [];
  const asked = configs.filter(isIpv6Config);
  const [config] = asked;
  if (config && !spec.ipv6Enabled) {
    throw wrong(`ipam configuration: subnet ${config.subnet} needs IPv6 to be enabled (--ipv6)`);
  }
  if (!spec.ipv6Enabled || isNodeLocal(spec)) return;
  if (spec.ingress) throw rpcError("Unimplemented", "IPv6 on the ingress network is not supported by skein");
  if (asked.length > 1) throw rpcError("Unimplemented", "several IPv6 subnets are not supported by skein");
  if (configs.length - asked.length > 1) {
    throw rpcError("Unimplemented", "IPv6 with several IPv4 subnets is not supported by skein");
  }
  if (!config) return;
  const subnet = parseAnyCidr(config.subnet)?.subnet;
  if (!subnet) throw wrong(`ipam configuration: invalid subnet ${config.subnet}`);
  const ipv4 = configs.find((other) => !isIpv6Config(other) && other.subnet !== "");
  const bits = 32 - (parseCidr(ipv4?.subnet ?? "")?.prefix ?? 0);
  const room = 128 - (parseAnyCidr(config.range)?.subnet.prefix ?? subnet.prefix);
  if (room < (ipv4 ? bits : 16)) {
    throw wrong(`ipam configuration: IPv6 subnet ${config.range || config.subnet} is smaller than the IPv4 subnet`);
  }
  for (const network of store.all("network")) {
    const others = [...(network.ipam?.configs ?? []), ...(network.spec?.ipam?.configs ?? [])];
    if (isNodeLocal(network.spec)) continue;
    for (const other of others) {
      const theirs = isIpv6Config(other) ? parseAnyCidr(other.subnet)?.subnet : undefined;
      if (theirs && overlapsIpv6(subnet, theirs)) {
        throw wrong("invalid pool request: Pool overlaps with other one on this address space");
      }
    }
  }
}

function overlapsAny(subnet: Subnet, configs: readonly IPAMConfig[]): boolean {
  return configs.some((config) => {
    const other = parseCidr(config.subnet);
    return other !== undefined && overlaps(subnet, other);
  });
}

/** True when a network that waits for the allocator has asked for it. */
function isAskedFor(subnet: Subnet, store: Reader): boolean {
  const waiting = store.all("network").filter((network) => !isAllocated(network) && !isNodeLocal(network.spec));
  return waiting.some(({ spec }) => overlapsAny(subnet, spec?.ipam?.configs ?? []));
}

/** Names of services that use a network. */
export function usersOfNetwork(network: Network, store: Reader): Service[] {
  return store.all("service").filter((service) => {
    const configs = [...(service.spec?.task?.networks ?? []), ...(service.spec?.networks ?? [])];
    return configs.some(({ target }) => target === network.id || target === network.spec?.annotations?.name);
  });
}

/** ContainerSpec between Docker's JSON and SwarmKit's message. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type ContainerSpec,
  ContainerSpec_Isolation,
  type ContainerSpecSchema,
} from "#proto/docker/swarmkit/specs_pb.js";
import type { HealthConfig } from "#proto/docker/swarmkit/types_pb.js";
import { notImplemented } from "../../../base/errors.ts";
import { bool, dict, int, list, optional, type ShapeOf, str, strOrList } from "../../../base/shape.ts";
import { mountShape, mountToJson, mountToProto } from "./mount.ts";
import { privileges, privilegesToJson, privilegesToProto } from "./privileges.ts";
import {
  configReference,
  configReferenceToJson,
  configReferenceToProto,
  secretReference,
  secretReferenceToJson,
  secretReferenceToProto,
} from "./references.ts";
import { durationFromJson, durationOrZero, durationToJson, nz, ptr, wordOf } from "./render.ts";
import { strict } from "./strict.ts";

const healthcheck = optional(
  strict({ Test: list(str), Interval: int, Timeout: int, StartPeriod: int, StartInterval: int, Retries: int }),
);

export const containerSpec = strict({
  Image: str,
  Labels: dict(str),
  Command: strOrList,
  Args: strOrList,
  Hostname: str,
  Env: list(str),
  Dir: str,
  User: str,
  Groups: list(str),
  Privileges: privileges,
  Init: optional(bool),
  StopSignal: str,
  TTY: bool,
  OpenStdin: bool,
  ReadOnly: bool,
  Mounts: list(mountShape),
  StopGracePeriod: optional(int),
  Healthcheck: healthcheck,
  Hosts: list(str),
  DNSConfig: optional(strict({ Nameservers: list(str), Search: list(str), Options: list(str) })),
  Secrets: list(secretReference),
  Configs: list(configReference),
  Isolation: str,
  Sysctls: dict(str),
  CapabilityAdd: list(str),
  CapabilityDrop: list(str),
  Ulimits: list(strict({ Name: str, Hard: int, Soft: int })),
  OomScoreAdj: int,
});
export type ContainerSpecJson = ShapeOf<typeof containerSpec>;

/** `pids` comes from Resources.Limits, where Docker's API has it. */
export function containerSpecToProto(
  json: ContainerSpecJson,
  pids: number,
): MessageInitShape<typeof ContainerSpecSchema> {
  if (!["", "default"].includes(json.Isolation.toLowerCase())) throw notImplemented(`isolation ${json.Isolation}`);
  return {
    image: json.Image,
    labels: json.Labels,
    command: json.Command,
    args: json.Args,
    hostname: json.Hostname,
    env: json.Env,
    dir: json.Dir,
    user: json.User,
    groups: json.Groups,
    privileges: ptr(json.Privileges, privilegesToProto),
    init: json.Init,
    stopSignal: json.StopSignal,
    tty: json.TTY,
    openStdin: json.OpenStdin,
    readOnly: json.ReadOnly,
    mounts: json.Mounts.map(mountToProto),
    stopGracePeriod: ptr(json.StopGracePeriod, durationFromJson),
    healthcheck: ptr(json.Healthcheck, (health) => ({
      test: health.Test,
      interval: durationFromJson(health.Interval),
      timeout: durationFromJson(health.Timeout),
      startPeriod: durationFromJson(health.StartPeriod),
      startInterval: durationFromJson(health.StartInterval),
      retries: health.Retries,
    })),
    hosts: json.Hosts,
    dnsConfig: ptr(json.DNSConfig, (dns) => ({
      nameservers: dns.Nameservers,
      search: dns.Search,
      options: dns.Options,
    })),
    secrets: json.Secrets.map(secretReferenceToProto),
    configs: json.Configs.map(configReferenceToProto),
    sysctls: json.Sysctls,
    capabilityAdd: json.CapabilityAdd,
    capabilityDrop: json.CapabilityDrop,
    ulimits: json.Ulimits.map((limit) => ({ name: limit.Name, hard: BigInt(limit.Hard), soft: BigInt(limit.Soft) })),
    oomScoreAdj: BigInt(json.OomScoreAdj),
    pidsLimit: BigInt(pids),
  };
}

const healthToJson = (health: HealthConfig) => ({
  Test: nz(health.test),
  Interval: nz(durationOrZero(health.interval)),
  Timeout: nz(durationOrZero(health.timeout)),
  StartPeriod: nz(durationOrZero(health.startPeriod)),
  StartInterval: nz(durationOrZero(health.startInterval)),
  Retries: nz(health.retries),
});

export function containerSpecToJson(spec: ContainerSpec) {
  return {
    Image: nz(spec.image),
    Labels: nz(spec.labels),
    Command: nz(spec.command),
    Args: nz(spec.args),
    Hostname: nz(spec.hostname),
    Env: nz(spec.env),
    Dir: nz(spec.dir),
    User: nz(spec.user),
    Groups: nz(spec.groups),
    Privileges: ptr(spec.privileges, privilegesToJson),
    Init: spec.init,
    StopSignal: nz(spec.stopSignal),
    TTY: nz(spec.tty),
    OpenStdin: nz(spec.openStdin),
    ReadOnly: nz(spec.readOnly),
    Mounts: nz(spec.mounts.map(mountToJson)),
    StopGracePeriod: ptr(spec.stopGracePeriod, durationToJson),
    Healthcheck: ptr(spec.healthcheck, healthToJson),
    Hosts: nz(spec.hosts),
    DNSConfig: ptr(spec.dnsConfig, (dns) => ({
      Nameservers: nz(dns.nameservers),
      Search: nz(dns.search),
      Options: nz(dns.options),
    })),
    Secrets: nz(spec.secrets.flatMap(secretReferenceToJson)),
    Configs: nz(spec.configs.flatMap(configReferenceToJson)),
    Isolation: wordOf(ContainerSpec_Isolation, spec.isolation),
    Sysctls: nz(spec.sysctls),
    CapabilityAdd: nz(spec.capabilityAdd),
    CapabilityDrop: nz(spec.capabilityDrop),
    Ulimits: nz(spec.ulimits.map((u) => ({ Name: u.name, Hard: Number(u.hard), Soft: Number(u.soft) }))),
    OomScoreAdj: nz(Number(spec.oomScoreAdj)),
  };
}

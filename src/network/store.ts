/**
 * State that survives: one JSON file per network and per sandbox, written whole and renamed into place. What must survive
 * power loss (networks, the place in the cluster) waits for the disk.
 * Address leases are not kept apart: they are the addresses of the endpoints.
 */
import { mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as z from "zod";
import { readFileIfAny, writeFileAtomic } from "../base/file.ts";
import type { Logger } from "../base/log.ts";
import type { NetworkState, SandboxState } from "./state.ts";
import type { ClusterNetworking } from "./types.ts";

const protocol = z.enum(["tcp", "udp", "sctp"]);
const strings = z.record(z.string(), z.string());

const pool = z.object({
  subnet: z.string(),
  ipRange: z.string().optional(),
  gateway: z.string().optional(),
  auxAddresses: strings.optional(),
});

const network = z.object({
  spec: z.object({
    id: z.string(),
    name: z.string(),
    driver: z.enum(["bridge", "host", "null", "overlay", "macvlan", "ipvlan"]),
    scope: z.enum(["local", "swarm"]),
    created: z.string(),
    enableIPv4: z.boolean(),
    enableIPv6: z.boolean(),
    internal: z.boolean(),
    attachable: z.boolean(),
    ingress: z.boolean(),
    configOnly: z.boolean(),
    configFrom: z.string(),
    ipam: z.object({ driver: z.string(), options: strings.nullable(), config: z.array(pool) }),
    options: strings,
    labels: strings,
  }),
  userSubnets: z.boolean(),
  bridgeByUser: z.boolean(),
  lbAddress: z.string().optional(),
});

const service = z.object({
  id: z.string(),
  name: z.string(),
  vip: z.string(),
  aliases: z.array(z.string()),
  ingressPorts: z.array(
    z.object({
      name: z.string(),
      protocol,
      targetPort: z.number(),
      publishedPort: z.number(),
      bound: z.array(z.string()).optional(),
      local: z.boolean().optional(),
      proxy: z.boolean().optional(),
    }),
  ),
});

const published = z.object({
  protocol,
  containerPort: z.number(),
  hostIp: z.string(),
  hostPort: z.number(),
});

const sandbox = z.object({
  id: z.string(),
  kind: z.enum(["container", "lb", "ingress"]),
  request: z.object({
    id: z.string(),
    mode: z.enum(["private", "host"]),
    hostname: z.string(),
    domainname: z.string(),
    dns: z.object({ servers: z.array(z.string()), search: z.array(z.string()), options: z.array(z.string()) }),
    extraHosts: z.array(z.string()),
    ports: z.array(
      z.object({
        protocol,
        containerPort: z.number(),
        hostIp: z.string(),
        hostPort: z.number(),
        hostPortEnd: z.number(),
      }),
    ),
    sysctls: strings.optional(),
  }),
  path: z.string().optional(),
  activity: z.enum(["active", "draining", "inactive"]),
  endpoints: z.array(
    z.object({
      id: z.string(),
      networkId: z.string(),
      name: z.string(),
      aliases: z.array(z.string()),
      ifName: z.string(),
      outerName: z.string(),
      mac: z.string(),
      ipv4: z.string(),
      ipv6: z.string(),
      service: service.optional(),
      role: z.enum(["user", "gateway", "lb"]),
    }),
  ),
  ports: z.array(published),
});

const cluster = z.object({
  bindAddress: z.string(),
  advertiseAddress: z.string(),
  dataPathAddress: z.string(),
  dataPathPort: z.number(),
});

const records = z.array(
  z.object({
    table: z.string(),
    key: z.string(),
    value: z.base64(),
    owner: z.string(),
    ownerAddress: z.string(),
  }),
);

/** A gossip record as it was last heard. */
export type KeptRecord = z.infer<typeof records>[number];

/** File names are ids; anything else would leave the directory. */
const fileOf = (id: string) => `${id.replaceAll(/[^\w.-]/g, "_")}.json`;

/** Whole or not at all for whoever reads it, also after the daemon was killed; not after power loss. */
function replaceFile(path: string, content: string): void {
  writeFileSync(`${path}.tmp`, content, { mode: 0o600 });
  renameSync(`${path}.tmp`, path);
}

export class Store {
  readonly #networks: string;
  readonly #sandboxes: string;
  readonly #records: string;
  readonly #cluster: string;
  readonly #log: Logger;

  constructor(dir: string, log: Logger) {
    this.#networks = join(dir, "networks");
    this.#sandboxes = join(dir, "sandboxes");
    this.#records = join(dir, "records");
    this.#cluster = join(dir, "cluster.json");
    this.#log = log;
    mkdirSync(this.#networks, { recursive: true, mode: 0o700 });
    mkdirSync(this.#sandboxes, { recursive: true, mode: 0o700 });
    mkdirSync(this.#records, { recursive: true, mode: 0o700 });
  }

  saveNetwork(state: NetworkState): void {
    writeFileAtomic(join(this.#networks, fileOf(state.spec.id)), JSON.stringify(state));
  }

  deleteNetwork(id: string): void {
    rmSync(join(this.#networks, fileOf(id)), { force: true });
  }

  /** A sandbox does not outlive the machine's run, so its file need not either: no wait for the disk. */
  saveSandbox(state: SandboxState): void {
    replaceFile(join(this.#sandboxes, fileOf(state.id)), JSON.stringify(state));
  }

  deleteSandbox(id: string): void {
    rmSync(join(this.#sandboxes, fileOf(id)), { force: true });
  }

  /** Where this node stood in a swarm; undefined when it was in none. */
  cluster(): ClusterNetworking | undefined {
    return this.#parse(this.#cluster, cluster);
  }

  saveCluster(place: ClusterNetworking | undefined): void {
    if (place) writeFileAtomic(this.#cluster, JSON.stringify(place));
    else rmSync(this.#cluster, { force: true });
  }

  /** What was heard of a network, for the time between a restart and the first sync. Loss of it costs only that. */
  saveRecords(networkId: string, kept: readonly KeptRecord[]): void {
    replaceFile(join(this.#records, fileOf(networkId)), JSON.stringify(kept));
  }

  records(networkId: string): KeptRecord[] {
    return this.#parse(join(this.#records, fileOf(networkId)), records) ?? [];
  }

  deleteRecords(networkId: string): void {
    rmSync(join(this.#records, fileOf(networkId)), { force: true });
  }

  networks(): NetworkState[] {
    return this.#read(this.#networks, network);
  }

  sandboxes(): SandboxState[] {
    return this.#read<SandboxState>(this.#sandboxes, sandbox);
  }

  #read<T>(dir: string, schema: z.ZodType<T>): T[] {
    return readdirSync(dir)
      .filter((file) => file.endsWith(".json"))
      .flatMap((file) => this.#parse(join(dir, file), schema) ?? []);
  }

  /** A file that is not what it should be is left where it is and passed over, loudly. */
  #parse<T>(path: string, schema: z.ZodType<T>): T | undefined {
    try {
      const text = readFileIfAny(path);
      return text === undefined ? undefined : schema.parse(JSON.parse(text));
    } catch (error) {
      this.#log.error("unreadable network state is ignored", { file: path, error });
      return undefined;
    }
  }
}

/**
 * State that survives: one JSON file per network and per sandbox, written whole and renamed into place.
 * Address leases are not kept apart: they are the addresses of the endpoints.
 */
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { readFileIfAny, writeFileAtomic } from "../base/file.ts";
import type { Logger } from "../base/log.ts";
import type { NetworkState, SandboxState } from "./state.ts";

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
  ingressPorts: z.array(z.object({ name: z.string(), protocol, targetPort: z.number(), publishedPort: z.number() })),
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

/** File names are ids; anything else would leave the directory. */
const fileOf = (id: string) => `${id.replaceAll(/[^\w.-]/g, "_")}.json`;

export class Store {
  readonly #networks: string;
  readonly #sandboxes: string;
  readonly #log: Logger;

  constructor(dir: string, log: Logger) {
    this.#networks = join(dir, "networks");
    this.#sandboxes = join(dir, "sandboxes");
    this.#log = log;
    mkdirSync(this.#networks, { recursive: true, mode: 0o700 });
    mkdirSync(this.#sandboxes, { recursive: true, mode: 0o700 });
  }

  saveNetwork(state: NetworkState): void {
    writeFileAtomic(join(this.#networks, fileOf(state.spec.id)), JSON.stringify(state));
  }

  deleteNetwork(id: string): void {
    rmSync(join(this.#networks, fileOf(id)), { force: true });
  }

  saveSandbox(state: SandboxState): void {
    writeFileAtomic(join(this.#sandboxes, fileOf(state.id)), JSON.stringify(state));
  }

  deleteSandbox(id: string): void {
    rmSync(join(this.#sandboxes, fileOf(id)), { force: true });
  }

  networks(): NetworkState[] {
    return this.#read(this.#networks, network);
  }

  sandboxes(): SandboxState[] {
    return this.#read<SandboxState>(this.#sandboxes, sandbox);
  }

  /** A file that is not what it should be is left where it is and passed over, loudly. */
  #read<T>(dir: string, schema: z.ZodType<T>): T[] {
    const found: T[] = [];
    for (const file of readdirSync(dir)) {
      if (!file.endsWith(".json")) continue;
      try {
        found.push(schema.parse(JSON.parse(readFileIfAny(join(dir, file)) ?? "")));
      } catch (error) {
        this.#log.error("unreadable network state is ignored", { file: join(dir, file), error });
      }
    }
    return found;
  }
}

/** Every setting of `skeind`, once: flag, key of the configuration file, default and meaning. `--help` is made of this. */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { errnoOf, invalid, messageOf } from "../../base/errors.ts";
import type { Level } from "../../base/log.ts";
import type { MeshRouting } from "../../network/types.ts";
import { parseRules, type RegistryRules } from "../../runtime/registry/rules.ts";
import { type ApiEndpoint, parseEndpoint, type TlsFiles } from "./endpoint.ts";

interface Setting {
  /** Name of the flag and, unless `flagOnly`, key of the configuration file. */
  readonly name: string;
  readonly short?: string;
  readonly kind: "text" | "list" | "switch";
  readonly value: string;
  readonly fallback?: string;
  readonly help: string;
  readonly flagOnly?: boolean;
  /** Another spelling of the flag, dockerd's. */
  readonly alias?: string;
}

export const settings: readonly Setting[] = [
  {
    name: "host",
    short: "H",
    kind: "list",
    value: "unix://PATH",
    fallback: "unix:///run/skein/docker.sock",
    help: "socket to listen on, or tcp://ADDRESS:PORT with --tlsverify; may be given more than once",
  },
  {
    name: "tlsverify",
    kind: "switch",
    value: "",
    help: "serve tcp:// with TLS to clients whose certificate the CA has signed; there is no TCP without",
  },
  {
    name: "tlscacert",
    kind: "text",
    value: "FILE",
    fallback: "/etc/skein/ca.pem",
    help: "CA that has signed the certificates of clients (PEM)",
  },
  {
    name: "tlscert",
    kind: "text",
    value: "FILE",
    fallback: "/etc/skein/cert.pem",
    help: "certificate of this host (PEM)",
  },
  { name: "tlskey", kind: "text", value: "FILE", fallback: "/etc/skein/key.pem", help: "its key (PEM)" },
  {
    name: "data-root",
    kind: "text",
    value: "DIR",
    fallback: "/var/lib/skein",
    help: "state that survives reboots: images, containers, volumes, swarm",
  },
  {
    name: "run-dir",
    alias: "exec-root",
    kind: "text",
    value: "DIR",
    fallback: "/run/skein",
    help: "state that does not: sockets, namespaces; should be on a tmpfs",
  },
  {
    name: "pidfile",
    alias: "pid-file",
    kind: "text",
    value: "FILE",
    fallback: "RUN-DIR/skeind.pid",
    help: "where the process id is written",
  },
  { name: "containerd", kind: "text", value: "SOCKET", help: "use this containerd instead of an own one" },
  {
    name: "default-runtime",
    kind: "text",
    value: "NAME",
    help: "OCI runtime of containers that name none: runc or crun (default: runc where it is installed)",
  },
  { name: "cgroup-parent", kind: "text", value: "CGROUP", fallback: "/skein", help: "parent cgroup of all containers" },
  {
    name: "bip",
    kind: "text",
    value: "CIDR",
    help: "address of the default bridge docker0 (default: the first free pool)",
  },
  {
    name: "default-address-pool",
    kind: "list",
    value: "base=CIDR,size=N",
    help: "pools that local networks are cut from; may be given more than once",
  },
  {
    name: "mesh-routing",
    kind: "text",
    value: "MARK/MASK:TABLE",
    fallback: "0x50000000/0xf0000000:5100",
    help: "packet mark and routing table of the routing mesh on this host, nobody else's; off: all of it goes by ingress_sbox",
  },
  {
    name: "insecure-registry",
    alias: "insecure-registries",
    kind: "list",
    value: "HOST[:PORT]|CIDR",
    help: "registries that may be without TLS, or with any certificate; may be given more than once",
  },
  {
    name: "registry-mirror",
    alias: "registry-mirrors",
    kind: "list",
    value: "URL",
    help: "asked before Docker Hub; may be given more than once",
  },
  { name: "resolv-conf", kind: "text", value: "FILE", fallback: "/etc/resolv.conf", help: "the host's name servers" },
  {
    name: "hostname",
    kind: "text",
    value: "NAME",
    help: "name of this host as nodes and users see it (default: the kernel's)",
  },
  { name: "label", kind: "list", value: "KEY=VALUE", help: "label of this engine; may be given more than once" },
  { name: "log-level", short: "l", kind: "text", value: "LEVEL", fallback: "info", help: "debug, info, warn or error" },
  { name: "debug", short: "D", kind: "switch", value: "", help: "the same as --log-level debug" },
  {
    name: "config-file",
    kind: "text",
    value: "FILE",
    fallback: "/etc/skein/skeind.json",
    help: "settings as a JSON object with these names as keys; flags go before it",
    flagOnly: true,
  },
  { name: "help", short: "h", kind: "switch", value: "", help: "this text", flagOnly: true },
  { name: "version", short: "v", kind: "switch", value: "", help: "the version", flagOnly: true },
];

export interface DaemonConfig {
  readonly endpoints: ApiEndpoint[];
  readonly dataRoot: string;
  readonly runDir: string;
  readonly pidfile: string;
  readonly containerd: string | undefined;
  readonly defaultRuntime: string | undefined;
  readonly cgroupParent: string;
  readonly bip: string | undefined;
  readonly addressPools: { base: string; size: number }[];
  readonly meshRouting: MeshRouting | false | undefined;
  readonly registries: RegistryRules;
  readonly resolvConf: string;
  readonly hostname: string | undefined;
  readonly labels: string[];
  readonly logLevel: Level;
}

export function helpText(): string {
  const lines = settings.map((setting) => {
    const flag = `${setting.short ? `-${setting.short}, ` : "    "}--${setting.name}${setting.value ? ` ${setting.value}` : ""}`;
    const notes = [
      ...(setting.fallback ? [`default ${setting.fallback}`] : []),
      ...(setting.alias ? [`also --${setting.alias}`] : []),
    ];
    return `  ${flag.padEnd(42)} ${setting.help}${notes.length ? ` (${notes.join("; ")})` : ""}`;
  });
  return [
    "Usage: skeind [OPTIONS]",
    "",
    "The Skein engine: containers, networks and swarms behind the Docker Engine API.",
    "",
    ...lines,
    "",
    "SIGTERM and SIGINT end the engine; containers go on and are adopted at the next start.",
  ].join("\n");
}

type Values = Map<string, string[]>;

function fromFlags(argv: readonly string[]): Values {
  const options: Record<string, { type: "string" | "boolean"; multiple: true; short?: string }> = {};
  const canonical = new Map<string, string>();
  for (const setting of settings) {
    const type = setting.kind === "switch" ? "boolean" : "string";
    options[setting.name] = { type, multiple: true, ...(setting.short && { short: setting.short }) };
    if (setting.alias) {
      options[setting.alias] = { type, multiple: true };
      canonical.set(setting.alias, setting.name);
    }
  }
  let parsed: Record<string, (string | boolean)[] | string | boolean | undefined>;
  try {
    parsed = parseArgs({ args: [...argv], options, strict: true, allowPositionals: false }).values;
  } catch (error) {
    throw invalid(`${messageOf(error)}\nSee 'skeind --help'.`);
  }
  const values: Values = new Map();
  for (const [name, value] of Object.entries(parsed)) {
    values.set(canonical.get(name) ?? name, [value].flat().map(String));
  }
  return values;
}

/** The values of a configuration file. Unknown keys are refused: a misspelt setting must not be silently ignored. */
export function fromFile(text: string, path: string): Values {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw invalid(`${path}: ${messageOf(error)}`);
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed))
    throw invalid(`${path}: not a JSON object`);
  const values: Values = new Map();
  for (const [key, value] of Object.entries(parsed)) {
    const setting = settings.find((known) => !known.flagOnly && (known.name === key || known.alias === key));
    if (!setting) throw invalid(`${path}: unknown setting ${JSON.stringify(key)}`);
    const entries = [value].flat();
    if (setting.kind !== "list" && entries.length !== 1) throw invalid(`${path}: ${key} takes one value`);
    values.set(
      setting.name,
      entries.map((entry) => {
        if (typeof entry !== "string" && typeof entry !== "boolean") throw invalid(`${path}: ${key} must be text`);
        return String(entry);
      }),
    );
  }
  return values;
}

function readConfig(flags: Values): Values {
  const [given] = flags.get("config-file") ?? [];
  const path = given ?? "/etc/skein/skeind.json";
  try {
    return fromFile(readFileSync(path, "utf8"), path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT" && given === undefined) return new Map();
    if (errnoOf(error) === "ENOENT") throw invalid(`${path}: no such file`);
    throw error;
  }
}

/** What was asked for: a text to print, or a configuration to run with. */
export function readSettings(argv: readonly string[]): { print: "help" | "version" } | { config: DaemonConfig } {
  const flags = fromFlags(argv);
  if (flags.has("help")) return { print: "help" };
  if (flags.has("version")) return { print: "version" };
  const values: Values = new Map([...readConfig(flags), ...flags]);
  const one = (name: string): string | undefined => values.get(name)?.at(-1);
  const runDir = absolute("run-dir", one("run-dir") ?? "/run/skein");
  const hostname = one("hostname");
  const tls = tlsFiles(one);
  return {
    config: {
      endpoints: (values.get("host") ?? ["unix:///run/skein/docker.sock"]).map((host) => parseEndpoint(host, tls)),
      dataRoot: absolute("data-root", one("data-root") ?? "/var/lib/skein"),
      runDir,
      pidfile: absolute("pidfile", one("pidfile") ?? `${runDir}/skeind.pid`),
      containerd: one("containerd")?.replace(/^unix:\/\//, ""),
      defaultRuntime: one("default-runtime"),
      cgroupParent: one("cgroup-parent") ?? "/skein",
      bip: one("bip"),
      addressPools: (values.get("default-address-pool") ?? []).map(addressPool),
      meshRouting: meshRouting(one("mesh-routing")),
      registries: parseRules(values.get("insecure-registry") ?? [], values.get("registry-mirror") ?? []),
      resolvConf: one("resolv-conf") ?? "/etc/resolv.conf",
      hostname,
      labels: values.get("label") ?? [],
      logLevel: one("debug") === "true" ? "debug" : logLevel(one("log-level") ?? "info"),
    },
  };
}

function absolute(name: string, path: string): string {
  if (!path.startsWith("/")) throw invalid(`--${name} must be an absolute path: ${path}`);
  return path.length > 1 ? path.replace(/\/+$/, "") : path;
}

/** The files of --tlsverify. One given without it would be ignored in silence: it is refused. */
function tlsFiles(one: (name: string) => string | undefined): TlsFiles | undefined {
  const names = { ca: "tlscacert", cert: "tlscert", key: "tlskey" } as const;
  if (one("tlsverify") !== "true") {
    for (const name of Object.values(names)) if (one(name)) throw invalid(`--${name} needs --tlsverify`);
    return undefined;
  }
  const file = (name: string, otherwise: string) => absolute(name, one(name) ?? otherwise);
  return {
    ca: file(names.ca, "/etc/skein/ca.pem"),
    cert: file(names.cert, "/etc/skein/cert.pem"),
    key: file(names.key, "/etc/skein/key.pem"),
  };
}

function logLevel(word: string): Level {
  if (word === "debug" || word === "info" || word === "warn" || word === "error") return word;
  throw invalid(`--log-level: debug, info, warn or error, not ${word}`);
}

function meshRouting(text: string | undefined): MeshRouting | false | undefined {
  if (text === undefined) return undefined;
  if (text === "off") return false;
  const [, mark, mask, table] =
    /^(0x[\da-f]{1,8}|\d{1,10})\/(0x[\da-f]{1,8}|\d{1,10}):(\d{1,9})$/i.exec(text)?.map(Number) ?? [];
  const bits = (value: number | undefined): value is number => value !== undefined && value > 0 && value <= 0xffffffff;
  // 253 to 255 are the kernel's own tables, and 0 is none.
  const free = table !== undefined && table > 0 && (table < 253 || table > 255);
  if (!bits(mark) || !bits(mask) || (mark & mask) >>> 0 !== mark || !free) {
    throw invalid(`--mesh-routing wants MARK/MASK:TABLE, the mark within its mask, or off, not ${text}`);
  }
  return { mark, mask, table };
}

function addressPool(text: string): { base: string; size: number } {
  const parts = new Map(text.split(",").map((part) => part.split("=", 2) as [string, string]));
  const base = parts.get("base");
  const size = Number(parts.get("size"));
  if (!base || !Number.isInteger(size) || size < 1 || size > 128) {
    throw invalid(`--default-address-pool wants base=CIDR,size=N, not ${text}`);
  }
  return { base, size };
}

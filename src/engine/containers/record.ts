/** What is kept of a container on disk: everything that must survive the daemon and a power cut. */
import { bool, dict, int, list, num, optional, type Shape, type ShapeOf, str, struct } from "../../base/shape.ts";
import type { Endpoint, IngressPort } from "../../network/types.ts";
import { containerConfig, endpointSettings, hostConfig } from "../shapes.ts";
import type { Status } from "./states.ts";

const status: Shape<Status> = (value) => {
  switch (value) {
    case "created":
    case "running":
    case "paused":
    case "restarting":
    case "exited":
    case "removing":
    case "dead":
      return value;
    default:
      throw new Error(`unknown container status ${String(value)}`);
  }
};

const state = struct({
  status,
  pid: int,
  exitCode: int,
  error: str,
  oomKilled: bool,
  startedAt: str,
  finishedAt: str,
});

const mountPoint = struct({
  type: ((value) => (value === "volume" || value === "tmpfs" || value === "image" ? value : "bind")) satisfies Shape<
    "bind" | "volume" | "tmpfs" | "image"
  >,
  /** Name of the volume or the image, "" otherwise. */
  name: str,
  /** Id of the image, "" otherwise. */
  image: str,
  /** Path on the host; "" for tmpfs and images. */
  source: str,
  target: str,
  /** As the client wrote it: "ro", "z"… */
  mode: str,
  rw: bool,
  /** Whether what is mounted below a read-only mount can be written: "" where the kernel knows no other way, as Docker. */
  below: ((value) => (value === "writable" || value === "readonly" ? value : "")) satisfies Shape<
    "" | "writable" | "readonly"
  >,
  propagation: str,
  /** tmpfs and mount options handed to the kernel. */
  options: list(str),
  /** A volume made for this container only: removed with it by `rm -v`. */
  anonymous: bool,
  /** Copy what the image has at `target` into the volume when it is empty. */
  copyUp: bool,
  /** Where it was asked for, so that inspect can tell. */
  fromMounts: bool,
  subpath: str,
});
export type MountPoint = ShapeOf<typeof mountPoint>;

const endpoint: Shape<Endpoint> = struct({
  id: str,
  networkId: str,
  sandboxId: str,
  name: str,
  aliases: list(str),
  ifName: str,
  mac: str,
  ipv4: str,
  ipv6: str,
  gateway: str,
  gateway6: str,
});

const networkUse = struct({
  settings: endpointSettings,
  /** The network it was connected to last, "" before the first time. */
  networkId: str,
  /** As it is while the container runs. */
  endpoint: optional(endpoint),
  /** The managers' promise of an address, for attachable swarm networks. */
  attachmentId: str,
});
export type NetworkUse = ShapeOf<typeof networkUse>;

const ingressPorts: Shape<readonly IngressPort[]> = list(
  struct({
    name: str,
    protocol: ((value) => (value === "udp" || value === "sctp" ? value : "tcp")) satisfies Shape<
      "tcp" | "udp" | "sctp"
    >,
    targetPort: int,
    publishedPort: int,
    bound: optional(list(str)),
    local: optional(bool),
    proxy: optional(bool),
  }),
);

/** A network's endpoint of a swarm task; kept so that a restart of the daemon can give discovery back. */
const service = optional(
  struct({
    id: str,
    name: str,
    vip: str,
    aliases: list(str),
    ingressPorts,
  }),
);

const taskAttachment = struct({
  networkId: str,
  networkName: str,
  lbAddress: str,
  request: struct({
    name: str,
    aliases: list(str),
    ipv4: str,
    ipv6: str,
    mac: str,
    driverOptions: dict(str),
    service,
  }),
});
export type StoredAttachment = ShapeOf<typeof taskAttachment>;

export const containerRecord = struct({
  id: str,
  name: str,
  created: str,
  /** "sha256:…" */
  imageId: str,
  path: str,
  args: list(str),
  config: containerConfig,
  hostConfig,
  networks: dict(networkUse),
  mounts: list(mountPoint),
  state,
  restartCount: int,
  restartDelay: num,
  manuallyStopped: bool,
  started: bool,
  /** Present for containers of swarm tasks. */
  task: optional(
    struct({
      attachments: list(taskAttachment),
      /** Secrets and configs: `path` is on a tmpfs of this host. */
      files: list(struct({ target: str, path: str })),
    }),
  ),
});
export type ContainerRecord = ShapeOf<typeof containerRecord>;

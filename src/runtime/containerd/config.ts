/** The configuration file of Skein's own containerd. */

export interface OwnPaths {
  /** Images, snapshots, metadata: survives a reboot. */
  readonly root: string;
  /** Bundles of running tasks: gone after a reboot. */
  readonly state: string;
  readonly socket: string;
  readonly pidFile: string;
  readonly log: string;
  readonly config: string;
}

/** Where the own containerd keeps its things, below the runtime's `root` and `run`. */
export function ownPaths(options: { root: string; run: string }): OwnPaths {
  return {
    root: `${options.root}/containerd`,
    state: `${options.run}/containerd/state`,
    socket: `${options.run}/containerd/containerd.sock`,
    pidFile: `${options.run}/containerd/containerd.pid`,
    log: `${options.root}/containerd.log`,
    config: `${options.run}/containerd/config.toml`,
  };
}

/** Everything Skein does not use: CRI and its servers, other snapshotters, tracing, metrics. */
const disabled = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.internal.v1.restart",
  "io.containerd.internal.v1.tracing",
  "io.containerd.monitor.v1.cgroups",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.native",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
];

const quote = (text: string): string => JSON.stringify(text);

/** config.toml, version 2. `oomScore` as dockerd gives its own: the kernel takes others first. */
export function containerdConfig(paths: OwnPaths, oomScore: number): string {
  return `version = 2
root = ${quote(paths.root)}
state = ${quote(paths.state)}
temp = ""
oom_score = ${oomScore}
disabled_plugins = [${disabled.map(quote).join(", ")}]

[grpc]
  address = ${quote(paths.socket)}
  max_recv_message_size = 67108864
  max_send_message_size = 67108864

[debug]
  level = "warn"

[plugins."io.containerd.internal.v1.opt"]
  path = ${quote(`${paths.root}/opt`)}

[plugins."io.containerd.gc.v1.scheduler"]
  startup_delay = "10s"
`;
}

/**
 * The door of the runtime room: images, containers, exec and stdio through containerd.
 * Knows no networks but the path of a network namespace.
 */
import type { Readable, Writable } from "node:stream";
import type { OciRuntime } from "./oci.ts";

/** An image as Docker lists it. `id` is the digest of its config ("sha256:…"). */
export interface Image {
  readonly id: string;
  /** Names that point at it: "docker.io/library/alpine:latest" in full form. */
  readonly references: string[];
  readonly repoDigests: string[];
  readonly created: string;
  /** Bytes of its layers, unpacked. */
  readonly size: number;
  readonly author?: string;
  /** The size of each layer, lowest first. */
  readonly layerSizes?: readonly number[];
  readonly config: ImageConfig;
  /** Diff ids of its layers, lowest first. */
  readonly layers: string[];
  readonly os: string;
  readonly architecture: string;
  readonly history: { created?: string; created_by?: string; comment?: string; empty_layer?: boolean }[];
}

/** The `config` part of an OCI image configuration, with Docker's extensions. */
export interface ImageConfig {
  readonly User?: string;
  readonly Env?: string[];
  readonly Entrypoint?: string[] | null;
  readonly Cmd?: string[] | null;
  readonly WorkingDir?: string;
  readonly Labels?: Record<string, string> | null;
  readonly ExposedPorts?: Record<string, object> | null;
  readonly Volumes?: Record<string, object> | null;
  readonly StopSignal?: string;
  readonly Healthcheck?: {
    Test?: string[];
    Interval?: number;
    Timeout?: number;
    StartPeriod?: number;
    Retries?: number;
  };
  readonly Shell?: string[];
  readonly OnBuild?: string[] | null;
}

/** One line of progress of a pull, push, load or import, in the shape of Docker's JSON stream. */
export interface Progress {
  readonly status: string;
  readonly id?: string;
  readonly progressDetail?: { current?: number; total?: number };
}

export interface RegistryAuth {
  readonly username?: string;
  readonly password?: string;
  readonly identitytoken?: string;
  readonly serveraddress?: string;
}

/** What `docker commit` makes of a container. */
export interface CommitOptions {
  readonly containerId: string;
  /** The image that the container was made of. */
  readonly imageId: string;
  readonly reference?: string;
  readonly config: ImageConfig;
  readonly comment?: string;
  readonly author?: string;
  /** The command whose result the layer is. */
  readonly createdBy: string;
  readonly now: Date;
}

export interface PushedTag {
  readonly tag: string;
  readonly digest: string;
  /** Bytes of the manifest. */
  readonly size: number;
}

/** One path that a container changed against its image. */
export interface FileChange {
  readonly path: string;
  readonly kind: "modified" | "added" | "deleted";
}

export interface Distribution {
  readonly descriptor: { readonly mediaType: string; readonly digest: string; readonly size: number };
  readonly platforms: readonly { readonly os: string; readonly architecture: string; readonly variant?: string }[];
}

export interface ImageStore {
  list(): Promise<Image[]>;
  /** By reference (normalised here: "alpine" = "docker.io/library/alpine:latest"), id or id prefix. */
  find(nameOrId: string): Promise<Image | undefined>;
  /** Reads a docker or OCI archive. Gives the references (or ids where untagged) loaded. */
  load(archive: Readable, onProgress?: (p: Progress) => void): Promise<string[]>;
  /** A root file system tarball becomes a one-layer image. Gives its id. */
  importTar(
    tar: Readable,
    options: { reference?: string; config?: ImageConfig; comment?: string; platform?: string },
  ): Promise<string>;
  save(references: string[], out: Writable): Promise<void>;
  tag(nameOrId: string, reference: string): Promise<void>;
  /** Gives Docker's list of what was untagged and deleted. Throws conflict when in use and not forced. */
  remove(
    nameOrId: string,
    options: { force?: boolean; prune?: boolean; inUse: (imageId: string) => string | undefined },
  ): Promise<({ Untagged: string } | { Deleted: string })[]>;
  pull(
    reference: string,
    options: { auth?: RegistryAuth; platform?: string; onProgress?: (p: Progress) => void; signal?: AbortSignal },
  ): Promise<string>;
  /** What the registry says of an image, without pulling it. */
  distribution(reference: string, options: { auth?: RegistryAuth; signal?: AbortSignal }): Promise<Distribution>;
  /** Pushes a tagged name that is here. */
  push(
    reference: string,
    options: { auth?: RegistryAuth; onProgress?: (p: Progress) => void; signal?: AbortSignal },
  ): Promise<PushedTag>;
  /** Gives the id of the new image. */
  commit(options: CommitOptions): Promise<string>;
  /** Tries credentials. Throws unauthorized. */
  login(auth: RegistryAuth, signal?: AbortSignal): Promise<void>;
}

export interface Mount {
  readonly type: "bind" | "tmpfs" | "volume";
  readonly source: string;
  readonly target: string;
  readonly readonly: boolean;
  /** A read-only mount covers what is mounted below it too; "tried": where kernel and OCI runtime can. */
  readonly readonlyBelow?: "always" | "tried";
  readonly options: string[];
}

/** All that is needed to run a container; the engine has resolved images, names, volumes and networks. */
export interface ContainerSpec {
  readonly id: string;
  readonly imageId: string;
  /** Images whose layers must stay as long as the container is there, whatever becomes of their names. */
  readonly mountedImages?: readonly string[];
  /** Name of its OCI runtime; absent for the default. */
  readonly ociRuntime?: string;
  readonly hostname: string;
  readonly domainname?: string;
  readonly args: string[];
  readonly env: string[];
  readonly cwd: string;
  /** "user[:group]" by name or number, resolved inside the container's own /etc/passwd. */
  readonly user: string;
  readonly groups?: string[];
  readonly tty: boolean;
  readonly openStdin: boolean;
  readonly labels: Record<string, string>;
  /** Absent: the host's network namespace. */
  readonly netnsPath?: string;
  /** Files the engine wrote for it: bind-mounted over /etc/hosts, /etc/hostname, /etc/resolv.conf. */
  readonly etc?: { hosts: string; hostname: string; resolvConf: string };
  readonly mounts: Mount[];
  readonly readonlyRootfs?: boolean;
  readonly privileged?: boolean;
  readonly capAdd?: string[];
  readonly capDrop?: string[];
  readonly noNewPrivileges?: boolean;
  readonly seccompUnconfined?: boolean;
  readonly seccompProfile?: string;
  /** In place of the paths that are hidden, or cannot be written, by default. */
  readonly maskedPaths?: string[];
  readonly readonlyPaths?: string[];
  /** Absent: a namespace of its own on cgroup v2, the host's on v1 and for privileged ones. */
  readonly cgroupnsMode?: "private" | "host";
  readonly annotations?: Record<string, string>;
  readonly sysctls?: Record<string, string>;
  readonly ulimits?: { name: string; soft: number; hard: number }[];
  readonly devices?: { pathOnHost: string; pathInContainer: string; permissions: string }[];
  readonly deviceCgroupRules?: string[];
  readonly resources?: Resources;
  readonly pidMode?: "private" | "host" | { containerPid: number };
  /** "shareable": others may join. Joining takes the namespace of a process and the /dev/shm of its container. */
  readonly ipcMode?: "private" | "shareable" | "host" | "none" | { containerPid: number; containerId: string };
  readonly utsMode?: "private" | "host";
  readonly shmSize?: number;
  readonly oomScoreAdj?: number;
  readonly init?: boolean;
  readonly cgroupParent?: string;
}

export type ThrottleKind = "readBps" | "writeBps" | "readIops" | "writeIops";

export interface Resources {
  readonly memory?: number;
  readonly memorySwap?: number;
  readonly memoryReservation?: number;
  readonly nanoCpus?: number;
  readonly cpuShares?: number;
  readonly cpuQuota?: number;
  readonly cpuPeriod?: number;
  readonly cpusetCpus?: string;
  readonly cpusetMems?: string;
  readonly pidsLimit?: number;
  readonly blkioWeight?: number;
  readonly blkioWeightDevices?: { path: string; value: number }[];
  /** Bytes or operations per second, by device node of the host. */
  readonly throttle?: Partial<Record<ThrottleKind, { path: string; value: number }[]>>;
  readonly oomKillDisable?: boolean;
  /** 0 to 100, cgroup v1 only. */
  readonly memorySwappiness?: number;
  /** Microseconds. */
  readonly cpuRealtimePeriod?: number;
  readonly cpuRealtimeRuntime?: number;
}

export interface ExitStatus {
  readonly exitCode: number;
  readonly exitedAt: string;
  readonly oomKilled: boolean;
}

export interface ProcessStats {
  readonly read: string;
  readonly cpu: {
    usageNs: number;
    userNs: number;
    systemNs: number;
    perCpuNs?: number[];
    throttling: { periods: number; throttledPeriods: number; throttledNs: number };
  };
  /** `failures`: how often the limit was hit, counted by cgroup v1 only. */
  readonly memory: {
    usage: number;
    limit: number;
    maxUsage?: number;
    failures?: number;
    stats: Record<string, number>;
  };
  readonly pids: { current: number; limit?: number };
  /** Bytes. */
  readonly blkio: { major: number; minor: number; op: string; value: number }[];
  /** Counted by cgroup v1 only. */
  readonly blkioOperations?: { major: number; minor: number; op: string; value: number }[];
}

/** What a process says; with a TTY everything is "stdout". */
export interface OutputChunk {
  readonly stream: "stdout" | "stderr";
  readonly data: Buffer;
  /** Milliseconds since the epoch. */
  readonly at: number;
}

/** The live stdio of a process: outputs are events, input is a writable that may be absent. */
export interface ProcessIo {
  /**
   * Adds a listener; the returned function removes it. Output is held back until the first one is there, at most
   * for a second: a process nobody listens to must not block.
   */
  onOutput(listener: (chunk: OutputChunk) => void): () => void;
  /** Resolves when all output of the process has been seen. */
  readonly drained: Promise<void>;
  readonly stdin: Writable | undefined;
  /** Closes stdin of the process (end of file). */
  closeStdin(): Promise<void>;
  /** Stops and resumes reading the output: a process whose pipe is full waits, as it would for a slow terminal. */
  pause?(): void;
  resume?(): void;
}

export interface StartedProcess {
  readonly pid: number;
  readonly io: ProcessIo;
  readonly exit: Promise<ExitStatus>;
}

export interface ExecSpec {
  readonly execId: string;
  readonly args: string[];
  readonly env: string[];
  readonly cwd: string;
  readonly user: string;
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly privileged: boolean;
}

export interface RuntimeVersion {
  readonly containerd: string;
  readonly containerdCommit: string;
  readonly runtime: string;
  readonly runtimeVersion: string;
  readonly runtimeCommit: string;
}

export interface ListedContainer {
  readonly id: string;
  readonly running: boolean;
  /** It runs, held still. */
  readonly paused: boolean;
  /** Its shim does not answer: whether it runs cannot be told now. */
  readonly silent: boolean;
  /** Whether there is a task, in whatever state: one that runs, or one that was never started or not cleared away. */
  readonly task: boolean;
  /** 0 unless it runs. */
  readonly pid: number;
}

/** One containerd, supervised or pointed at. */
export interface Runtime extends AsyncDisposable {
  readonly images: ImageStore;
  /** What is installed, the default first. */
  readonly ociRuntimes: readonly OciRuntime[];
  version(): Promise<RuntimeVersion>;
  /** Prepares the root file system and the OCI spec; nothing runs yet. Idempotent per id. */
  create(spec: ContainerSpec): Promise<void>;
  /** Creates and starts the process. Throws with runc's message and leaves nothing half-started. */
  start(spec: ContainerSpec): Promise<StartedProcess>;
  /**
   * The process of a container that outlived the daemon. One that ended while no daemon was there is given with
   * `exit` settled. Undefined when there is none. Throws `unavailable` when that cannot be told now.
   */
  adopt(id: string): Promise<StartedProcess | undefined>;
  exec(id: string, spec: ExecSpec): Promise<StartedProcess>;
  kill(id: string, signal: number, options?: { all?: boolean; execId?: string }): Promise<void>;
  resize(id: string, width: number, height: number, execId?: string): Promise<void>;
  pause(id: string): Promise<void>;
  unpause(id: string): Promise<void>;
  update(id: string, resources: Resources): Promise<void>;
  stats(id: string): Promise<ProcessStats>;
  pids(id: string): Promise<number[]>;
  /** Removes task, container and writable layer. Unknown ids are no error. */
  remove(id: string): Promise<void>;
  /** All containers known to containerd, running or not: what to adopt or sweep at start. */
  list(): Promise<ListedContainer[]>;
  /** Kills and deletes whatever task of a container is left; the container stays. */
  end(id: string): Promise<void>;
  /** To be called when all that goes on was adopted: what no container of this daemon has is ended soon. */
  sweep(): void;
  /** Mounts the files of one of a container's `mountedImages` at `place`, read-only. */
  mountImage(id: string, imageId: string, place: string): Promise<void>;
  /** Runs `fn` with the container's root file system at a path (mounted if it is not running). */
  withRootfs<T>(id: string, fn: (path: string) => Promise<T>): Promise<T>;
  /** The numbers of "user[:group]" by the container's own /etc/passwd and /etc/group. */
  userOf(id: string, user: string): Promise<{ uid: number; gid: number }>;
  /** What the container changed on its root file system. */
  changes(id: string): Promise<FileChange[]>;
  /** Bytes of the writable layer. */
  writableSize(id: string): Promise<number>;
}

export interface RuntimeOptions {
  /** State that survives: containerd's root. */
  readonly root: string;
  /** Run-time state: sockets, fifos. */
  readonly run: string;
  /** Use this containerd instead of an own one. */
  readonly address?: string;
  /** containerd namespace, default "skein". */
  readonly namespace?: string;
  /** Parent cgroup of all containers, default "/skein". */
  readonly cgroupParent?: string;
  /** Name of the OCI runtime of containers that name none. */
  readonly defaultRuntime?: string;
  readonly registries?: import("./registry/rules.ts").RegistryRules;
  readonly signal?: AbortSignal;
}

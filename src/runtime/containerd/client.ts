/** Typed clients of the containerd services that Skein uses, all on one channel and in one containerd namespace. */
import { Containers } from "#proto/containerd/services/containers/v1/containers_pb.js";
import { Content } from "#proto/containerd/services/content/v1/content_pb.js";
import { Diff } from "#proto/containerd/services/diff/v1/diff_pb.js";
import { Events } from "#proto/containerd/services/events/v1/events_pb.js";
import { Images } from "#proto/containerd/services/images/v1/images_pb.js";
import { Leases } from "#proto/containerd/services/leases/v1/leases_pb.js";
import { Snapshots } from "#proto/containerd/services/snapshots/v1/snapshots_pb.js";
import { Tasks } from "#proto/containerd/services/tasks/v1/tasks_pb.js";
import { Version } from "#proto/containerd/services/version/v1/version_pb.js";
import { type CallOptions, Channel, type Client, credentials } from "../../base/grpc.ts";
import { hexId } from "../../base/id.ts";
import type { Room } from "../images/room.ts";

export const snapshotter = "overlayfs";

export interface Containerd {
  readonly namespace: string;
  /** Of the disk that its content and snapshots lie on. */
  readonly room: Room;
  readonly containers: Client<typeof Containers>;
  readonly content: Client<typeof Content>;
  readonly diff: Client<typeof Diff>;
  readonly events: Client<typeof Events>;
  readonly images: Client<typeof Images>;
  readonly leases: Client<typeof Leases>;
  readonly snapshots: Client<typeof Snapshots>;
  readonly tasks: Client<typeof Tasks>;
  readonly version: Client<typeof Version>;
  /** Options of every call: the namespace header, and the lease's that shall own what the call creates. */
  call(more?: { lease?: Lease; signal?: AbortSignal; timeoutMs?: number }): CallOptions;
  close(): void;
}

export function connectContainerd(socketPath: string, namespace: string, room: Room): Containerd {
  const channel = new Channel(`unix:${socketPath}`, credentials.createInsecure(), {
    // containerd is on this machine: when it was restarted, find it again at once.
    "grpc.initial_reconnect_backoff_ms": 50,
    "grpc.max_reconnect_backoff_ms": 500,
    "grpc.use_local_subchannel_pool": 1,
  });
  const plain: CallOptions = { metadata: { "containerd-namespace": namespace } };
  return {
    namespace,
    room,
    containers: channel.client(Containers),
    content: channel.client(Content),
    diff: channel.client(Diff),
    events: channel.client(Events),
    images: channel.client(Images),
    leases: channel.client(Leases),
    snapshots: channel.client(Snapshots),
    tasks: channel.client(Tasks),
    version: channel.client(Version),
    call(more) {
      if (!more) return plain;
      const { lease, ...rest } = more;
      const metadata: Record<string, string> = { "containerd-namespace": namespace };
      if (lease) metadata["containerd-lease"] = lease.id;
      return { metadata, ...rest };
    },
    close: () => channel.close(),
  };
}

/**
 * A lease keeps what was created under it from containerd's garbage collector, which otherwise takes
 * any blob or snapshot that nothing refers to *yet*. It ends by itself a day later if we die.
 */
export interface Lease {
  readonly id: string;
}

/** Runs `job` under a new lease. What must stay has to be referred to when `job` ends. */
export async function withLease<T>(containerd: Containerd, job: (lease: Lease) => Promise<T>): Promise<T> {
  const expire = new Date(Date.now() + 24 * 3600_000).toISOString();
  const id = `skein-${hexId().slice(0, 24)}`;
  await containerd.leases.create({ id, labels: { "containerd.io/gc.expire": expire } }, containerd.call());
  const end = (sync: boolean) => containerd.leases.delete({ id, sync }, containerd.call()).catch(() => {});
  let done: T;
  try {
    done = await job({ id });
  } catch (error) {
    // What was half-made is collected before anybody is told: it may fill the disk.
    await end(true);
    throw error;
  }
  await end(false);
  return done;
}

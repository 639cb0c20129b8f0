/**
 * The connections of one task: it gets its first one when it listens and everybody knows of it, and is told to stop when
 * nobody sends it another one and those that it has are done, or have had their grace.
 */
import { create } from "@bufbuild/protobuf";
import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import {
  type PortConfig,
  PortConfig_Protocol,
  PortConfig_PublishMode,
  PortConfigSchema,
} from "#proto/docker/swarmkit/types_pb.js";
import { type Clock, sleep } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { NetworkController } from "../../network/types.ts";
import type { Containers } from "../types.ts";
import { isPredefined } from "./network-spec.ts";

export interface TrafficHost {
  readonly containers: Pick<Containers, "setActivity">;
  readonly network: Pick<NetworkController, "told" | "isListening" | "busyConnections" | "publishedPorts">;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Published ports that nobody listens on yet keep a task out of the balancers for so long. */
const LISTEN_MS = 5_000;
/** How often connections are looked at. */
const LOOK_MS = 50;
/** A withdrawn task whose connections were quiet at so many looks in a row may stop: packets are still on their way. */
const QUIET_LOOKS = 3;

/** True when there is a network on which others can find this task; on the default bridge there are no names. */
export const isNamed = (task: Task): boolean =>
  task.networks.some(({ network }) => network !== undefined && !isPredefined(network));

/** True when others may have connections to this task by way of its service. */
export const isBalanced = (task: Task): boolean =>
  task.serviceId !== "" && task.networks.some(({ network }) => network?.driverState?.name === "overlay");

/** Lets the world in to the running container `id`. `goesOn` tells whether it still runs. */
export async function admit(
  host: TrafficHost,
  task: Task,
  id: string,
  goesOn: () => boolean,
  signal: AbortSignal,
): Promise<void> {
  await listening(host, task, id, goesOn, signal);
  await host.containers.setActivity(id, "active");
  if (isBalanced(task)) await told(host, id, signal);
}

/**
 * Withdraws the task everywhere, then gives its connections up to `graceMs` to end; no longer than it `goesOn`. Does
 * nothing where nobody can have any.
 */
export async function withdraw(
  host: TrafficHost,
  task: Task,
  id: string,
  graceMs: number,
  goesOn: () => boolean,
  signal: AbortSignal,
): Promise<void> {
  if (!isBalanced(task)) return;
  const { containers, network, clock, log } = host;
  try {
    await containers.setActivity(id, "draining");
    await told(host, id, signal);
    const until = clock.steady() + graceMs;
    for (let quiet = 0; quiet < QUIET_LOOKS && clock.steady() < until && goesOn(); ) {
      await sleep(clock, LOOK_MS, signal);
      quiet = network.busyConnections(id) === 0 ? quiet + 1 : 0;
    }
  } catch (error) {
    if (signal.aborted) throw error;
    log.warn("a task could not be withdrawn before its end", { task: task.id, error: messageOf(error) });
  }
}

/** Waits until the published TCP ports are listened on, but not for ever: it is not known whether they ever are. */
async function listening(
  { clock, network, log }: TrafficHost,
  task: Task,
  id: string,
  goesOn: () => boolean,
  signal: AbortSignal,
): Promise<void> {
  const ports = (task.endpoint?.ports ?? [])
    .filter(({ protocol, targetPort }) => protocol === PortConfig_Protocol.TCP && targetPort > 0)
    .map(({ targetPort }) => targetPort);
  if (ports.length === 0) return;
  const until = clock.steady() + LISTEN_MS;
  try {
    while (!network.isListening(id, ports) && clock.steady() < until && goesOn()) await sleep(clock, LOOK_MS, signal);
  } catch (error) {
    if (signal.aborted) throw error;
    log.warn("cannot see whether a task listens", { error: messageOf(error) });
  }
}

/** Waits until other nodes act on the task's activity. */
async function told({ network, log }: TrafficHost, id: string, signal: AbortSignal): Promise<void> {
  try {
    const silent = await network.told(id, signal);
    if (silent.length > 0) log.warn("nodes did not say that they know of a task's change", { nodes: silent });
  } catch (error) {
    if (signal.aborted) throw error;
    log.warn("cannot tell of a task's change", { error: messageOf(error) });
  }
}

/** Host-mode ports that are really bound. */
export function hostPorts({ network }: Pick<TrafficHost, "network">, task: Task, id: string): PortConfig[] {
  if (!task.endpoint?.ports.some(({ publishMode }) => publishMode === PortConfig_PublishMode.HOST)) return [];
  const protocols = { tcp: PortConfig_Protocol.TCP, udp: PortConfig_Protocol.UDP, sctp: PortConfig_Protocol.SCTP };
  const seen = new Map<string, PortConfig>();
  for (const { protocol, containerPort, hostPort } of network.publishedPorts(id)) {
    seen.set(
      `${protocol}/${containerPort}/${hostPort}`,
      create(PortConfigSchema, {
        protocol: protocols[protocol],
        targetPort: containerPort,
        publishedPort: hostPort,
        publishMode: PortConfig_PublishMode.HOST,
      }),
    );
  }
  return [...seen.values()];
}

/** How routes reach the swarm, and find its objects by name, id or id prefix as Docker does. */
import type { Config, Network, Node, Secret, Service, Task } from "#proto/docker/swarmkit/objects_pb.js";
import { type ErrorCode, invalid, notFound, SkeinError, unavailable } from "../../base/errors.ts";
import { grpcCodeOf, grpcMessageOf, status } from "../../base/grpc.ts";
import type { ControlApi, SwarmNode } from "../../swarm/types.ts";
import type { Reply } from "../http/reply.ts";
import type { ApiRequest } from "../http/request.ts";
import { type Method, type ParamsOf, type Route, route } from "../http/router.ts";

/** What the swarm's routes need of the host. */
export interface SwarmApi {
  /** This host's part in a swarm. */
  readonly node: () => SwarmNode | undefined;
  /** Interfaces of the host, for `swarm init` and `join`. */
  readonly interfaces: () => import("../../engine/swarm/address.ts").HostInterface[];
  /** A network of this host by name or id: to tell why a service cannot use it. */
  readonly localNetwork: (ref: string) => { name: string; driver: string; scope: string } | undefined;
}

const NOT_A_MANAGER =
  'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.';

export function nodeOf(api: SwarmApi): SwarmNode {
  const node = api.node();
  if (!node) throw unavailable(NOT_A_MANAGER);
  return node;
}

export const controlOf = (api: SwarmApi): ControlApi => nodeOf(api).control();

const httpCodes: ReadonlyMap<status, ErrorCode> = new Map([
  [status.INVALID_ARGUMENT, "invalid"],
  [status.OUT_OF_RANGE, "invalid"],
  [status.NOT_FOUND, "notFound"],
  [status.ALREADY_EXISTS, "conflict"],
  [status.FAILED_PRECONDITION, "invalid"],
  [status.PERMISSION_DENIED, "forbidden"],
  [status.UNAUTHENTICATED, "unauthorized"],
  [status.UNIMPLEMENTED, "notImplemented"],
  [status.UNAVAILABLE, "unavailable"],
]);

/** What a manager answered over gRPC (a follower forwards to its leader) as an error of the API. */
function apiError(error: unknown): unknown {
  if (error instanceof SkeinError) return error;
  const code = grpcCodeOf(error);
  const known = code === undefined ? undefined : httpCodes.get(code);
  return known ? new SkeinError(known, grpcMessageOf(error), { cause: error }) : error;
}

/** A route whose gRPC errors become those of the API. */
export function swarmRoute<const P extends string>(
  method: Method,
  pattern: P,
  handle: (request: ApiRequest<ParamsOf<P>>) => Promise<Reply> | Reply,
): Route {
  return route(method, pattern, async (request: ApiRequest<ParamsOf<P>>) => {
    try {
      return await handle(request);
    } catch (error) {
      throw apiError(error);
    }
  });
}

interface Named {
  readonly id: string;
}

/** Full id, else full name, else id prefix; several of a kind are an error. */
function find<T extends Named>(
  kind: string,
  ref: string,
  byId: (id: string) => T | undefined,
  all: () => T[],
  nameOf: (object: T) => string,
): T {
  const exact = byId(ref);
  if (exact) return exact;
  const objects = all();
  let matches = objects.filter((object) => nameOf(object) === ref);
  if (matches.length === 0 && ref !== "") matches = objects.filter((object) => object.id.startsWith(ref));
  const [first] = matches;
  if (!first) throw notFound(`${kind} ${ref} not found`);
  if (matches.length > 1) throw invalid(`${kind} ${ref} is ambiguous (${matches.length} matches found)`);
  return first;
}

const specName = (object: { spec?: { annotations?: { name: string } | undefined } | undefined }): string =>
  object.spec?.annotations?.name ?? "";

/** A node's own name, which is its host's unless it was given one. */
export const nodeName = (node: Node): string => specName(node) || (node.description?.hostname ?? "");

/** `<service>.<slot or node>.<id>`. */
export function taskName(task: Task): string {
  if (task.annotations?.name) return task.annotations.name;
  return `${task.serviceAnnotations?.name ?? ""}.${task.slot ? task.slot : task.nodeId}.${task.id}`;
}

export const findService = (control: ControlApi, ref: string): Service =>
  find(
    "service",
    ref,
    (id) => control.service(id),
    () => control.services(),
    specName,
  );
export const findNode = (control: ControlApi, ref: string): Node =>
  find(
    "node",
    ref,
    (id) => control.node(id),
    () => control.nodes(),
    nodeName,
  );
export const findTask = (control: ControlApi, ref: string): Task =>
  find(
    "task",
    ref,
    (id) => control.task(id),
    () => control.tasks(),
    taskName,
  );
export const findNetwork = (control: ControlApi, ref: string): Network =>
  find(
    "network",
    ref,
    (id) => control.network(id),
    () => control.networks(),
    specName,
  );
export const findSecret = (control: ControlApi, ref: string): Secret =>
  find(
    "secret",
    ref,
    (id) => control.secret(id),
    () => control.secrets(),
    specName,
  );
export const findConfig = (control: ControlApi, ref: string): Config =>
  find(
    "config",
    ref,
    (id) => control.config(id),
    () => control.configs(),
    specName,
  );

/** The `version` of an update: the index that the client saw. */
export function versionOf(request: ApiRequest, kind: string): bigint {
  const raw = request.query.string("version");
  if (!/^\d{1,20}$/.test(raw)) {
    throw invalid(
      `invalid ${kind} version '${raw}': strconv.ParseUint: parsing ${JSON.stringify(raw)}: invalid syntax`,
    );
  }
  return BigInt(raw);
}

/** Go's strconv.ParseBool of a query parameter; absent is false. */
export function parseBool(request: ApiRequest, name: string): boolean {
  const raw = request.query.string(name);
  if (raw === "") return false;
  if (["1", "t", "T", "TRUE", "true", "True"].includes(raw)) return true;
  if (["0", "f", "F", "FALSE", "false", "False"].includes(raw)) return false;
  throw invalid(`invalid value for ${name}: ${raw}`);
}

/**
 * The writing calls of the control API as messages, so that a manager that does not lead can pass them on. One table
 * tells both sides how each call is said.
 */
import { create } from "@bufbuild/protobuf";
import {
  type WriteRequest,
  WriteRequestSchema,
  type WriteResponse,
  WriteResponseSchema,
} from "#proto/skein/swarm/managers_pb.js";
import { type ErrorCode, errorCodes, messageOf, SkeinError } from "../../../base/errors.ts";
import { grpcMessageOf } from "../../../base/grpc.ts";
import type { ControlApi } from "../../types.ts";

type Writes = Pick<
  ControlApi,
  | "updateCluster"
  | "updateNode"
  | "removeNode"
  | "createService"
  | "updateService"
  | "removeService"
  | "removeTask"
  | "createNetwork"
  | "removeNetwork"
  | "createSecret"
  | "updateSecret"
  | "removeSecret"
  | "createConfig"
  | "updateConfig"
  | "removeConfig"
>;
type WriteMethod = keyof Writes;

type SpecCase = Exclude<WriteRequest["spec"]["case"], undefined>;
type SpecOf<C extends SpecCase> = Extract<WriteRequest["spec"], { case: C }>["value"];

function specOf<C extends SpecCase>(request: WriteRequest, kind: C): SpecOf<C> {
  if (request.spec.case !== kind) throw new SkeinError("invalid", `a ${kind} spec is missing`);
  return request.spec.value as SpecOf<C>;
}

/** What the leader does for each call; the id of the object is what it gives. */
const perform: Record<WriteMethod, (control: Writes, request: WriteRequest) => Promise<unknown>> = {
  updateCluster: (control, request) => {
    const [worker = false, manager = false, unlockKey = false] = request.flags;
    return control.updateCluster(request.version, specOf(request, "cluster"), { worker, manager, unlockKey });
  },
  updateNode: (control, request) => control.updateNode(request.id, request.version, specOf(request, "node")),
  removeNode: (control, { flags, id }) => control.removeNode(id, flags[0] ?? false),
  createService: (control, request) => control.createService(specOf(request, "service")),
  updateService: (control, request) => {
    const { flags, id, version } = request;
    return control.updateService(id, version, specOf(request, "service"), flags[0] ?? false);
  },
  removeService: (control, { id }) => control.removeService(id),
  removeTask: (control, { id }) => control.removeTask(id),
  createNetwork: (control, request) => control.createNetwork(specOf(request, "network")),
  removeNetwork: (control, { id }) => control.removeNetwork(id),
  createSecret: (control, request) => control.createSecret(specOf(request, "secret")),
  updateSecret: (control, request) => control.updateSecret(request.id, request.version, specOf(request, "secret")),
  removeSecret: (control, { id }) => control.removeSecret(id),
  createConfig: (control, request) => control.createConfig(specOf(request, "config")),
  updateConfig: (control, request) => control.updateConfig(request.id, request.version, specOf(request, "config")),
  removeConfig: (control, { id }) => control.removeConfig(id),
};

const hasId = (object: unknown): object is { id: string } =>
  typeof object === "object" && object !== null && "id" in object && typeof object.id === "string";

const isWrite = (method: string): method is WriteMethod => Object.hasOwn(perform, method);

/** On the leader: does what was asked; an error goes back as it is, with its words. */
export async function performWrite(
  control: Writes,
  request: WriteRequest,
  revision: () => bigint,
): Promise<WriteResponse> {
  try {
    if (!isWrite(request.method)) throw new SkeinError("notImplemented", `unknown method ${request.method}`);
    const done = await perform[request.method](control, request);
    return create(WriteResponseSchema, { id: hasId(done) ? done.id : request.id, revision: revision() });
  } catch (error) {
    const known = error instanceof SkeinError ? error : undefined;
    const message = known ? messageOf(known) : grpcMessageOf(error);
    return create(WriteResponseSchema, {
      error: { code: known?.code ?? "internal", message, hint: known?.hint ?? "" },
    });
  }
}

const isCode = (text: string): text is ErrorCode => errorCodes.some((code) => code === text);

/** The leader's refusal as it was thrown there. */
export function writeError({ code, hint, message }: { code: string; message: string; hint: string }): SkeinError {
  return new SkeinError(isCode(code) ? code : "internal", message, hint ? { hint } : {});
}

/** On any manager: `send` brings a request to the leader and waits until its effect is visible here. */
export function forwardedWrites(send: (request: WriteRequest) => Promise<string>, read: ControlApi): Writes {
  const request = (method: WriteMethod, fields: Omit<Partial<WriteRequest>, "$typeName"> = {}) =>
    send(create(WriteRequestSchema, { ...fields, method }));
  const object = async <T>(kind: string, id: Promise<string>, get: (id: string) => T | undefined): Promise<T> => {
    const found = get(await id);
    if (!found) throw new SkeinError("notFound", `${kind} ${await id} not found`);
    return found;
  };
  const remove = async (method: WriteMethod, id: string): Promise<void> => {
    await request(method, { id });
  };
  return {
    updateCluster: async (version, value, { worker, manager, unlockKey }) => {
      const flags = [worker, manager, unlockKey];
      await request("updateCluster", { version, flags, spec: { case: "cluster", value } });
      return read.cluster();
    },
    updateNode: (id, version, value) =>
      object("node", request("updateNode", { id, version, spec: { case: "node", value } }), read.node),
    removeNode: async (id, force) => {
      await request("removeNode", { id, flags: [force] });
    },
    createService: (value) =>
      object("service", request("createService", { spec: { case: "service", value } }), read.service),
    updateService: (id, version, value, rollback) => {
      const sent = request("updateService", { id, version, flags: [rollback], spec: { case: "service", value } });
      return object("service", sent, read.service);
    },
    removeService: (id) => remove("removeService", id),
    removeTask: (id) => remove("removeTask", id),
    createNetwork: (value) =>
      object("network", request("createNetwork", { spec: { case: "network", value } }), read.network),
    removeNetwork: (id) => remove("removeNetwork", id),
    createSecret: (value) =>
      object("secret", request("createSecret", { spec: { case: "secret", value } }), read.secret),
    updateSecret: (id, version, value) =>
      object("secret", request("updateSecret", { id, version, spec: { case: "secret", value } }), read.secret),
    removeSecret: (id) => remove("removeSecret", id),
    createConfig: (value) =>
      object("config", request("createConfig", { spec: { case: "config", value } }), read.config),
    updateConfig: (id, version, value) =>
      object("config", request("updateConfig", { id, version, spec: { case: "config", value } }), read.config),
    removeConfig: (id) => remove("removeConfig", id),
  };
}

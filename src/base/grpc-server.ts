/**
 * The serving side of gRPC: handlers from a service description. Messages are read here and not by grpc-js, so that broken
 * ones fail like handlers do: with a status, and in the log of whoever serves.
 */
import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { messageOf, SkeinError } from "./errors.ts";
import {
  codec,
  GrpcError,
  grpcCodeOf,
  grpcMessageOf,
  pathOf,
  type ServiceMethods,
  same,
  type Writable,
  writeTo,
} from "./grpc.ts";

export { Server, ServerCredentials } from "@grpc/grpc-js";

/** Who called and how to notice that it went away. */
export interface CallContext {
  readonly metadata: grpc.Metadata;
  /** Aborted when the caller cancels or the connection ends. */
  readonly signal: AbortSignal;
  /** The caller's address, `ip:port`. */
  readonly peer: string;
  /** The underlying call, for what this adapter does not cover (peer certificate). */
  readonly call: { getAuthContext(): unknown };
}

type MethodHandler<M> = M extends { methodKind: infer K; input: infer I; output: infer O }
  ? I extends DescMessage
    ? O extends DescMessage
      ? K extends "unary"
        ? (request: MessageShape<I>, context: CallContext) => Promise<MessageInitShape<O>> | MessageInitShape<O>
        : K extends "server_streaming"
          ? (request: MessageShape<I>, context: CallContext) => AsyncIterable<MessageInitShape<O>>
          : K extends "client_streaming"
            ? (requests: AsyncIterable<MessageShape<I>>, context: CallContext) => Promise<MessageInitShape<O>>
            : (requests: AsyncIterable<MessageShape<I>>, context: CallContext) => AsyncIterable<MessageInitShape<O>>
      : never
    : never
  : never;

/** The implementation of a service: one function per method. */
export type Handlers<S> = { [K in keyof ServiceMethods<S>]: MethodHandler<ServiceMethods<S>[K]> };

interface RawCall {
  metadata: grpc.Metadata;
  getPeer(): string;
  getAuthContext(): unknown;
  on(event: "cancelled", fn: () => void): unknown;
}

function contextOf(call: RawCall): CallContext {
  const abort = new AbortController();
  call.on("cancelled", () => abort.abort(new GrpcError(grpc.status.CANCELLED, "the caller went away")));
  return { metadata: call.metadata, signal: abort.signal, peer: call.getPeer(), call };
}

/** What callers are told is at most this long: it may quote what they sent. */
const MAX_TOLD = 1024;

/** A call that a handler, or what the caller sent, made fail. */
export interface Failure {
  /** `/package.Service/Method`. */
  readonly path: string;
  readonly context: CallContext;
  readonly code: grpc.status;
  /** What the caller is told. */
  readonly message: string;
  /** What was thrown. */
  readonly error: unknown;
}

/** Errors that were made for others are told as they are; of any other one the caller learns nothing. */
function told(error: unknown): Pick<Failure, "code" | "message" | "error"> {
  const code = grpcCodeOf(error);
  const meant = code !== undefined || error instanceof SkeinError;
  const message = meant ? grpcMessageOf(error) : "internal error";
  return { code: code ?? grpc.status.UNKNOWN, message: message.slice(0, MAX_TOLD), error };
}

function serverError({ code, message }: Pick<Failure, "code" | "message">): grpc.ServerErrorResponse {
  return Object.assign(new Error(message), { code, details: message, metadata: new grpc.Metadata() });
}

/** A handler of any method: a message or an iterable of them in, and out. */
export type AnyHandler = (request: unknown, context: CallContext) => unknown;

/** One method as it is served: messages come as bytes and are read here, so that broken ones fail like handlers do. */
interface Served {
  readonly kind: DescMethod["methodKind"];
  readonly handler: AnyHandler;
  readonly decode: (bytes: Buffer) => unknown;
  readonly reply: (message: unknown) => unknown;
  readonly fail: (error: unknown, context: CallContext) => grpc.ServerErrorResponse;
}

/** Reads a request of `method`; a broken one throws INTERNAL, as Go's server answers. */
export function readRequest(method: DescMethod, bytes: Uint8Array): MessageShape<DescMessage> {
  try {
    return fromBinary(method.input, bytes);
  } catch (error) {
    throw new GrpcError(grpc.status.INTERNAL, `grpc: error unmarshalling request: ${messageOf(error)}`);
  }
}

/** An answer of `method` from what its handler gave. */
export function answerOf(method: DescMethod, message: unknown): MessageShape<DescMessage> {
  return create(method.output, message as MessageInitShape<DescMessage>);
}

type OnFailure = (failure: Failure) => void;

/**
 * Serves `service` on a grpc-js server. A handler that throws a `GrpcError` ends the call with that status. `onFailure`
 * is told of every call that fails while its caller is there.
 */
export function addService<S extends DescService>(
  server: grpc.Server,
  service: S,
  handlers: Handlers<S>,
  onFailure: OnFailure = () => {},
): void {
  add(server, service, onFailure, (method) => {
    const handler = (handlers as Record<string, AnyHandler>)[method.localName];
    if (!handler) throw new Error(`no handler for ${service.typeName}/${method.name}`);
    return {
      handler,
      decode: (bytes) => readRequest(method, bytes),
      reply: (message) => answerOf(method, message),
      serialize: codec(method).responseSerialize as (message: unknown) => Buffer,
    };
  });
}

/** The same with handlers whose messages, both ways, are the bytes of the wire. */
export function addPassingService(
  server: grpc.Server,
  service: DescService,
  handlerOf: (method: DescMethod) => AnyHandler,
  onFailure: OnFailure = () => {},
): void {
  add(server, service, onFailure, (method) => {
    return {
      handler: handlerOf(method),
      decode: (bytes) => bytes,
      reply: (bytes) => bytes,
      serialize: (bytes) => bytes as Buffer,
    };
  });
}

function add(
  server: grpc.Server,
  service: DescService,
  onFailure: OnFailure,
  servedAs: (
    method: DescMethod,
  ) => Pick<Served, "handler" | "decode" | "reply"> & { serialize: (message: unknown) => Buffer },
): void {
  const definition: Record<string, grpc.MethodDefinition<never, never>> = {};
  const implementation: grpc.UntypedServiceImplementation = {};
  for (const method of service.methods) {
    const { serialize, ...served } = servedAs(method);
    const kind = method.methodKind;
    definition[method.name] = {
      ...codec(method),
      requestDeserialize: same,
      responseSerialize: serialize,
      requestStream: kind === "client_streaming" || kind === "bidi_streaming",
      responseStream: kind === "server_streaming" || kind === "bidi_streaming",
    } as unknown as grpc.MethodDefinition<never, never>;
    implementation[method.name] = serve({
      ...{ kind, ...served },
      fail: (error, context) => {
        const what = told(error);
        if (!context.signal.aborted) onFailure({ ...what, path: pathOf(method), context });
        return serverError(what);
      },
    });
  }
  server.addService(definition as unknown as grpc.ServiceDefinition, implementation);
}

async function* decoded(messages: AsyncIterable<Buffer>, decode: Served["decode"]): AsyncIterable<unknown> {
  for await (const bytes of messages) yield decode(bytes);
}

function serve({ decode, fail, handler, kind, reply }: Served): grpc.UntypedHandleCall {
  const input = (call: unknown) =>
    kind === "unary" || kind === "server_streaming"
      ? decode((call as { request: Buffer }).request)
      : decoded(call as AsyncIterable<Buffer>, decode);
  if (kind === "unary" || kind === "client_streaming") {
    return ((call: RawCall, callback: (error: unknown, value?: unknown) => void) => {
      const context = contextOf(call);
      Promise.resolve()
        .then(() => handler(input(call), context))
        .then(
          (message) => callback(null, reply(message)),
          (error) => callback(fail(error, context)),
        );
    }) as grpc.UntypedHandleCall;
  }
  return (async (call: RawCall & Writable & { end(): void; emit(event: "error", error: unknown): void }) => {
    const context = contextOf(call);
    try {
      for await (const message of handler(input(call), context) as AsyncIterable<unknown>) {
        if (context.signal.aborted) return;
        await writeTo(call, reply(message));
      }
      call.end();
    } catch (error) {
      if (!context.signal.aborted) call.emit("error", fail(error, context));
    }
  }) as unknown as grpc.UntypedHandleCall;
}

/**
 * gRPC with protobuf-es types over grpc-js: typed clients and servers from a service description.
 * Unary calls are promises, streams are async iterables, cancellation is an `AbortSignal`.
 */
import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import type { GenService } from "@bufbuild/protobuf/codegenv2";
import * as grpc from "@grpc/grpc-js";
import { messageOf, SkeinError } from "./errors.ts";

export { type ChannelCredentials, credentials, Metadata, Server, ServerCredentials, status } from "@grpc/grpc-js";

/** An error with a gRPC status code, to be thrown by handlers; clients get grpc-js's ServiceError. */
export class GrpcError extends Error {
  readonly code: grpc.status;

  constructor(code: grpc.status, message: string) {
    super(message);
    this.name = "GrpcError";
    this.code = code;
  }
}

/** The gRPC status code of anything thrown by a client call, if it has one. */
export function grpcCodeOf(error: unknown): grpc.status | undefined {
  if (error instanceof Error && "code" in error && typeof error.code === "number") return error.code;
  return undefined;
}

/** The status message that the other side sent, without grpc-js's prefix. */
export function grpcMessageOf(error: unknown): string {
  if (error instanceof Error && "details" in error && typeof error.details === "string" && error.details) {
    return error.details;
  }
  return error instanceof Error ? error.message : String(error);
}

export interface CallOptions {
  signal?: AbortSignal;
  metadata?: Record<string, string>;
  /** Milliseconds until DEADLINE_EXCEEDED. */
  timeoutMs?: number;
}

/** What a client-streaming call gives: write, end, then await the response. */
export interface ClientStream<I extends DescMessage, O extends DescMessage> {
  /** Resolves when there is room for the next message. */
  write(message: MessageInitShape<I>): Promise<void>;
  end(): void;
  readonly response: Promise<MessageShape<O>>;
}

/** A bidirectional stream: write on one side, iterate the other. */
export interface BidiStream<I extends DescMessage, O extends DescMessage> extends AsyncIterable<MessageShape<O>> {
  write(message: MessageInitShape<I>): Promise<void>;
  end(): void;
}

type MethodClient<M> = M extends { methodKind: infer K; input: infer I; output: infer O }
  ? I extends DescMessage
    ? O extends DescMessage
      ? K extends "unary"
        ? (request: MessageInitShape<I>, options?: CallOptions) => Promise<MessageShape<O>>
        : K extends "server_streaming"
          ? (request: MessageInitShape<I>, options?: CallOptions) => AsyncIterable<MessageShape<O>>
          : K extends "client_streaming"
            ? (options?: CallOptions) => ClientStream<I, O>
            : (options?: CallOptions) => BidiStream<I, O>
      : never
    : never
  : never;

type ServiceMethods<S> = S extends GenService<infer M> ? M : never;

/** A typed client: one function per method of the service. */
export type Client<S> = { [K in keyof ServiceMethods<S>]: MethodClient<ServiceMethods<S>[K]> };

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

const pathOf = (method: DescMethod) => `/${method.parent.typeName}/${method.name}`;

function codec(method: DescMethod) {
  return {
    path: pathOf(method),
    requestSerialize: (message: MessageShape<DescMessage>) => Buffer.from(toBinary(method.input, message)),
    requestDeserialize: (bytes: Buffer) => fromBinary(method.input, bytes),
    responseSerialize: (message: MessageShape<DescMessage>) => Buffer.from(toBinary(method.output, message)),
    responseDeserialize: (bytes: Buffer) => fromBinary(method.output, bytes),
  };
}

const same = (bytes: Buffer) => bytes;

/** How one method of a client writes and reads its messages. */
interface Form {
  readonly encode: (message: unknown) => Buffer;
  readonly decode: (bytes: Buffer) => unknown;
}

function callOptions(options: CallOptions | undefined): grpc.CallOptions {
  return options?.timeoutMs === undefined ? {} : { deadline: Date.now() + options.timeoutMs };
}

function toMetadata(options: CallOptions | undefined): grpc.Metadata {
  const metadata = new grpc.Metadata();
  for (const [key, value] of Object.entries(options?.metadata ?? {})) metadata.set(key, value);
  return metadata;
}

/** A stream fails for whoever reads it; one that nobody reads any more must not end the process with its error. */
function unread(call: { on(event: "error", fn: () => void): unknown }): void {
  call.on("error", () => {});
}

function cancelOn(call: { cancel(): void; on(event: "status", fn: () => void): unknown }, signal?: AbortSignal): void {
  if (!signal) return;
  const onAbort = () => call.cancel();
  if (signal.aborted) onAbort();
  else {
    signal.addEventListener("abort", onAbort, { once: true });
    call.on("status", () => signal.removeEventListener("abort", onAbort));
  }
}

type Writable = { write(message: unknown): boolean; once(event: "drain" | "close" | "error", fn: () => void): unknown };

function writeTo(call: Writable, message: unknown): Promise<void> {
  if (call.write(message)) return Promise.resolve();
  return new Promise((resolve) => {
    call.once("drain", resolve);
    call.once("close", resolve);
    call.once("error", resolve);
  });
}

/** A connection to one address, on which clients of several services can share. */
export class Channel {
  readonly raw: grpc.Client;

  constructor(address: string, channelCredentials: grpc.ChannelCredentials, options: grpc.ClientOptions = {}) {
    this.raw = new grpc.Client(address, channelCredentials, {
      "grpc.max_receive_message_length": -1,
      "grpc.max_send_message_length": -1,
      ...options,
    });
  }

  /** A typed client of `service` on this channel. */
  client<S extends DescService>(service: S): Client<S> {
    const client: Record<string, unknown> = {};
    for (const method of service.methods) {
      const init = (message: unknown) => create(method.input, message as MessageInitShape<DescMessage>);
      const { requestSerialize, responseDeserialize } = codec(method);
      client[method.localName] = this.#method(method, {
        encode: (message) => requestSerialize(init(message)),
        decode: responseDeserialize,
      });
    }
    return client as Client<S>;
  }

  /** One method of a client whose messages, both ways, are the bytes of the wire. */
  passing(method: DescMethod): (...given: unknown[]) => unknown {
    const form = { encode: same as (bytes: unknown) => Buffer, decode: same };
    return this.#method(method, form) as (...given: unknown[]) => unknown;
  }

  #method(method: DescMethod, { decode, encode }: Form): unknown {
    const path = pathOf(method);
    switch (method.methodKind) {
      case "unary":
        return (request: unknown, options?: CallOptions) =>
          new Promise((resolve, reject) => {
            const call = this.raw.makeUnaryRequest(
              path,
              encode,
              decode,
              request,
              toMetadata(options),
              callOptions(options),
              (error, response) => (error ? reject(error) : resolve(response)),
            );
            cancelOn(call, options?.signal);
          });
      case "server_streaming":
        return (request: unknown, options?: CallOptions) => {
          const call = this.raw.makeServerStreamRequest(
            path,
            encode,
            decode,
            request,
            toMetadata(options),
            callOptions(options),
          );
          cancelOn(call, options?.signal);
          unread(call);
          return call;
        };
      case "client_streaming":
        return (options?: CallOptions) => {
          const result = Promise.withResolvers<unknown>();
          const call = this.raw.makeClientStreamRequest(
            path,
            encode,
            decode,
            toMetadata(options),
            callOptions(options),
            (error, response) => (error ? result.reject(error) : result.resolve(response)),
          );
          cancelOn(call, options?.signal);
          return {
            write: (message: unknown) => writeTo(call, message),
            end: () => call.end(),
            response: result.promise,
          };
        };
      case "bidi_streaming":
        return (options?: CallOptions) => {
          const call = this.raw.makeBidiStreamRequest(path, encode, decode, toMetadata(options), callOptions(options));
          cancelOn(call, options?.signal);
          unread(call);
          return {
            write: (message: unknown) => writeTo(call, message),
            end: () => call.end(),
            [Symbol.asyncIterator]: () => call[Symbol.asyncIterator](),
          };
        };
    }
  }

  /** Connects if need be; false when that is not done within `timeoutMs`. */
  ready(timeoutMs: number): Promise<boolean> {
    return new Promise((resolve) => {
      this.raw.waitForReady(Date.now() + timeoutMs, (error) => resolve(error === undefined));
    });
  }

  close(): void {
    this.raw.close();
  }
}

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

/**
 * gRPC with protobuf-es types over grpc-js: typed clients from a service description, several of them on one connection,
 * and what they have in common with the serving side (`grpc-server.ts`).
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

export { type ChannelCredentials, credentials, Metadata, status } from "@grpc/grpc-js";

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

/** The methods of a service description, by their local names. */
export type ServiceMethods<S> = S extends GenService<infer M> ? M : never;

/** `/package.Service/Method`. */
export const pathOf = (method: DescMethod) => `/${method.parent.typeName}/${method.name}`;

/** How the messages of a method become bytes and back. */
export function codec(method: DescMethod) {
  return {
    path: pathOf(method),
    requestSerialize: (message: MessageShape<DescMessage>) => Buffer.from(toBinary(method.input, message)),
    requestDeserialize: (bytes: Buffer) => fromBinary(method.input, bytes),
    responseSerialize: (message: MessageShape<DescMessage>) => Buffer.from(toBinary(method.output, message)),
    responseDeserialize: (bytes: Buffer) => fromBinary(method.output, bytes),
  };
}

/** A message that is, and stays, the bytes of the wire. */
export const same = (bytes: Buffer) => bytes;

const settling = ["drain", "close", "error", "status"] as const;
type Settling = (typeof settling)[number];

/** A stream of messages on its way out. Callers' streams say "status" when the call is over; then nobody drains them. */
export interface Writable {
  write(message: unknown): boolean;
  on(event: Settling, fn: () => void): unknown;
  off(event: Settling, fn: () => void): unknown;
}

/** Resolves when there is room for the next message, or when nobody takes it any more. */
export function writeTo(call: Writable, message: unknown): Promise<void> {
  if (call.write(message)) return Promise.resolve();
  return new Promise((resolve) => {
    // Streams live for weeks: none of the listeners may stay when another event came.
    const settle = () => {
      for (const event of settling) call.off(event, settle);
      resolve();
    };
    for (const event of settling) call.on(event, settle);
  });
}

export interface CallOptions {
  signal?: AbortSignal;
  metadata?: Record<string, string>;
  /** Milliseconds until DEADLINE_EXCEEDED. */
  timeoutMs?: number;
}

/** What a client-streaming call gives: write, end, then await the response. */
export interface ClientStream<I extends DescMessage, O extends DescMessage> {
  /** Resolves when there is room for the next message, or when the call is over: `response` tells why. */
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

/** A typed client: one function per method of the service. */
export type Client<S> = { [K in keyof ServiceMethods<S>]: MethodClient<ServiceMethods<S>[K]> };

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

/** Writes as long as the call lasts; afterwards what is written is dropped, and the call itself tells why. */
function writerOf(call: Writable): (message: unknown) => Promise<void> {
  let over = false;
  call.on("status", () => {
    over = true;
  });
  return (message) => (over ? Promise.resolve() : writeTo(call, message));
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
            write: writerOf(call),
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
            write: writerOf(call),
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

/** A service whose calls are answered by the leading manager, wherever they come in. */
import type { DescMethod, DescService } from "@bufbuild/protobuf";
import {
  type BidiStream,
  type CallContext,
  type CallOptions,
  type Channel,
  type ClientStream,
  GrpcError,
  type Handlers,
  status,
} from "../../../base/grpc.ts";

const notServed = (method: DescMethod) => new GrpcError(status.UNIMPLEMENTED, `no handler for ${method.name}`);

/** Where the calls of the moment go: handled here, or on a connection to the leader. */
export type Destination<H> =
  | { readonly here: H; readonly context: CallContext }
  /** `signal`: that leader leads no more. */
  | { readonly channel: Channel; readonly metadata: Record<string, string>; readonly signal: AbortSignal };

type AnyHandler = (input: unknown, context: CallContext) => unknown;
type AnyCall = (...given: unknown[]) => unknown;
type AnyStream = ClientStream<never, never> & BidiStream<never, never>;

/**
 * `destination` waits a while for a leader, and throws UNAVAILABLE when there is none. A call that began at one leader
 * ends with it.
 */
export function routed<S extends DescService>(
  service: S,
  destination: (context: CallContext) => Promise<Destination<Handlers<S>>>,
): Handlers<S> {
  const handlers: Record<string, AnyHandler> = {};
  for (const method of service.methods) {
    const go = async (context: CallContext) => {
      const to = await destination(context);
      if ("here" in to) {
        const handler = (to.here as Record<string, AnyHandler>)[method.localName];
        if (!handler) throw notServed(method);
        return (input: unknown) => handler(input, to.context);
      }
      const call = (to.channel.client(service) as Record<string, AnyCall>)[method.localName];
      if (!call) throw notServed(method);
      const signal = AbortSignal.any([context.signal, to.signal]);
      return passing(method, call, { signal, metadata: to.metadata });
    };
    handlers[method.localName] = streams(method)
      ? async function* (input, context) {
          yield* (await go(context))(input) as AsyncIterable<unknown>;
        }
      : async (input, context) => (await go(context))(input);
  }
  return handlers as Handlers<S>;
}

const streams = ({ methodKind }: DescMethod) => methodKind === "server_streaming" || methodKind === "bidi_streaming";

function passing(method: DescMethod, call: AnyCall, options: CallOptions): (input: unknown) => unknown {
  if (method.methodKind === "unary" || method.methodKind === "server_streaming") {
    return (input) => call(input, options);
  }
  return (input) => {
    const stream = call(options) as AnyStream;
    const sent = (async () => {
      for await (const message of input as AsyncIterable<never>) await stream.write(message);
      stream.end();
    })();
    sent.catch(() => {});
    return method.methodKind === "client_streaming" ? sent.then(() => stream.response) : stream;
  };
}

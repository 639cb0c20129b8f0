/**
 * A service whose calls are answered by the leading manager, wherever they come in. A manager that passes a call on does
 * not look into its messages: after a change of leader a thousand nodes are told all their tasks again.
 */
import { type DescMethod, type DescService, toBinary } from "@bufbuild/protobuf";
import {
  type BidiStream,
  type CallOptions,
  type Channel,
  type ClientStream,
  GrpcError,
  grpcCodeOf,
  status,
} from "../../../base/grpc.ts";
import {
  type AnyHandler,
  addPassingService,
  answerOf,
  type CallContext,
  type Failure,
  type Handlers,
  readRequest,
  type Server,
} from "../../../base/grpc-server.ts";

const notServed = (method: DescMethod) => new GrpcError(status.UNIMPLEMENTED, `no handler for ${method.name}`);

/** Where the calls of the moment go: handled here, or on a connection to the leader. */
export type Destination<H> =
  | { readonly here: H; readonly context: CallContext }
  /** `signal`: that leader leads no more. */
  | { readonly channel: Channel; readonly metadata: Record<string, string>; readonly signal: AbortSignal };

type AnyCall = (...given: unknown[]) => unknown;
type AnyStream = ClientStream<never, never> & BidiStream<never, never>;

/**
 * `destination` waits a while for a leader, and throws UNAVAILABLE when there is none. A call that began at one leader
 * ends with it.
 */
export function addRoutedService<S extends DescService>(
  server: Server,
  service: S,
  destination: (context: CallContext) => Promise<Destination<Handlers<S>>>,
  onFailure?: (failure: Failure) => void,
): void {
  const handlerOf = (method: DescMethod): AnyHandler => {
    const go = async (context: CallContext): Promise<(input: unknown) => unknown> => {
      const to = await destination(context);
      if ("here" in to) {
        const handler = (to.here as Record<string, AnyHandler>)[method.localName];
        if (!handler) throw notServed(method);
        return answering(method, handler, to.context);
      }
      const signal = AbortSignal.any([context.signal, to.signal]);
      return passing(method, to.channel.passing(method), { signal, metadata: to.metadata }, to.signal);
    };
    return streamsOut(method)
      ? async function* (input, context) {
          yield* (await go(context))(input) as AsyncIterable<unknown>;
        }
      : async (input, context) => (await go(context))(input);
  };
  addPassingService(server, service, handlerOf, onFailure);
}

const streamsIn = ({ methodKind }: DescMethod) => methodKind === "client_streaming" || methodKind === "bidi_streaming";
const streamsOut = ({ methodKind }: DescMethod) => methodKind === "server_streaming" || methodKind === "bidi_streaming";

/** A call answered here: its messages are read and written as for any other service. */
function answering(method: DescMethod, handler: AnyHandler, context: CallContext): (input: unknown) => unknown {
  const read = (bytes: unknown) => readRequest(method, bytes as Uint8Array);
  const write = (message: unknown) => Buffer.from(toBinary(method.output, answerOf(method, message)));
  return (input) => {
    const output = handler(streamsIn(method) ? each(input, read) : read(input), context);
    return streamsOut(method) ? each(output, write) : Promise.resolve(output).then(write);
  };
}

async function* each<T>(items: unknown, change: (item: unknown) => T): AsyncIterable<T> {
  for await (const item of items as AsyncIterable<unknown>) yield change(item);
}

/** A call passed on. `over`: the leader that it goes to leads no more. */
function passing(
  method: DescMethod,
  call: AnyCall,
  options: CallOptions,
  over: AbortSignal,
): (input: unknown) => unknown {
  switch (method.methodKind) {
    case "unary":
      return (input) => call(input, options);
    case "server_streaming":
      return (input) => whileLed(call(input, options), over);
    case "client_streaming":
    case "bidi_streaming":
      return (input) => {
        const stream = call(options) as AnyStream;
        const sent = (async () => {
          for await (const message of input as AsyncIterable<never>) await stream.write(message);
          stream.end();
        })();
        sent.catch(() => {});
        if (method.methodKind === "bidi_streaming") return whileLed(stream, over);
        // The leader may have enough before the caller has told all.
        return Promise.race([stream.response, sent.then(() => stream.response)]);
      };
  }
}

/**
 * What the leader streams. When it is lost the caller hears ABORTED: nothing is wrong with the way to this manager, and
 * the next leader is reached the same way.
 */
async function* whileLed(stream: unknown, over: AbortSignal): AsyncIterable<unknown> {
  try {
    yield* stream as AsyncIterable<unknown>;
  } catch (error) {
    const code = grpcCodeOf(error);
    if (!over.aborted && code !== status.UNAVAILABLE && code !== status.CANCELLED) throw error;
    throw new GrpcError(status.ABORTED, "another manager leads");
  }
}

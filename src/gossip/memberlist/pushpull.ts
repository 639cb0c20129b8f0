/**
 * Push/pull: both sides send all they know of all nodes, and a user state. Header, node states, then the
 * user's bytes raw. Also the frame of user messages on streams, which is built alike.
 */
import { messageType, typed } from "./messages.ts";
import { boolField, bytesField, encodeStruct, MsgReader, stringField, uintField } from "./msgpack.ts";

const maxNodes = 65536;

/** States of a node, numbered as on the wire. */
const nodeStates = ["alive", "suspect", "dead", "left"] as const;
export type Liveness = (typeof nodeStates)[number];

export interface PushNode {
  readonly name: string;
  readonly addr: Uint8Array;
  readonly port: number;
  readonly meta: Uint8Array;
  readonly incarnation: number;
  readonly state: Liveness;
  readonly vsn: Uint8Array;
}

export interface PushPull {
  readonly join: boolean;
  readonly nodes: readonly PushNode[];
  readonly userState: Uint8Array;
}

export function encodePushPull(state: PushPull): Buffer {
  return Buffer.concat([
    typed(messageType.pushPull, {
      Nodes: state.nodes.length,
      UserStateLen: state.userState.length,
      Join: state.join,
    }),
    ...state.nodes.map((node) =>
      encodeStruct({
        Name: node.name,
        Addr: node.addr,
        Port: node.port,
        Meta: node.meta,
        Incarnation: node.incarnation,
        State: nodeStates.indexOf(node.state),
        Vsn: node.vsn,
      }),
    ),
    state.userState,
  ]);
}

/** Decodes a push/pull (type byte included). Nodes in a state unknown to us are left out. */
export function decodePushPull(bytes: Buffer): PushPull {
  const reader = new MsgReader(bytes, 1);
  const header = reader.struct();
  const count = uintField(header, "Nodes", maxNodes);
  const userLength = uintField(header, "UserStateLen");
  const nodes: PushNode[] = [];
  for (let i = 0; i < count; i++) {
    const map = reader.struct();
    const state = nodeStates[uintField(map, "State", 255)];
    if (!state) continue;
    nodes.push({
      name: stringField(map, "Name"),
      addr: bytesField(map, "Addr", 16),
      port: uintField(map, "Port", 0xffff),
      meta: bytesField(map, "Meta"),
      incarnation: uintField(map, "Incarnation"),
      state,
      vsn: bytesField(map, "Vsn", 6),
    });
  }
  if (bytes.length - reader.offset < userLength) throw new RangeError("push/pull: truncated user state");
  return {
    join: boolField(header, "Join"),
    nodes,
    userState: bytes.subarray(reader.offset, reader.offset + userLength),
  };
}

export function encodeUserStream(payload: Uint8Array): Buffer {
  return Buffer.concat([typed(messageType.user, { UserMsgLen: payload.length }), payload]);
}

/** The payload of a user message on a stream (type byte included). */
export function decodeUserStream(bytes: Buffer): Buffer {
  const reader = new MsgReader(bytes, 1);
  const length = uintField(reader.struct(), "UserMsgLen");
  if (bytes.length - reader.offset < length) throw new RangeError("user message: truncated");
  return bytes.subarray(reader.offset, reader.offset + length);
}

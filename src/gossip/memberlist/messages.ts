/** memberlist's messages: one type byte and a msgpack struct. */
import {
  boolField,
  bytesField,
  encodeStruct,
  type MsgField,
  type MsgMap,
  MsgReader,
  stringField,
  uintField,
} from "./msgpack.ts";

/** The first byte of every message. */
export const messageType = {
  ping: 0,
  indirectPing: 1,
  ack: 2,
  suspect: 3,
  alive: 4,
  dead: 5,
  pushPull: 6,
  compound: 7,
  user: 8,
  compress: 9,
  encrypt: 10,
  nack: 11,
  crc: 12,
  err: 13,
  label: 244,
} as const;

/** Who asks, so that the answer finds its way through address translation; memberlist since 0.2. */
export interface Source {
  readonly sourceAddr?: Uint8Array;
  readonly sourcePort?: number;
  readonly sourceNode?: string;
}

export interface Ping extends Source {
  readonly kind: "ping";
  readonly seqNo: number;
  readonly node: string;
}

export interface IndirectPing extends Source {
  readonly kind: "indirectPing";
  readonly seqNo: number;
  readonly target: Uint8Array;
  readonly port: number;
  readonly node: string;
  readonly nack: boolean;
}

export interface Ack {
  readonly kind: "ack";
  readonly seqNo: number;
  readonly payload: Uint8Array | null;
}

export interface Nack {
  readonly kind: "nack";
  readonly seqNo: number;
}

export interface Suspect {
  readonly kind: "suspect";
  readonly incarnation: number;
  readonly node: string;
  readonly from: string;
}

export interface Dead {
  readonly kind: "dead";
  readonly incarnation: number;
  readonly node: string;
  /** Equal to `node` when the node left by itself. */
  readonly from: string;
}

export interface Alive {
  readonly kind: "alive";
  readonly incarnation: number;
  readonly node: string;
  /** 4 or 16 bytes. */
  readonly addr: Uint8Array;
  readonly port: number;
  readonly meta: Uint8Array;
  readonly vsn: Uint8Array;
}

export interface ErrorMessage {
  readonly kind: "err";
  readonly error: string;
}

/** Messages that are a single struct (not the wrappers, and not push/pull and user with their tails). */
export type Message = Ping | IndirectPing | Ack | Nack | Suspect | Dead | Alive | ErrorMessage;

export function encodeMessage(message: Message): Buffer {
  switch (message.kind) {
    case "ping":
      return typed(messageType.ping, { SeqNo: message.seqNo, Node: message.node, ...sourceFields(message) });
    case "indirectPing":
      return typed(messageType.indirectPing, {
        SeqNo: message.seqNo,
        Target: message.target,
        Port: message.port,
        Node: message.node,
        Nack: message.nack,
        ...sourceFields(message),
      });
    case "ack":
      return typed(messageType.ack, { SeqNo: message.seqNo, Payload: message.payload });
    case "nack":
      return typed(messageType.nack, { SeqNo: message.seqNo });
    case "suspect":
    case "dead":
      return typed(messageType[message.kind], {
        Incarnation: message.incarnation,
        Node: message.node,
        From: message.from,
      });
    case "alive":
      return typed(messageType.alive, {
        Incarnation: message.incarnation,
        Node: message.node,
        Addr: message.addr,
        Port: message.port,
        Meta: message.meta,
        Vsn: message.vsn,
      });
    case "err":
      return typed(messageType.err, { Error: message.error });
  }
}

/** Type byte and struct. */
export function typed(type: number, fields: Record<string, MsgField>): Buffer {
  return Buffer.concat([Uint8Array.of(type), encodeStruct(fields)]);
}

/** Decodes a whole message; undefined when its type is not one of `Message`. Throws RangeError when malformed. */
export function decodeMessage(bytes: Buffer): Message | undefined {
  const type = bytes[0];
  switch (type) {
    case messageType.ping: {
      const map = new MsgReader(bytes, 1).struct();
      return { kind: "ping", seqNo: uintField(map, "SeqNo"), node: stringField(map, "Node"), ...source(map) };
    }
    case messageType.indirectPing: {
      const map = new MsgReader(bytes, 1).struct();
      return {
        kind: "indirectPing",
        seqNo: uintField(map, "SeqNo"),
        target: bytesField(map, "Target", 16),
        port: uintField(map, "Port", 0xffff),
        node: stringField(map, "Node"),
        nack: boolField(map, "Nack"),
        ...source(map),
      };
    }
    case messageType.ack: {
      const map = new MsgReader(bytes, 1).struct();
      return { kind: "ack", seqNo: uintField(map, "SeqNo"), payload: bytesField(map, "Payload", 65536) };
    }
    case messageType.nack:
      return { kind: "nack", seqNo: uintField(new MsgReader(bytes, 1).struct(), "SeqNo") };
    case messageType.suspect:
    case messageType.dead: {
      const map = new MsgReader(bytes, 1).struct();
      return {
        kind: type === messageType.suspect ? "suspect" : "dead",
        incarnation: uintField(map, "Incarnation"),
        node: stringField(map, "Node"),
        from: stringField(map, "From"),
      };
    }
    case messageType.alive: {
      const map = new MsgReader(bytes, 1).struct();
      return {
        kind: "alive",
        incarnation: uintField(map, "Incarnation"),
        node: stringField(map, "Node"),
        addr: bytesField(map, "Addr", 16),
        port: uintField(map, "Port", 0xffff),
        meta: bytesField(map, "Meta"),
        vsn: bytesField(map, "Vsn", 6),
      };
    }
    case messageType.err:
      return { kind: "err", error: stringField(new MsgReader(bytes, 1).struct(), "Error", 4096) };
    default:
      return undefined;
  }
}

function sourceFields(source: Source): Record<string, MsgField> {
  return { SourceAddr: source.sourceAddr, SourcePort: source.sourcePort, SourceNode: source.sourceNode };
}

function source(map: MsgMap): Source {
  const sourceAddr = bytesField(map, "SourceAddr", 16);
  const sourcePort = uintField(map, "SourcePort", 0xffff);
  const sourceNode = stringField(map, "SourceNode");
  return {
    ...(sourceAddr.length > 0 && { sourceAddr }),
    ...(sourcePort > 0 && { sourcePort }),
    ...(sourceNode !== "" && { sourceNode }),
  };
}

/** networkdb's messages as plain values. Decoding checks every bound, so that what lies behind can trust them. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  BulkSyncMessageSchema,
  CompoundMessageSchema,
  GossipMessageSchema,
  MembershipEventType,
  MessageType,
  NetworkEventSchema,
  NetworkPushPullSchema,
  NodeEventSchema,
  TableEventSchema,
  TableEventType,
} from "#proto/docker/networkdb/networkdb_pb.js";
import { encodeCompound, encodeTable } from "./wire.ts";

export interface NodeMessage {
  readonly kind: "node";
  readonly type: "join" | "leave";
  readonly ltime: bigint;
  readonly node: string;
}

export interface NetworkMessage {
  readonly kind: "network";
  readonly type: "join" | "leave";
  readonly ltime: bigint;
  readonly node: string;
  readonly networkId: string;
}

export interface TableMessage {
  readonly kind: "table";
  readonly type: "create" | "update" | "delete";
  readonly ltime: bigint;
  readonly owner: string;
  readonly networkId: string;
  readonly table: string;
  readonly key: string;
  readonly value: Uint8Array;
  /** Seconds. */
  readonly residualReap: number;
}

export interface Attachment {
  readonly networkId: string;
  readonly ltime: bigint;
  readonly node: string;
  readonly leaving: boolean;
}

export interface PushPullMessage {
  readonly kind: "pushPull";
  readonly ltime: bigint;
  readonly node: string;
  readonly networks: readonly Attachment[];
}

export interface BulkSync {
  readonly kind: "bulkSync";
  readonly ltime: bigint;
  /** Asks for an answer. */
  readonly unsolicited: boolean;
  readonly node: string;
  readonly networks: readonly string[];
  /** Between nodes of ours: only what either of the two owns. Docker's nodes do not know it, and send all. */
  readonly ownOnly: boolean;
  /** A compound. */
  readonly payload: Uint8Array;
}

export interface Compound {
  readonly kind: "compound";
  readonly messages: readonly Uint8Array[];
}

/** A word from one node of ours to another. Not Docker's: its nodes never get one. */
export interface DirectMessage {
  readonly kind: "direct";
  readonly node: string;
  readonly payload: Uint8Array;
}

export type DbMessage =
  | NodeMessage
  | NetworkMessage
  | TableMessage
  | PushPullMessage
  | BulkSync
  | Compound
  | DirectMessage;

export function encodeDb(message: DbMessage): Uint8Array {
  switch (message.kind) {
    case "node":
      return wrap(
        MessageType.NODE_EVENT,
        toBinary(
          NodeEventSchema,
          create(NodeEventSchema, {
            type: membershipType[message.type],
            lTime: message.ltime,
            nodeName: message.node,
          }),
        ),
      );
    case "network":
      return wrap(
        MessageType.NETWORK_EVENT,
        toBinary(
          NetworkEventSchema,
          create(NetworkEventSchema, {
            type: membershipType[message.type],
            lTime: message.ltime,
            nodeName: message.node,
            networkId: message.networkId,
          }),
        ),
      );
    case "table":
      return encodeTable(message);
    case "pushPull":
      return wrap(
        MessageType.PUSH_PULL,
        toBinary(
          NetworkPushPullSchema,
          create(NetworkPushPullSchema, {
            lTime: message.ltime,
            nodeName: message.node,
            networks: message.networks.map((entry) => ({
              networkId: entry.networkId,
              lTime: entry.ltime,
              nodeName: entry.node,
              leaving: entry.leaving,
            })),
          }),
        ),
      );
    case "bulkSync":
      return wrap(
        MessageType.BULK_SYNC,
        toBinary(
          BulkSyncMessageSchema,
          create(BulkSyncMessageSchema, {
            lTime: message.ltime,
            unsolicited: message.unsolicited,
            nodeName: message.node,
            networks: [...message.networks],
            ownOnly: message.ownOnly,
            payload: message.payload,
          }),
        ),
      );
    case "compound":
      return encodeCompound(message.messages);
    case "direct":
      return wrap(MessageType.DIRECT, Buffer.concat([Buffer.from(`${message.node}/`), message.payload]));
  }
}

/** Throws when malformed or out of bounds. */
export function decodeDb(bytes: Uint8Array): DbMessage {
  const { type, data } = fromBinary(GossipMessageSchema, bytes);
  switch (type) {
    case MessageType.NODE_EVENT: {
      const event = fromBinary(NodeEventSchema, data);
      return { kind: "node", type: membershipOf(event.type), ltime: event.lTime, node: id(event.nodeName) };
    }
    case MessageType.NETWORK_EVENT: {
      const event = fromBinary(NetworkEventSchema, data);
      return {
        kind: "network",
        type: membershipOf(event.type),
        ltime: event.lTime,
        node: id(event.nodeName),
        networkId: id(event.networkId),
      };
    }
    case MessageType.TABLE_EVENT: {
      const event = fromBinary(TableEventSchema, data);
      if (event.value.length > maxValue) throw new RangeError("networkdb: value too large");
      return {
        kind: "table",
        type: tableTypeOf(event.type),
        ltime: event.lTime,
        owner: id(event.nodeName),
        networkId: id(event.networkId),
        table: id(event.tableName),
        key: id(event.key),
        // A copy: a view would keep the whole packet, or bulk sync, in memory.
        value: Uint8Array.from(event.value),
        residualReap: Math.max(0, event.residualReapTime),
      };
    }
    case MessageType.PUSH_PULL: {
      const state = fromBinary(NetworkPushPullSchema, data);
      return {
        kind: "pushPull",
        ltime: state.lTime,
        node: id(state.nodeName),
        networks: state.networks.map((entry) => ({
          networkId: id(entry.networkId),
          ltime: entry.lTime,
          node: id(entry.nodeName),
          leaving: entry.leaving,
        })),
      };
    }
    case MessageType.BULK_SYNC: {
      const sync = fromBinary(BulkSyncMessageSchema, data);
      return {
        kind: "bulkSync",
        ltime: sync.lTime,
        unsolicited: sync.unsolicited,
        node: id(sync.nodeName),
        networks: sync.networks.map(id),
        ownOnly: sync.ownOnly,
        payload: sync.payload,
      };
    }
    case MessageType.COMPOUND:
      return {
        kind: "compound",
        messages: fromBinary(CompoundMessageSchema, data).messages.map((message) => message.payload),
      };
    case MessageType.DIRECT: {
      const end = data.indexOf(slash);
      const node = Buffer.from(data.subarray(0, Math.max(0, end))).toString("utf8");
      return { kind: "direct", node: id(node), payload: Uint8Array.from(data.subarray(end + 1)) };
    }
    default:
      throw new RangeError(`networkdb: unknown message type ${type}`);
  }
}

const slash = 0x2f;
const maxId = 256;
const maxValue = 64 << 10;

/** Names, ids and keys: not empty, not endless. Docker's index is a path, so that a slash would confuse it. */
export function isId(text: string): boolean {
  return text.length > 0 && text.length <= maxId && !text.includes("/");
}

function id(text: string): string {
  if (!isId(text)) throw new RangeError("networkdb: bad name");
  return text;
}

function wrap(type: MessageType, data: Uint8Array): Uint8Array {
  return toBinary(GossipMessageSchema, create(GossipMessageSchema, { type, data }));
}

const membershipType = { join: MembershipEventType.JOIN, leave: MembershipEventType.LEAVE } as const;
function membershipOf(type: MembershipEventType): "join" | "leave" {
  if (type === MembershipEventType.JOIN) return "join";
  if (type === MembershipEventType.LEAVE) return "leave";
  throw new RangeError("networkdb: bad membership event");
}

function tableTypeOf(type: TableEventType): TableMessage["type"] {
  switch (type) {
    case TableEventType.CREATE:
      return "create";
    case TableEventType.UPDATE:
      return "update";
    case TableEventType.DELETE:
      return "delete";
    default:
      throw new RangeError("networkdb: bad table event");
  }
}

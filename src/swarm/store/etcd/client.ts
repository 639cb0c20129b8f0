/** A connection to the local etcd over mutual TLS with the swarm's certificates. */

import { Cluster, KV, Maintenance, Watch } from "#proto/etcd/rpc_pb.js";
import type { Client } from "../../../base/grpc.ts";
import { Channel, credentials } from "../../../base/grpc.ts";
import type { NodeCredentials } from "../../ca/files.ts";

export interface EtcdClient {
  readonly kv: Client<typeof KV>;
  readonly watch: Client<typeof Watch>;
  readonly cluster: Client<typeof Cluster>;
  readonly maintenance: Client<typeof Maintenance>;
  close(): void;
}

/** `address` is "ip:port"; the server must show a manager's certificate of this swarm. */
export function connectEtcd(address: string, node: NodeCredentials): EtcdClient {
  const channel = new Channel(
    address,
    credentials.createSsl(Buffer.from(node.rootPem), Buffer.from(node.keyPem), Buffer.from(node.certPem)),
    {
      "grpc.ssl_target_name_override": "swarm-manager",
      "grpc.default_authority": "swarm-manager",
      "grpc.initial_reconnect_backoff_ms": 50,
      "grpc.max_reconnect_backoff_ms": 500,
      // One connection per client: a manager that reopens its store must not share the old one's state.
      "grpc.use_local_subchannel_pool": 1,
    },
  );
  return {
    kv: channel.client(KV),
    watch: channel.client(Watch),
    cluster: channel.client(Cluster),
    maintenance: channel.client(Maintenance),
    close: () => channel.close(),
  };
}

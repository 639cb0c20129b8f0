/**
 * What this node tells the others of its own endpoints. Order of words, as Docker's nodes expect it: join the network,
 * tell where the endpoint is (peer record), and only when the container is active what it is called (endpoint record);
 * backwards at the end. A draining task's record is updated as disabled: no names, no new connections.
 */
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Gossip } from "../../gossip/types.ts";
import { hasFeature } from "../../kernel/feature.ts";
import { plainIp } from "../address.ts";
import { legMac } from "../plan/leg.ts";
import type { Activity, EndpointState } from "../state.ts";
import { encodeDoor, meshTable } from "./mesh.ts";
import { encodeEndpoint, encodePeer, endpointTable, peerTable } from "./records.ts";

export interface OwnRecordsOptions {
  /** Undefined as long as gossip does not run: nothing is told then, and all of it when a network is joined. */
  readonly gossip: () => Gossip | undefined;
  /** This host's data path address. */
  readonly vtep: () => string | undefined;
  /** Whether this node takes part in a network's gossip. */
  readonly isJoined: (networkId: string) => boolean;
  readonly log: Logger;
}

export class OwnRecords {
  readonly #options: OwnRecordsOptions;
  /** "table endpoint" of what was told. */
  readonly #told = new Set<string>();

  constructor(options: OwnRecordsOptions) {
    this.#options = options;
  }

  /** Where an endpoint is. */
  peer(endpoint: EndpointState): void {
    const vtep = this.#options.vtep();
    if (vtep) this.#create(peerTable, endpoint, encodePeer(endpoint, vtep));
  }

  /** That replies of this node's tasks to clients of the mesh find back through this endpoint of its `ingress_sbox`. */
  door(endpoint: EndpointState): void {
    const { ipv4, mac } = endpoint;
    const door = { address: plainIp(ipv4), mac, returns: hasFeature("nftEgress"), leg: legMac(mac) };
    this.#create(meshTable, endpoint, encodeDoor(door));
  }

  /** What an endpoint is called and serves, or that it is not to be called any more. */
  activity(endpoint: EndpointState, activity: Activity): void {
    const { id, networkId } = endpoint;
    const gossip = this.#options.gossip();
    if (endpoint.role !== "user" || !gossip || !this.#options.isJoined(networkId)) return;
    const known = this.#has(endpointTable, endpoint);
    if (activity === "inactive") {
      if (known) this.#delete(endpointTable, endpoint);
      return;
    }
    const bytes = encodeEndpoint(endpoint, activity === "draining");
    if (!known) this.#create(endpointTable, endpoint, bytes);
    else {
      this.#attempt("update", endpointTable, endpoint, () => gossip.updateEntry(endpointTable, networkId, id, bytes));
    }
  }

  /** Takes back all that was told of an endpoint. */
  withdraw(endpoint: EndpointState): void {
    for (const table of [endpointTable, peerTable, meshTable]) {
      if (this.#has(table, endpoint)) this.#delete(table, endpoint);
    }
  }

  /** Gossip ended, and what was told with it. */
  clear(): void {
    this.#told.clear();
  }

  #has(table: string, endpoint: EndpointState): boolean {
    return this.#told.has(`${table} ${endpoint.id}`);
  }

  #create(table: string, endpoint: EndpointState, bytes: Uint8Array): void {
    const gossip = this.#options.gossip();
    if (!gossip || this.#has(table, endpoint)) return;
    this.#attempt("create", table, endpoint, () => {
      gossip.createEntry(table, endpoint.networkId, endpoint.id, bytes);
      this.#told.add(`${table} ${endpoint.id}`);
    });
  }

  #delete(table: string, endpoint: EndpointState): void {
    this.#told.delete(`${table} ${endpoint.id}`);
    const gossip = this.#options.gossip();
    this.#attempt("delete", table, endpoint, () => gossip?.deleteEntry(table, endpoint.networkId, endpoint.id));
  }

  /** A container goes on without its record rather than not at all. */
  #attempt(what: string, table: string, endpoint: EndpointState, fn: () => void): void {
    try {
      fn();
    } catch (error) {
      this.#options.log.warn(`cannot ${what} a record`, { table, endpoint: endpoint.id, error: messageOf(error) });
    }
  }
}

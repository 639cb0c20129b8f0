/** /swarm: the swarm as a whole, and this host's way in and out of it. */
import { clone } from "@bufbuild/protobuf";
import { ClusterSpecSchema } from "#proto/docker/swarmkit/specs_pb.js";
import { invalid, unavailable } from "../../base/errors.ts";
import { resolveInit, resolveJoin } from "../../engine/swarm/address.ts";
import { checkAddressPools, checkDataPathPort } from "../../engine/swarm/pool.ts";
import { empty, json } from "../http/reply.ts";
import type { Route } from "../http/router.ts";
import { controlOf, nodeOf, parseBool, type SwarmApi, swarmRoute, versionOf } from "./access.ts";
import {
  checkSwarmName,
  defaultClusterSpec,
  initRequest,
  joinRequest,
  mergeSwarmSpec,
  swarmSpec,
  swarmToJson,
  unlockRequest,
} from "./convert/cluster.ts";
import { availabilityOf } from "./convert/node.ts";

const ALREADY =
  'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.';

/** In a swarm, or on the way into one, is no time for another. */
function refuseWhenIn(api: SwarmApi): void {
  if (nodeOf(api).local().state !== "inactive") throw unavailable(ALREADY);
}

export function swarmRoutes(api: SwarmApi): Route[] {
  return [
    swarmRoute("GET", "/swarm", () => json(swarmToJson(controlOf(api).cluster()))),

    swarmRoute("POST", "/swarm/init", async (request) => {
      const body = await request.json(initRequest);
      if (!body.ForceNewCluster) refuseWhenIn(api);
      checkSwarmName(body.Spec);
      const addresses = resolveInit(api.interfaces(), body);
      const pools = request.atLeast("1.39") ? body.DefaultAddrPool : [];
      const subnetSize = request.atLeast("1.39") ? body.SubnetSize : 0;
      checkAddressPools(pools, subnetSize);
      const spec = mergeSwarmSpec(body.Spec, defaultClusterSpec());
      const autoLock = body.AutoLockManagers || body.Spec.EncryptionConfig.AutoLockManagers;
      if (spec.encryptionConfig) spec.encryptionConfig.autoLockManagers = autoLock;
      const id = await nodeOf(api).init({
        ...addresses,
        dataPathPort: checkDataPathPort(request.atLeast("1.40") ? body.DataPathPort : 0),
        forceNewCluster: body.ForceNewCluster,
        autoLock,
        availability: availabilityOf(body.Availability),
        defaultAddressPool: pools,
        subnetSize,
        spec,
      });
      return json(id);
    }),

    swarmRoute("POST", "/swarm/join", async (request) => {
      const body = await request.json(joinRequest);
      refuseWhenIn(api);
      const addresses = resolveJoin(api.interfaces(), body);
      await nodeOf(api).join({
        ...addresses,
        joinToken: body.JoinToken,
        availability: availabilityOf(body.Availability),
      });
      return empty(200);
    }),

    swarmRoute("POST", "/swarm/leave", async (request) => {
      const node = nodeOf(api);
      await node.leave(request.query.bool("force"));
      return empty(200);
    }),

    swarmRoute("POST", "/swarm/update", async (request) => {
      const body = await request.json(swarmSpec);
      const version = versionOf(request, "swarm");
      const rotation = {
        worker: parseBool(request, "rotateWorkerToken"),
        manager: parseBool(request, "rotateManagerToken"),
        unlockKey: parseBool(request, "rotateManagerUnlockKey"),
      };
      const control = controlOf(api);
      const current = control.cluster().spec;
      if (!current) throw invalid("the cluster has no spec");
      // What an update does not name falls back to SwarmKit's defaults; labels are replaced, not merged.
      const base = defaultClusterSpec();
      base.acceptancePolicy = clone(ClusterSpecSchema, current).acceptancePolicy;
      await control.updateCluster(version, mergeSwarmSpec(body, base), rotation);
      return empty(200);
    }),

    swarmRoute("GET", "/swarm/unlockkey", async () => json({ UnlockKey: await controlOf(api).unlockKey() })),

    swarmRoute("POST", "/swarm/unlock", async (request) => {
      const body = await request.json(unlockRequest);
      await nodeOf(api).unlock(body.UnlockKey);
      return empty(200);
    }),
  ];
}

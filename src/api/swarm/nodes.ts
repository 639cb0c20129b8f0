/** /nodes. */
import { NodeSpec_Membership } from "#proto/docker/swarmkit/specs_pb.js";
import { NodeRole } from "#proto/docker/swarmkit/types_pb.js";
import { empty, json } from "../http/reply.ts";
import type { Route } from "../http/router.ts";
import { controlOf, findNode, nodeName, type SwarmApi, swarmRoute, versionOf } from "./access.ts";
import { nodeSpec, nodeSpecToProto, nodeToJson } from "./convert/node.ts";
import { accept, byEnum, byLabels, byPrefix } from "./filters.ts";

const FILTERS = ["name", "id", "label", "role", "membership", "node.label"];

export function nodeRoutes(api: SwarmApi): Route[] {
  return [
    swarmRoute("GET", "/nodes", (request) => {
      const filters = request.query.filters();
      const control = controlOf(api);
      accept(filters, FILTERS);
      const nodes = control
        .nodes()
        .filter(
          (node) =>
            byPrefix(filters, "name", nodeName(node)) &&
            byPrefix(filters, "id", node.id) &&
            byLabels(filters, "label", node.description?.engine?.labels) &&
            byLabels(filters, "node.label", node.spec?.annotations?.labels) &&
            byEnum(filters, "role", NodeRole, node.role) &&
            byEnum(filters, "membership", NodeSpec_Membership, node.spec?.membership ?? 0),
        );
      return json(nodes.map(nodeToJson));
    }),

    swarmRoute("GET", "/nodes/:id", ({ params }) => json(nodeToJson(findNode(controlOf(api), params.id)))),

    swarmRoute("DELETE", "/nodes/:id", async ({ params, query }) => {
      const control = controlOf(api);
      await control.removeNode(findNode(control, params.id).id, query.bool("force"));
      return empty(200);
    }),

    swarmRoute("POST", "/nodes/:id/update", async (request) => {
      const body = await request.json(nodeSpec);
      const version = versionOf(request, "node");
      const control = controlOf(api);
      const node = findNode(control, request.params.id);
      const spec = nodeSpecToProto(body);
      // What Docker's API cannot say stays as it is.
      if (node.spec) spec.membership = node.spec.membership;
      await control.updateNode(node.id, version, spec);
      return empty(200);
    }),
  ];
}

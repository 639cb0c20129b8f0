/** The swarm's routes over HTTP on a unix socket, with a fake swarm behind. Run alone to drive it by hand. */

import { mkdtempSync, rmSync } from "node:fs";
import type { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { listenUnix } from "../../../src/api/http/listen.ts";
import { json, text } from "../../../src/api/http/reply.ts";
import { Router, route } from "../../../src/api/http/router.ts";
import { createHttpServer } from "../../../src/api/http/server.ts";
import { allSwarmRoutes, swarmHeader, swarmInfo } from "../../../src/api/swarm/index.ts";
import { nullLogger } from "../../../src/base/log.ts";
import type { HostInterface } from "../../../src/engine/swarm/address.ts";
import { FakeSwarm } from "./fake.ts";

export const oneInterface: HostInterface[] = [
  { name: "lo", kind: "", up: true, loopback: true, addresses: ["127.0.0.1"] },
  { name: "eth0", kind: "veth", up: true, loopback: false, addresses: ["10.0.0.1"] },
];

export async function startFake(socket?: string) {
  const dir = socket ? undefined : mkdtempSync(join(tmpdir(), "api-swarm-"));
  const path = socket ?? join(dir ?? "", "docker.sock");
  const swarm = new FakeSwarm();
  const router = new Router()
    .add([
      route("GET", "/_ping", () => text("OK")),
      route("HEAD", "/_ping", () => text("")),
      route("GET", "/version", () =>
        json({ Version: "28.0.0", ApiVersion: "1.51", MinAPIVersion: "1.24", Os: "linux", Arch: "amd64" }),
      ),
      route("GET", "/info", () =>
        json({ ID: "x", Name: "host-a", ServerVersion: "28.0.0", Swarm: swarmInfo(swarm.node) }),
      ),
      route("GET", "/networks", () =>
        json(
          [...swarm.networks.values()].map((n) => ({
            Name: n.spec?.annotations?.name,
            Id: n.id,
            Scope: "swarm",
            Driver: n.driverState?.name,
            Labels: n.spec?.annotations?.labels ?? {},
          })),
        ),
      ),
      route("GET", "/networks/:id", ({ params }) => {
        const found = [...swarm.networks.values()].find(
          (n) => n.spec?.annotations?.name === params.id || n.id === params.id,
        );
        return found
          ? json({ Name: found.spec?.annotations?.name, Id: found.id, Scope: "swarm", Driver: "overlay" })
          : json({ message: `network ${params.id} not found` }, 404);
      }),
      route("POST", "/networks/create", async (request) => {
        const body = (await request.json((value) => value)) as { Name: string; Labels?: Record<string, string> };
        const network = await swarm.control.createNetwork({
          $typeName: "docker.swarmkit.v1.NetworkSpec",
          annotations: {
            $typeName: "docker.swarmkit.v1.Annotations",
            name: body.Name,
            labels: body.Labels ?? {},
            indices: [],
          },
          ipv6Enabled: false,
          internal: false,
          attachable: false,
          ingress: false,
          configFrom: { case: undefined },
        });
        return json({ Id: network.id, Warning: "" }, 201);
      }),
      route("DELETE", "/networks/:id", async ({ params }) => {
        await swarm.control.removeNetwork(params.id);
        return { kind: "empty", status: 204 };
      }),
    ])
    .add(
      allSwarmRoutes({
        node: () => swarm.node,
        interfaces: () => oneInterface,
        localNetwork: (ref) =>
          ref === "mybridge" ? { name: "mybridge", driver: "bridge", scope: "local" } : undefined,
      }),
    );
  const server = createHttpServer({
    router,
    log: nullLogger,
    headers: () => ({ Swarm: swarmHeader(swarm.node), Ostype: "linux" }),
  });
  await listenUnix(server as ReturnType<typeof createServer>, path);
  return {
    swarm,
    path,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      if (dir) rmSync(dir, { recursive: true, force: true });
    },
  };
}

if (process.argv[1] === import.meta.filename) {
  const fake = await startFake(process.argv[2] ?? "/tmp/skein-swarm-fake.sock");
  console.log(fake.path);
}

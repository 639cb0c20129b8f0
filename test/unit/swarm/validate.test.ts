/** What a service may not be is refused in SwarmKit's words, before anything is written. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ContainerSpecSchema } from "#proto/docker/swarmkit/specs_pb.js";
import { PortConfig_PublishMode } from "#proto/docker/swarmkit/types_pb.js";
import { checkService } from "../../../src/swarm/manager/control/validate.ts";
import { Tables } from "../../../src/swarm/store/memory.ts";
import { service } from "./support/world.ts";

const check = (container: MessageInitShape<typeof ContainerSpecSchema>) =>
  checkService(
    service(1, { task: { runtime: { case: "container", value: { image: "busybox", ...container } } } }),
    new Tables(),
  );

test("image references", () => {
  const good = [
    "busybox",
    "busybox:1.36",
    "library/busybox",
    "registry:5000/a/b-c.d:v1",
    "[fd00::1]:5000/a",
    "Host.example/a__b",
    `a@sha256:${"0".repeat(64)}`,
    `a:tag@sha256:${"f".repeat(64)}`,
  ];
  for (const image of good) assert.doesNotThrow(() => check({ image }), image);
  for (const image of ["::bad", "Busybox", "a b", "a:", "a/", "/a", "a@sha256:12", "a..b", "f".repeat(64)]) {
    assert.throws(() => check({ image }), /ContainerSpec: ".*" is not a valid repository\/tag/, image);
  }
  assert.throws(() => check({ image: "" }), /image reference must be provided/);
});

test("health checks", () => {
  const ms = (count: number) => ({ seconds: 0n, nanos: count * 1e6 });
  check({ healthcheck: { interval: ms(1), timeout: ms(0), startPeriod: ms(5), retries: 3 } });
  const refused = (healthcheck: MessageInitShape<typeof ContainerSpecSchema>["healthcheck"], why: RegExp) =>
    assert.throws(() => check(healthcheck ? { healthcheck } : {}), why);
  refused({ interval: ms(0.5) }, /Interval in HealthConfig cannot be less than 1ms/);
  refused({ timeout: ms(-1) }, /Timeout in HealthConfig cannot be less than 1ms/);
  refused({ startPeriod: ms(0.1) }, /StartPeriod in HealthConfig cannot be less than 1ms/);
  refused({ retries: -1 }, /Retries in HealthConfig cannot be negative/);
});

test("labels of published ports", () => {
  const publish = (labels: Record<string, string>, publishMode = PortConfig_PublishMode.INGRESS) =>
    checkService(
      service(1, {
        annotations: { name: "web", labels },
        endpoint: { ports: [{ targetPort: 80, publishedPort: 8080, publishMode }] },
        task: { runtime: { case: "container", value: { image: "busybox" } } },
      }),
      new Tables(),
    );
  assert.doesNotThrow(() =>
    publish({ "skein.publish.address": "127.0.0.1,10.0.0.0/8", "skein.publish.8080.policy": "local" }),
  );
  assert.throws(() => publish({ "skein.publish.address": "localhost" }), /'localhost' is no IP address or subnet/);
  assert.throws(() => publish({ "skein.publish.80.policy": "local" }), /does not publish port 80/);
  assert.throws(() => publish({ "skein.publish.proxy": "v2" }, PortConfig_PublishMode.HOST), /in mode host/);
});

/** What a service may not be is refused in SwarmKit's words, before anything is written. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { EndpointSchema, ServiceSchema } from "#proto/docker/swarmkit/objects_pb.js";
import {
  type ContainerSpecSchema,
  EndpointSpec_ResolutionMode,
  type ServiceSpec,
} from "#proto/docker/swarmkit/specs_pb.js";
import {
  AnnotationsSchema,
  type MountSchema,
  PortConfig_Protocol,
  PortConfig_PublishMode,
} from "#proto/docker/swarmkit/types_pb.js";
import { messageOf } from "../../../src/base/errors.ts";
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

test("published ports: within a service, and beside those of others", () => {
  const { INGRESS, HOST } = PortConfig_PublishMode;
  const { TCP, UDP } = PortConfig_Protocol;
  type Port = readonly [publishedPort: number, publishMode?: PortConfig_PublishMode, protocol?: PortConfig_Protocol];
  const published = (ports: readonly Port[], mode = EndpointSpec_ResolutionMode.VIP) =>
    service(1, {
      annotations: { name: "mine" },
      endpoint: {
        mode,
        ports: ports.map(([publishedPort, publishMode = INGRESS, protocol = TCP]) => {
          return { targetPort: 80, publishedPort, publishMode, protocol };
        }),
      },
      task: { runtime: { case: "container", value: { image: "busybox" } } },
    });
  const others = new Tables();
  const other = (id: string, spec: ServiceSpec) => others.put("service", create(ServiceSchema, { id, spec }));
  other("id1", { ...published([[8080], [8081, HOST]]), annotations: create(AnnotationsSchema, { name: "web" }) });
  const dynamic = create(EndpointSchema, { ports: [{ targetPort: 80, publishedPort: 30000, publishMode: INGRESS }] });
  others.put("service", create(ServiceSchema, { id: "id2", spec: published([[0]]), endpoint: dynamic }));
  const dnsrr = EndpointSpec_ResolutionMode.DNSRR;
  const duplicate = /EndpointSpec: duplicate published ports provided/;
  const table: [string, ServiceSpec, RegExp | undefined][] = [
    ["both protocols on one port", published([[53], [53, INGRESS, UDP]]), undefined],
    ["two ports to be chosen", published([[0], [0]]), undefined],
    ["one port twice", published([[90], [90]]), duplicate],
    ["one port in both modes", published([[90], [90, HOST]]), duplicate],
    [
      "a port of the mesh",
      published([[8080]]),
      /port '8080' is already in use by service 'web' \(id1\) as an ingress port/,
    ],
    ["the same in mode host", published([[8080, HOST]]), /port '8080' .* 'web' \(id1\) as an ingress port/],
    ["a port of a host in mode ingress", published([[8081]]), /port '8081' .* \(id1\) as a host-published port/],
    ["a port of a host in mode host: the scheduler's business", published([[8081, HOST]]), undefined],
    ["its other protocol", published([[8080, INGRESS, UDP]]), undefined],
    ["one that was chosen for another", published([[30000]]), /port '30000' .* \(id2\) as an ingress port/],
    ["beyond the range", published([[65536]]), /invalid port/],
    [
      "ingress without a VIP",
      published([[90]], dnsrr),
      /port published with ingress mode can't be used with dnsrr mode/,
    ],
    ["mode host without a VIP", published([[90, HOST]], dnsrr), undefined],
  ];
  for (const [what, spec, words] of table) {
    if (words) assert.throws(() => checkService(spec, others), words, what);
    else assert.doesNotThrow(() => checkService(spec, others), what);
  }
  assert.doesNotThrow(() => checkService(published([[8080]]), others, "id1"), "what a service has already");
});

test("templates that no node could expand, in the words of Go and SwarmKit", () => {
  const refusal = (container: MessageInitShape<typeof ContainerSpecSchema>): string => {
    try {
      const value = { image: "x", ...container };
      const annotations = { name: "s", labels: { tier: "front" } };
      checkService(service(1, { annotations, task: { runtime: { case: "container", value } } }), new Tables());
      return "";
    } catch (error) {
      return messageOf(error).replace("rpc error: code = InvalidArgument desc = ", "");
    }
  };
  const at = (place: string, what: string) => `template: expansion:1:${place}: executing "expansion" at <${what}>:`;
  const node = "struct { ID string; Hostname string; Platform template.Platform }";
  const hostname = "expanding hostname failed: template: expansion:1";
  for (const [text, words] of [
    ["{{.Node.Hostname}}-{{.Task.Slot}}-{{.Service.Labels.tier}}", ""],
    ['{{index .Service.Labels "none"}}', ""],
    [
      "{{.Service.Labels.x}}",
      `expanding hostname failed: ${at("10", ".Service.Labels.x")} map has no entry for key "x"`,
    ],
    [
      "{{.Nonsense}}",
      `expanding hostname failed: ${at("2", ".Nonsense")} can't evaluate field Nonsense in type *template.Context`,
    ],
    [
      "{{.Node.Nonsense}}",
      `expanding hostname failed: ${at("7", ".Node.Nonsense")} can't evaluate field Nonsense in type ${node}`,
    ],
    ["{{nofunc 1}}", `${hostname}: function "nofunc" not defined`],
    ["{{", `${hostname}: unclosed action`],
  ] as const) {
    assert.equal(refusal({ hostname: text }), words, text);
  }
  const nope = `${at("2", ".Nope")} can't evaluate field Nope in type *template.Context`;
  assert.equal(refusal({ env: ["A={{.Nope}}"] }), `expanding env failed: expanding env "A={{.Nope}}": ${nope}`);
  const mount = (options: MessageInitShape<typeof MountSchema>) => ({
    mounts: [{ source: "v", target: "/x", ...options }],
  });
  assert.equal(
    refusal(mount({ source: "{{.Nope}}" })),
    `expanding mounts failed: expanding mount source "{{.Nope}}": ${nope}`,
  );
  const labels = mount({ volumeOptions: { labels: { a: "{{.Nope}}" } } });
  const entry = `expanding map entry "a"="{{.Nope}}": ${nope}`;
  assert.equal(refusal(labels), `expanding mounts failed: expanding volume labels: ${entry}`);
  const driver = mount({ volumeOptions: { driverConfig: { options: { a: "{{.Nope}}" } } } });
  assert.equal(refusal(driver), `expanding mounts failed: expanding volume driver config: ${entry}`);
});

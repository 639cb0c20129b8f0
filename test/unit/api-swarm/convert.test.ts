import assert from "node:assert/strict";
import { test } from "node:test";
import { equals, fromBinary, toBinary } from "@bufbuild/protobuf";
import { ClusterSpecSchema, ServiceSpecSchema } from "#proto/docker/swarmkit/specs_pb.js";
import { defaultClusterSpec, mergeSwarmSpec, swarmSpec } from "../../../src/api/swarm/convert/cluster.ts";
import { nodeSpec, nodeSpecToProto } from "../../../src/api/swarm/convert/node.ts";
import { durationFromJson, timeToJson } from "../../../src/api/swarm/convert/render.ts";
import { configSpec, secretSpec, secretSpecToProto } from "../../../src/api/swarm/convert/secret.ts";
import { serviceSpec, serviceSpecToJson, serviceSpecToProto } from "../../../src/api/swarm/convert/service.ts";
import { SkeinError } from "../../../src/base/errors.ts";
import { fullService, randomService } from "./specs.ts";

const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));
const roundTrip = (json: unknown) => plain(serviceSpecToJson(serviceSpecToProto(serviceSpec(json, ""))));

const refuses = (json: unknown, status: number, pattern: RegExp) =>
  assert.throws(
    () => serviceSpecToProto(serviceSpec(json, "")),
    (error) => error instanceof SkeinError && error.status === status && pattern.test(error.message),
  );
const withContainer = (container: object) => ({
  Name: "a",
  TaskTemplate: { ContainerSpec: { Image: "i", ...container } },
});

test("a service with every field comes back as it was sent", () => {
  assert.deepEqual(roundTrip(fullService), fullService);
});

test("json to message to bytes to json is the identity, for many specs", () => {
  let seed = 1;
  const random = () => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return seed / 0x7fffffff;
  };
  for (let n = 0; n < 300; n++) {
    const json = randomService(random);
    const message = serviceSpecToProto(serviceSpec(json, ""));
    const again = fromBinary(ServiceSpecSchema, toBinary(ServiceSpecSchema, message));
    assert.deepEqual(plain(serviceSpecToJson(again)), json, `spec ${n}`);
    assert.ok(equals(ServiceSpecSchema, serviceSpecToProto(serviceSpec(serviceSpecToJson(again), "")), message));
  }
});

test("what Docker leaves out is filled with Docker's defaults", () => {
  const spec = serviceSpecToProto(serviceSpec(withContainer({}), ""));
  assert.deepEqual(spec.mode.case === "replicated" && spec.mode.value.replicas, 1n);
  const json = plain(serviceSpecToJson(spec)) as { TaskTemplate: { ContainerSpec: object }; Labels: object };
  assert.deepEqual(json.Labels, {});
  assert.deepEqual(json.TaskTemplate.ContainerSpec, { Image: "i", Isolation: "default" });
});

test("zero replicas is not the default of one", () => {
  const json = { ...withContainer({}), Mode: { Replicated: { Replicas: 0 } } };
  assert.deepEqual((roundTrip(json) as { Mode: unknown }).Mode, { Replicated: { Replicas: 0 } });
});

test("null is absent, and keys match without regard to case", () => {
  const json = {
    name: "x",
    labels: null,
    tasktemplate: { containerspec: { IMAGE: "y", env: null } },
    mode: { global: {} },
  };
  const spec = serviceSpecToProto(serviceSpec(json, ""));
  assert.equal(spec.annotations?.name, "x");
  assert.equal(spec.mode.case, "global");
});

test("what is not supported is refused by name, never dropped", () => {
  refuses(withContainer({ Privileges: { CredentialSpec: { File: "f" } } }), 501, /credential specs/);
  refuses(withContainer({ Mounts: [{ Type: "cluster", Target: "/a" }] }), 501, /CSI/);
  refuses(withContainer({ Mounts: [{ Type: "bind", Target: "/a", ClusterOptions: { a: 1 } }] }), 501, /CSI/);
  refuses(withContainer({ NewField: "x" }), 501, /the field TaskTemplate.ContainerSpec.NewField/);
  refuses({ TaskTemplate: { PluginSpec: { Name: "p" }, Runtime: "plugin" } }, 501, /plugin/);
  refuses(withContainer({ Isolation: "hyperv" }), 501, /isolation/);
  // Empty values of unknown fields ask for nothing.
  serviceSpecToProto(serviceSpec(withContainer({ NewField: [], Other: null, Third: { A: "" } }), ""));
});

test("wrong values are refused with Docker's words", () => {
  refuses({ Name: "a", TaskTemplate: {} }, 400, /mismatched Runtime and \*Spec fields/);
  refuses({ ...withContainer({}), Mode: { Global: {}, Replicated: {} } }, 400, /must specify only one service mode/);
  refuses({ ...withContainer({}), EndpointSpec: { Mode: "anycast" } }, 400, /invalid resolution mode: "anycast"/);
  refuses(
    { ...withContainer({}), UpdateConfig: { FailureAction: "cry" } },
    400,
    /unrecognized update failure action cry/,
  );
  refuses({ ...withContainer({}), UpdateConfig: { Order: "sideways" } }, 400, /unrecognized update order sideways/);
  refuses(withContainer({ Mounts: [{ Type: "floppy" }] }), 400, /invalid MountType: "floppy"/);
  refuses(withContainer({ Configs: [{ ConfigID: "c" }] }), 400, /either File or Runtime should be set/);
  refuses({ ...withContainer({}), Mode: { Replicated: { Replicas: -1 } } }, 400, /uint64/);
  refuses({ ...withContainer({}), EndpointSpec: { Ports: [{ TargetPort: 70000 }] } }, 400, /invalid port 70000/);
  refuses(withContainer({ Image: 5 }), 400, /cannot unmarshal number/);
});

test("node specs", () => {
  const spec = nodeSpecToProto(nodeSpec({ Role: "manager", Availability: "drain", Labels: { a: "b" } }, ""));
  assert.deepEqual([spec.desiredRole, spec.availability, spec.annotations?.labels.a], [1, 2, "b"]);
  assert.throws(() => nodeSpecToProto(nodeSpec({ Role: "boss", Availability: "drain" }, "")), /invalid Role: "boss"/);
  assert.throws(() => nodeSpecToProto(nodeSpec({ Role: "worker" }, "")), /invalid Availability: ""/);
});

test("a swarm spec lies over what is there: zero keeps it", () => {
  const base = defaultClusterSpec();
  const merged = mergeSwarmSpec(swarmSpec({ CAConfig: { NodeCertExpiry: 3600e9 } }, ""), base);
  assert.equal(merged.caConfig?.nodeCertExpiry?.seconds, 3600n);
  assert.equal(merged.dispatcher?.heartbeatPeriod?.seconds, 1n);
  assert.equal(merged.orchestration?.taskHistoryRetentionLimit, 5n);
  const zero = mergeSwarmSpec(swarmSpec({ Orchestration: { TaskHistoryRetentionLimit: 0 } }, ""), base);
  assert.equal(zero.orchestration?.taskHistoryRetentionLimit, 0n, "a pointer to zero is a wish");
  assert.ok(equals(ClusterSpecSchema, base, defaultClusterSpec()), "the base is not touched");
  assert.throws(() => mergeSwarmSpec(swarmSpec({ Name: "other" }, ""), base), /swarm spec must be named "default"/);
  const externalCas = (given: unknown) => mergeSwarmSpec(swarmSpec({ CAConfig: { ExternalCAs: given } }, ""), base);
  const [external] =
    externalCas([null, { Protocol: "cfssl", URL: "u", Options: { a: "b" }, CACert: "c" }]).caConfig?.externalCas ?? [];
  assert.deepEqual(
    [external?.url, { ...external?.options }, Buffer.from(external?.caCert ?? []).toString()],
    ["u", { a: "b" }, "c"],
  );
  assert.throws(() => externalCas([{ URL: "u" }]), /^SkeinError: invalid protocol: ""$/);
  assert.throws(() => externalCas([{ Protocol: "foo", URL: "u" }]), /invalid protocol: "foo"$/);
  assert.throws(() => externalCas([{ Protocol: "cfssl", Url: "u", More: 1 }]), /ExternalCAs\.More/);
});

test("secrets carry bytes", () => {
  const bytes = Buffer.from([0, 255, 10]);
  const spec = secretSpecToProto(secretSpec({ Name: "s", Data: bytes.toString("base64") }, ""));
  assert.deepEqual(Buffer.from(spec.data), bytes);
  assert.throws(() => secretSpec({ Name: "s", Driver: { Name: "vault" } }, ""), /secret drivers/);
  assert.throws(() => configSpec({ Name: "s", Data: 5 }, ""), /cannot unmarshal/);
});

test("times and durations as Go writes them", () => {
  assert.equal(timeToJson(undefined), "0001-01-01T00:00:00Z");
  assert.equal(
    timeToJson({ $typeName: "google.protobuf.Timestamp", seconds: 1n, nanos: 120_000_000 }),
    "1970-01-01T00:00:01.12Z",
  );
  assert.deepEqual(durationFromJson(1_500_000_000), { seconds: 1n, nanos: 500_000_000 });
  assert.deepEqual(durationFromJson(-1), { seconds: -0n, nanos: -1 });
});

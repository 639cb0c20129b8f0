import assert from "node:assert/strict";
import { test } from "node:test";
import { staleFlows, staleMeshFlows } from "../../../../src/network/balancer/flows.ts";
import type { HostPort, HostState } from "../../../../src/network/balancer/types.ts";
import { examples } from "./examples.ts";

const port = (more: Partial<HostPort>): HostPort => ({
  protocol: "udp",
  hostIp: "",
  hostPort: 53,
  address: "172.17.0.2",
  containerPort: 53,
  ...more,
});
const state = (...ports: HostPort[]): HostState => ({ bridges: [], ports });

test("a new datagram port forgets who asked too early, a new stream port nobody", () => {
  assert.deepEqual(staleFlows(state(), state(port({}), port({ protocol: "tcp" }))), [
    { family: 4, protocol: 17, origDstPort: 53 },
  ]);
  assert.deepEqual(staleFlows(state(port({})), state(port({}))), []);
});

test("a container that went takes its connections along; one that stays only those of the port", () => {
  const other = port({ hostPort: 80, protocol: "tcp" });
  assert.deepEqual(staleFlows(state(port({}), other), state()), [{ family: 4, replySrc: "172.17.0.2" }]);
  assert.deepEqual(staleFlows(state(port({}), other), state(port({}))), [
    { family: 4, protocol: 6, origDstPort: 80, replySrc: "172.17.0.2" },
  ]);
  assert.deepEqual(staleFlows(state(port({ address: "fd17::2" })), state()), [{ family: 6, replySrc: "fd17::2" }]);
});

test("mesh ports that come or go forget their datagram clients", () => {
  const mesh = examples.meshHost;
  assert.deepEqual(staleMeshFlows(undefined, mesh), [{ family: 4, protocol: 17, origDstPort: 53 }]);
  assert.deepEqual(staleMeshFlows(mesh, mesh), []);
  assert.deepEqual(staleMeshFlows(mesh, undefined), [{ family: 4, protocol: 17, origDstPort: 53 }]);
});

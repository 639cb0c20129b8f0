import assert from "node:assert/strict";
import { test } from "node:test";
import { stateOfInit, stateOfJoin } from "../../../src/swarm/node/requests.ts";
import type { InitRequest, JoinRequest } from "../../../src/swarm/types.ts";

const init = (listenAddr: string, advertiseAddr: string) =>
  stateOfInit({ listenAddr, advertiseAddr, dataPathAddr: "" } as InitRequest);

test("any address is of both families where others are told an IPv6 one", async () => {
  assert.equal(init("0.0.0.0:2377", "192.0.2.1:2377").listenAddr, "0.0.0.0:2377");
  assert.equal(init("0.0.0.0:2377", "[fd00::1]:2377").listenAddr, "[::]:2377");
  assert.equal(init("", "fd00::1").listenAddr, "[::]:2377");
  assert.equal(init("", "fd00::1").advertiseAddr, "[fd00::1]:2377");
  assert.equal(init("192.0.2.1:999", "[fd00::1]:2377").listenAddr, "192.0.2.1:999", "what was asked for");
  const joined = await stateOfJoin(
    {
      listenAddr: "0.0.0.0:2377",
      advertiseAddr: "",
      dataPathAddr: "",
      remoteAddrs: ["[fd00::1]:2377"],
    } as JoinRequest & {
      remoteAddrs: string[];
    },
    async () => "fd00::2",
  );
  assert.deepEqual([joined.listenAddr, joined.advertiseAddr], ["[::]:2377", "[fd00::2]:2377"]);
});

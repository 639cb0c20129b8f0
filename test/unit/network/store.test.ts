import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { createLogger } from "../../../src/base/log.ts";
import { Store } from "../../../src/network/store.ts";
import { endpoint, ipam, network, sandbox } from "./fixtures.ts";

test("what is kept comes back; what is broken is passed over, loudly, and stays where it is", () => {
  const dir = mkdtempSync(join(tmpdir(), "nw-store-"));
  const lines: string[] = [];
  const store = new Store(
    dir,
    createLogger((line) => lines.push(line)),
  );
  try {
    const net = network({
      id: "n1",
      name: "mine",
      driver: "bridge",
      ipam: ipam({ subnet: "172.20.0.0/16", gateway: "172.20.0.1" }),
    });
    const box = sandbox("c1", [
      endpoint({
        networkId: "n1",
        service: {
          id: "s",
          name: "web",
          vip: "10.0.0.2",
          aliases: ["w"],
          ingressPorts: [{ name: "", protocol: "udp", targetPort: 53, publishedPort: 9053 }],
        },
      }),
    ]);
    const place = {
      bindAddress: "192.0.2.1",
      advertiseAddress: "192.0.2.1",
      dataPathAddress: "192.0.2.1",
      dataPathPort: 4789,
    };
    const record = { table: "endpoint_table", key: "e", value: "AAEC", owner: "node1", ownerAddress: "192.0.2.2" };
    store.saveNetwork(net);
    store.saveSandbox(box);
    store.saveCluster(place);
    store.saveRecords("n1", [record]);
    assert.deepEqual(store.networks(), [net]);
    assert.deepEqual(store.sandboxes(), [box]);
    assert.deepEqual(store.cluster(), place);
    assert.deepEqual(store.records("n1"), [record]);
    assert.deepEqual(store.records("unknown"), []);
    assert.deepEqual(lines, []);

    writeFileSync(join(dir, "networks", "broken.json"), '{"spec": {');
    writeFileSync(join(dir, "sandboxes", "c2.json"), '{"id": 7}');
    writeFileSync(join(dir, "sandboxes", "c3.json.tmp"), "half");
    assert.deepEqual(store.networks(), [net]);
    assert.deepEqual(store.sandboxes(), [box]);
    assert.equal(lines.length, 2);
    assert.ok(readdirSync(join(dir, "networks")).includes("broken.json"));

    store.deleteNetwork("n1");
    store.deleteSandbox("c1");
    store.saveCluster(undefined);
    store.deleteRecords("n1");
    assert.deepEqual(
      [store.networks(), store.sandboxes(), store.cluster(), store.records("n1")],
      [[], [], undefined, []],
    );
    store.saveSandbox({ ...box, id: "../../escape" });
    assert.ok(readdirSync(join(dir, "sandboxes")).includes(".._.._escape.json"), "an id is no path");
  } finally {
    rmSync(dir, { recursive: true });
  }
});

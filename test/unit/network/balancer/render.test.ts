/**
 * The text of every table, as agreed: golden/*.nft. After a wanted change: UPDATE_GOLDEN=1, then read the difference.
 */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { meshHostSysctls, meshHostTable } from "../../../../src/network/balancer/mesh-host.ts";
import { meshSandboxTable } from "../../../../src/network/balancer/mesh-sandbox.ts";
import { markOf, planMeshTask } from "../../../../src/network/balancer/mesh-task.ts";
import { portsTable } from "../../../../src/network/balancer/ports.ts";
import { userChainScript } from "../../../../src/network/balancer/user.ts";
import { renderVips, updateVip } from "../../../../src/network/balancer/vip.ts";
import { replaceScript } from "../../../../src/network/plan/table.ts";
import { nftTable } from "../../../../src/network/resolver/table.ts";
import { examples } from "./examples.ts";

function golden(name: string, text: string): void {
  const path = new URL(`golden/${name}.nft`, import.meta.url);
  if (process.env.UPDATE_GOLDEN) writeFileSync(path, text);
  assert.equal(text, readFileSync(path, "utf8"));
}

test("tables are the agreed text", () => {
  golden("vips", renderVips(examples.vips));
  golden("vips-empty", renderVips([]));
  golden("vips6", renderVips(examples.vips6, 6));
  golden("mesh-host", replaceScript(meshHostTable(examples.meshHost)));
  golden("mesh-host-leg", replaceScript(meshHostTable(examples.meshHostWithLeg)));
  golden("mesh-sandbox", replaceScript(meshSandboxTable(examples.meshSandbox)));
  golden("mesh-task", planMeshTask(examples.meshTask).tables.map(replaceScript).join(""));
  golden(
    "mesh-task-plain",
    planMeshTask({ ...examples.meshTask, egressHook: false })
      .tables.map(replaceScript)
      .join(""),
  );
  golden("ports", replaceScript(portsTable(examples.host)));
  golden(
    "user",
    userChainScript([
      { protocol: "tcp", port: 8080 },
      { protocol: "udp", port: 53 },
    ]),
  );
  golden("dns", nftTable({ udp: 41000, tcp: 41001 }));
});

test("a service's change is the smallest transaction", () => {
  const [web] = examples.vips;
  assert.ok(web);
  const steps = [
    updateVip(undefined, web),
    updateVip(web, { ...web, backends: ["10.0.1.4"] }),
    updateVip(web, { ...web, vip: "10.0.1.99" }),
    updateVip(web, { ...web, id: "other" }),
    updateVip(web, { ...web, backends: [] }),
    updateVip(web, undefined),
  ];
  const [six] = examples.vips6;
  assert.ok(six);
  steps.push(updateVip(undefined, six), updateVip(six, { ...six, backends: [] }), updateVip(six, undefined));
  golden("vip-updates", steps.join("---\n"));
  assert.equal(updateVip(undefined, undefined), "");
});

test("a task's plan without the egress hook changes nothing but tables", () => {
  const { tables, ...rest } = planMeshTask({ ...examples.meshTask, egressHook: false });
  assert.equal(tables.length, 1);
  assert.deepEqual(rest, {});
});

test("marks are told apart by the whole address and never leave their range", () => {
  const addresses = ["10.0.0.2", "10.0.1.2", "10.255.255.254", "172.16.0.2", "192.168.3.4", "255.255.255.255"];
  const marks = addresses.map((address) => markOf({ address }));
  assert.equal(new Set(marks).size, addresses.length);
  for (const mark of marks) assert.equal((mark & 0xf0000000) >>> 0, 0x50000000);
});

test("a port cannot lead from one family to the other", () => {
  const [port] = examples.host.ports;
  assert.ok(port);
  assert.throws(() => portsTable({ ...examples.host, ports: [{ ...port, hostIp: "::", address: "172.17.0.2" }] }));
});

test("device names with dots become proper sysctls", () => {
  assert.ok("net.ipv4.conf.br/7.route_localnet" in meshHostSysctls({ bridge: "br.7" }));
});

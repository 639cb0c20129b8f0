/** Neither engine can be a manager beside the other's: both ways it is refused with the reason, and nothing breaks. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { it } from "node:test";
import { eventually } from "../../support/lab.ts";
import type { Host, MixedLab } from "./mixed.ts";

const reason = { skeind: /managed by Skein, whose managers keep their state in etcd/, dockerd: /managed by Docker/ };

/** A host of the other kind, in no swarm, has a manager's token: it hears why that is in vain, and leaves no trace. */
export async function isNoManager(lab: MixedLab, host: Host): Promise<void> {
  const token = await lab.manage("swarm", "join-token", "-q", "manager");
  const address = lab.host(host).address;
  const joined = await lab.try(
    ...([host, "swarm", "join", "--token", token, "--advertise-addr", address] as const),
    lab.host("manager").address,
  );
  assert.notEqual(joined.code, 0, joined.stdout);
  assert.match(joined.stderr, reason[lab.managedBy]);
  await lab.try(host, "swarm", "leave", "--force");
  assert.equal(await lab.ok(host, "info", "--format", "{{.Swarm.LocalNodeState}}"), "inactive");
  assert.deepEqual(await lab.nodes("role=manager"), ["manager Ready Active"]);
}

export function roleTests(lab: () => MixedLab): void {
  it("a node of the other kind is not promoted", async () => {
    const { managedBy } = lab();
    const host: Host = managedBy === "skeind" ? "docker" : "skein";
    const status = () =>
      lab().manage("node", "ls", "--filter", `name=${host}`, "--format", "[{{.ManagerStatus}}] {{.Status}}");
    const promoted = await lab().try("manager", "node", "promote", host);
    if (managedBy === "skeind") {
      assert.notEqual(promoted.code, 0);
      assert.match(promoted.stderr, reason.skeind);
    } else {
      // A Docker manager asks nobody: the node says so in its log, and works on until it is demoted.
      assert.equal(promoted.code, 0, promoted.stderr);
      const { logFile } = lab().host(host);
      await eventually("it says that it cannot", async () => reason.dockerd.test(readFileSync(logFile, "utf8")));
      await lab().ok(host, "run", "--rm", "--network", "side", "skein/box", "ping", "-c1", "-W2", "box-manager");
      await lab().manage("node", "demote", host);
    }
    assert.equal(await status(), "[] Ready");
  });
}

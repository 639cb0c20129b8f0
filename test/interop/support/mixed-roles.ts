/** Neither engine can be a manager beside the other's: both ways it is refused with the reason, and nothing breaks. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { it } from "node:test";
import { eventually, type Host, type MixedLab } from "./mixed.ts";

const reason = { skeind: /managed by Skein, whose managers keep their state in etcd/, dockerd: /managed by Docker/ };

/** A host of the other kind, in no swarm, has a manager's token: it hears why that is in vain, and leaves no trace. */
export async function isNoManager(lab: MixedLab, host: Host): Promise<void> {
  const token = await lab.manage("swarm", "join-token", "-q", "manager");
  const join = (with_: string) => {
    const args = ["--token", with_, "--advertise-addr", lab.host(host).address, lab.host("manager").address];
    return lab.try(host, "swarm", "join", ...args);
  };
  assert.match(
    (await join(`${token.slice(0, -4)}0000`)).stderr,
    /A valid join token is necessary to join this cluster/,
  );
  const joined = await join(token);
  assert.notEqual(joined.code, 0, joined.stdout);
  assert.match(joined.stderr, reason[lab.managedBy]);
  await lab.try(host, "swarm", "leave", "--force");
  assert.equal(await lab.ok(host, "info", "--format", "{{.Swarm.LocalNodeState}}"), "inactive");
  // Docker's managers keep an entry without a name for whom they gave a manager's certificate.
  const managers = ["[manager] Ready Active"];
  assert.deepEqual(
    await lab.nodes("role=manager"),
    lab.managedBy === "dockerd" ? ["[] Unknown Active", ...managers] : managers,
  );
  for (const id of (await lab.manage("node", "ls", "-q", "--filter", "role=manager")).split("\n")) {
    if ((await lab.manage("node", "inspect", "--format", "{{.Description.Hostname}}", id)) === "") {
      await lab.manage("node", "rm", "--force", id);
    }
  }
  assert.deepEqual(await lab.nodes("role=manager"), managers);
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
      // It is in no Raft, so Docker does not demote it either.
      assert.match(
        (await lab().try("manager", "node", "demote", host)).stderr,
        /can't find manager in raft memberlist/,
      );
    }
    assert.equal(await status(), "[] Ready");
  });
}

/** The key that etcd reads: in memory, and gone with its manager. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { TlsFiles } from "../../../src/swarm/store/etcd/tls-files.ts";

test("the key of a manager whose state is gone is removed by the next one; of one that only stopped it stays", (t) => {
  const dir = mkdtempSync(join(tmpdir(), "skein-tls-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const memory = join(dir, "run");
  const made = (name: string) => {
    const owner = join(dir, name, "etcd");
    mkdirSync(owner, { recursive: true });
    const files = new TlsFiles(name, owner, memory);
    files.write({ certPem: "cert", keyPem: `key of ${name}`, rootPem: "root" });
    return files;
  };
  const killed = made("killed");
  const stopped = made("stopped");
  assert.equal(readFileSync(killed.paths.key, "utf8"), "key of killed");
  assert.equal(statSync(killed.paths.key).mode & 0o777, 0o600);
  rmSync(join(dir, "killed"), { recursive: true });
  const next = made("next");
  assert.deepEqual(
    [killed, stopped, next].map(({ paths }) => existsSync(paths.key)),
    [false, true, true],
  );
  next.remove();
  assert.ok(!existsSync(join(memory, "next")));
});

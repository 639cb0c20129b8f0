import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";
import { readSettings } from "../../../src/engine/daemon/settings.ts";
import { parseReference } from "../../../src/runtime/images/reference.ts";
import { RegistryClient } from "../../../src/runtime/registry/client.ts";
import { isInsecure, noRules, parseRules } from "../../../src/runtime/registry/rules.ts";

test("which registries may be without TLS: this machine's own, those that are named, those in a CIDR", () => {
  const rules = parseRules(["10.77.0.0/24", "reg.example:5000", "plain.example", "fd00::/64"], []);
  for (const host of ["localhost", "localhost:5000", "127.0.0.1:80", "[::1]:5000"])
    assert.ok(isInsecure(host, noRules), host);
  for (const host of [
    "10.77.0.11:5000",
    "10.77.0.1",
    "reg.example:5000",
    "REG.example:5000",
    "plain.example",
    "[fd00::5]:5000",
  ]) {
    assert.ok(isInsecure(host, rules), host);
    assert.ok(!isInsecure(host, noRules), host);
  }
  for (const host of [
    "10.78.0.11:5000",
    "reg.example",
    "reg.example:5001",
    "plain.example:5000",
    "registry-1.docker.io",
    "evil.reg.example:5000",
  ]) {
    assert.ok(!isInsecure(host, rules), host);
  }
});

test("what means nothing is refused, in Docker's words", () => {
  for (const bad of ["http://reg:5000", "reg:5000/path", "", "a b"]) {
    assert.throws(() => parseRules([bad], []), /insecure registry .* is not valid/, bad);
  }
  assert.throws(() => parseRules([], ["ftp://m"]), /invalid mirror: unsupported scheme "ftp" in "ftp:\/\/m"/);
  assert.throws(() => parseRules([], ["mirror"]), /not a valid URI/);
  assert.throws(() => parseRules([], ["https://m/?a"]), /query or fragment/);
  assert.throws(() => parseRules([], ["https://u:p@m/"]), /username\/password not allowed/);
  assert.deepEqual(parseRules([], ["https://m", "http://10.0.0.1:5000/hub/"]).mirrors, [
    "https://m/",
    "http://10.0.0.1:5000/hub/",
  ]);
});

test("the two settings, as flags", () => {
  const given = readSettings(["--config-file", "/dev/null", "--help"]);
  assert.ok("print" in given);
  const read = readSettings([
    "--insecure-registry",
    "10.0.0.0/8",
    "--insecure-registry",
    "r:5000",
    "--registry-mirror",
    "http://m",
  ]);
  assert.ok("config" in read);
  assert.deepEqual(read.config.registries, { insecure: ["10.0.0.0/8", "r:5000"], mirrors: ["http://m/"] });
  assert.throws(() => readSettings(["--registry-mirror", "m"]), /invalid mirror/);
});

test("a mirror is asked under its own address, path included, and never with credentials", async () => {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.url} ${request.headers.authorization ?? "-"}`);
    response.setHeader("content-type", "application/vnd.oci.image.manifest.v1+json");
    response.end('{"schemaVersion":2}');
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address ? address.port : 0;
  try {
    const client = new RegistryClient(parseReference("alpine"), { mirror: `http://127.0.0.1:${port}/hub/` });
    await client.connect();
    assert.equal((await client.manifest("latest")).bytes.toString(), '{"schemaVersion":2}');
    assert.deepEqual(asked, ["/hub/v2/ -", "/hub/v2/library/alpine/manifests/latest -"]);
  } finally {
    server.close();
  }
});

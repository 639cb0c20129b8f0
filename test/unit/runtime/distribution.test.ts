import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { inspectDistribution } from "../../../src/runtime/images/distribution.ts";
import { mediaTypes } from "../../../src/runtime/images/manifest.ts";
import { parseReference } from "../../../src/runtime/images/reference.ts";

const digestOf = (text: string) => `sha256:${createHash("sha256").update(text).digest("hex")}`;
const config = '{"architecture":"arm64","os":"linux","variant":"v8","rootfs":{"type":"layers","diff_ids":[]}}';
const configDescriptor = { mediaType: mediaTypes.ociConfig, digest: digestOf(config), size: config.length };
const manifest = JSON.stringify({ schemaVersion: 2, config: configDescriptor, layers: [] });
const index = JSON.stringify({
  schemaVersion: 2,
  manifests: [
    {
      mediaType: mediaTypes.ociManifest,
      digest: digestOf(manifest),
      size: manifest.length,
      platform: { os: "linux", architecture: "amd64" },
    },
    {
      mediaType: mediaTypes.ociManifest,
      digest: digestOf(config),
      size: 1,
      platform: { os: "linux", architecture: "arm", variant: "v7" },
    },
  ],
});
const huge = JSON.stringify({ schemaVersion: 2, config: { ...configDescriptor, size: 1e9 }, layers: [] });
const pages: Record<string, [type: string, body: string]> = {
  "/v2/a/manifests/one": [mediaTypes.ociManifest, manifest],
  "/v2/a/manifests/many": [mediaTypes.ociIndex, index],
  "/v2/a/manifests/huge": [mediaTypes.ociManifest, huge],
  [`/v2/a/blobs/${configDescriptor.digest}`]: ["application/octet-stream", config],
  "/v2/": ["application/json", "{}"],
};
let port = 0;
const server = createServer((request, response) => {
  const page = pages[request.url ?? ""];
  response.statusCode = page ? 200 : 404;
  if (page) response.setHeader("content-type", page[0]);
  response.end(page?.[1] ?? '{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}');
});
before(async () => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  port = typeof address === "object" && address ? address.port : 0;
});
after(() => server.close());
const ask = (rest: string) => inspectDistribution(parseReference(`127.0.0.1:${port}/a${rest}`), {});

test("an image for one platform: the digest of its manifest, the platform of its configuration", async () => {
  assert.deepEqual(await ask(":one"), {
    descriptor: { mediaType: mediaTypes.ociManifest, digest: digestOf(manifest), size: manifest.length },
    platforms: [{ os: "linux", architecture: "arm64", variant: "v8" }],
  });
});

test("an image for several: the digest of the index, and all their platforms", async () => {
  const found = await ask(":many");
  assert.equal(found.descriptor.digest, digestOf(index));
  assert.deepEqual(found.platforms, [
    { os: "linux", architecture: "amd64" },
    { os: "linux", architecture: "arm", variant: "v7" },
  ]);
});

test("what is not there, has no tag, or is no image", async () => {
  await assert.rejects(ask(":none"), { code: "notFound", message: /manifest for .*:none not found/ });
  await assert.rejects(ask(""), { code: "invalid", message: /not tagged/ });
  await assert.rejects(ask(":huge"), { code: "invalid", message: /configuration is too large/ });
});

test("a client that goes away is not waited for", async () => {
  const gone = new AbortController();
  const asked = inspectDistribution(parseReference(`127.0.0.1:${port}/a:one`), { signal: gone.signal });
  gone.abort(new Error("the client went away"));
  await assert.rejects(asked, /the client went away/);
});

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, rmdirSync, statfsSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import { after, before, describe, test } from "node:test";
import { gunzipSync, gzipSync } from "node:zlib";
import { type Pack, pack } from "tar-stream";
import { sleep, systemClock } from "../../../src/base/clock.ts";
import type { Progress } from "../../../src/runtime/types.ts";
import { type Bench, bench, busyboxTar, output } from "./support.ts";

const sha = (bytes: Buffer): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
const whole = async (stream: AsyncIterable<Uint8Array>): Promise<Buffer> =>
  Buffer.concat(await Array.fromAsync(stream));

function layer(files: Record<string, string>): Promise<Buffer> {
  const tar = pack();
  for (const [name, text] of Object.entries(files)) tar.entry({ name }, text);
  tar.finalize();
  return whole(tar as unknown as Readable);
}

const configOf = (diffIds: string[], extra: object = {}): Buffer =>
  Buffer.from(
    JSON.stringify({
      architecture: "amd64",
      os: "linux",
      created: "2024-01-02T03:04:05Z",
      config: { Env: ["A=1"], Cmd: ["sh"] },
      rootfs: { type: "layers", diff_ids: diffIds },
      history: [{ created_by: "made by a test" }],
      ...extra,
    }),
  );

function finish(tar: Pack): Readable {
  tar.finalize();
  return tar as unknown as Readable;
}

describe("images", () => {
  let b: Bench;
  let base: Buffer;
  before(async () => {
    b = await bench();
    base = await whole(busyboxTar({ "etc/motd": "base\n" }));
  });
  after(() => b[Symbol.asyncDispose]());

  const cat = async (imageId: string, path: string) => {
    const result = await output(await b.runtime.start({ ...b.spec("look", ["cat", path]), imageId }));
    await b.runtime.remove("look");
    return result.out;
  };
  const names = async () => (await b.runtime.images.list()).flatMap((image) => image.references).sort();

  test("found by name, id and prefix; tags point at it; the last name takes it away", async () => {
    const { images } = b.runtime;
    const hex = b.image.slice("sha256:".length);
    for (const name of ["box", "box:latest", "docker.io/library/box", b.image, hex, hex.slice(0, 12)]) {
      assert.equal((await images.find(name))?.id, b.image, name);
    }
    assert.equal(await images.find("nonesuch"), undefined);
    await images.tag("box", "example.com/team/box:v1");
    assert.deepEqual(await names(), ["docker.io/library/box:latest", "example.com/team/box:v1"]);
    const free = { inUse: () => undefined };
    await assert.rejects(
      images.remove(hex.slice(0, 12), free),
      /must be forced\) - image is referenced in multiple repositories/,
    );
    assert.deepEqual(await images.remove("example.com/team/box:v1", free), [{ Untagged: "example.com/team/box:v1" }]);
    await assert.rejects(
      images.remove("box", { inUse: () => "abcdef0123456789" }),
      /unable to remove repository reference "box:latest" \(must force\) - container abcdef012345 is using/,
    );
    const id = await images.importTar(Readable.from([gzipSync(await layer({ "hello.txt": "hi\n" }))]), {
      reference: "tmp:1",
    });
    // Removing runs the garbage collector: images and created containers must outlast it.
    const waiting = b.spec("waiting", ["cat", "/etc/group"]);
    await b.runtime.create(waiting);
    const gone = await images.remove("tmp:1", free);
    assert.match((await output(await b.runtime.start(waiting))).out, /^root/);
    await b.runtime.remove("waiting");
    assert.match(await cat(b.image, "/etc/passwd"), /^root/);
    assert.deepEqual(gone.slice(0, 2), [{ Untagged: "tmp:1" }, { Deleted: id }]);
    assert.equal(gone.length, 3);
    assert.equal(await images.find(id), undefined);
  });

  test("an archive of an older Docker: layers in directories, a link to one, gzip around it all", async () => {
    const top = await layer({ "etc/motd": "top\n" });
    const config = configOf([sha(base), sha(top)]);
    const tar = pack();
    tar.entry({ name: "aaa/layer.tar" }, base);
    tar.entry({ name: "bbb/layer.tar" }, gzipSync(top));
    tar.entry({ name: "ccc/", type: "directory" });
    tar.entry({ name: "ccc/layer.tar", type: "symlink", linkname: "../aaa/layer.tar" });
    tar.entry({ name: "config.json" }, config);
    const second = configOf([sha(base)], { comment: "second" });
    tar.entry({ name: "second.json" }, second);
    const manifest = [
      { Config: "config.json", RepoTags: ["old:1", "old:2"], Layers: ["aaa/layer.tar", "bbb/layer.tar"] },
      { Config: "second.json", RepoTags: null, Layers: ["ccc/layer.tar"] },
    ];
    tar.entry({ name: "manifest.json" }, JSON.stringify(manifest));
    const archive = gzipSync(await whole(finish(tar)));
    const loaded = await b.runtime.images.load(Readable.from([archive]));
    assert.deepEqual(loaded, ["docker.io/library/old:1", "docker.io/library/old:2", sha(second)]);
    const image = await b.runtime.images.find("old:1");
    assert.equal(image?.id, sha(config));
    assert.deepEqual(image.layers, [sha(base), sha(top)]);
    assert.equal(image.history[0]?.created_by, "made by a test");
    assert.deepEqual(image.config.Env, ["A=1"]);
    assert.equal(await cat(sha(config), "/etc/motd"), "top\n");
    assert.equal(await cat(sha(second), "/etc/motd"), "base\n");
  });

  test("saved and loaded again it is the same image, also when all of it was removed between", async () => {
    const { images } = b.runtime;
    const out = new PassThrough();
    const bytes = whole(out);
    await images.save(["old:1", "old:2", "box"], out);
    const archive = await bytes;
    const before = (await images.find("old:1"))?.id;
    await images.remove("old:1", { inUse: () => undefined });
    await images.remove("old:2", { inUse: () => undefined });
    assert.equal(await images.find("old:1"), undefined);
    const loaded = await images.load(Readable.from([archive]));
    assert.deepEqual(loaded.sort(), [
      "docker.io/library/box:latest",
      "docker.io/library/old:1",
      "docker.io/library/old:2",
    ]);
    assert.equal((await images.find("old:1"))?.id, before);
    assert.equal(await cat(before ?? "", "/etc/motd"), "top\n");
  });

  test("an OCI layout without manifest.json", async () => {
    const config = configOf([sha(base)], { comment: "oci" });
    const zipped = gzipSync(base);
    const gz = "application/vnd.oci.image.layer.v1.tar+gzip";
    const manifest = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: sha(config), size: config.length },
        layers: [{ mediaType: gz, digest: sha(zipped), size: zipped.length }],
      }),
    );
    const annotations = { "io.containerd.image.name": "docker.io/library/layout:1" };
    const entry = {
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      digest: sha(manifest),
      size: manifest.length,
    };
    const tar = pack();
    for (const blob of [zipped, manifest, config]) tar.entry({ name: `blobs/sha256/${sha(blob).slice(7)}` }, blob);
    tar.entry({ name: "index.json" }, JSON.stringify({ schemaVersion: 2, manifests: [{ ...entry, annotations }] }));
    tar.entry({ name: "oci-layout" }, '{"imageLayoutVersion":"1.0.0"}');
    assert.deepEqual(await b.runtime.images.load(finish(tar)), ["docker.io/library/layout:1"]);
    assert.equal((await b.runtime.images.find("layout:1"))?.id, sha(config));
  });

  test("bad archives are refused and leave nothing", async () => {
    const { images } = b.runtime;
    const had = await names();
    const lying = pack();
    lying.entry({ name: "a/layer.tar" }, await layer({ x: "1" }));
    lying.entry({ name: "c.json" }, configOf([sha(Buffer.from("another"))]));
    lying.entry(
      { name: "manifest.json" },
      JSON.stringify([{ Config: "c.json", RepoTags: ["lie:1"], Layers: ["a/layer.tar"] }]),
    );
    await assert.rejects(images.load(finish(lying)), /wrong diff id/);
    const empty = pack();
    empty.entry({ name: "readme" }, "hello");
    await assert.rejects(images.load(finish(empty)), /neither manifest.json nor index.json/);
    await assert.rejects(images.load(Readable.from([Buffer.alloc(2000, 7)])), { code: "invalid" });
    await assert.rejects(images.load(Readable.from([gzipSync(Buffer.alloc(5000, 7)).subarray(0, 20)])), {
      code: "invalid",
    });
    assert.deepEqual(await names(), had);
  });

  test("what unpacks to more than the disk holds is given up, and the disk is as it was", async () => {
    const disk = mkdtempSync(join(tmpdir(), "disk-"));
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=192m", "tmpfs", disk]);
    try {
      await using small = await bench(disk);
      const { images } = small.runtime;
      const free = () => statfsSync(disk).bavail * statfsSync(disk).bsize;
      const before = free();
      const shell = (text: string) => execFileSync("sh", ["-c", text], { cwd: disk, maxBuffer: 2 ** 28 });
      const bombs = {
        "a sparse file": shell("truncate -s 8G big; tar -cS --format=posix big"),
        "compressed zeros": shell("truncate -s 240M big; tar -c big | gzip -1"),
      };
      shell("rm big");
      for (const [name, bytes] of Object.entries(bombs)) {
        assert.ok(bytes.length < 2 ** 22);
        await assert.rejects(images.importTar(Readable.from([bytes]), { reference: "bomb" }), /no space left/, name);
      }
      await assert.rejects(images.load(Readable.from([bombs["compressed zeros"]])), /no space left/, "around it all");
      // containerd's collector gives back what nothing refers to.
      const deadline = Date.now() + 20_000;
      while (free() < before - 8 * 2 ** 20 && Date.now() < deadline) await sleep(systemClock, 50);
      assert.ok(free() >= before - 8 * 2 ** 20, `${before - free()} bytes are still taken`);
      assert.equal(await images.find("bomb"), undefined);
      assert.equal((await output(await small.runtime.start(small.spec("still", ["echo", "works"])))).out, "works\n");
    } finally {
      execFileSync("umount", ["-l", disk]);
      rmdirSync(disk);
    }
  });

  describe("pull", () => {
    let server: Server;
    let host: string;
    let broken: ((request: IncomingMessage, response: ServerResponse) => boolean) | undefined;
    const blobs = new Map<string, Buffer>();
    const manifests = new Map<string, { type: string; bytes: Buffer }>();
    let requests: string[] = [];

    before(async () => {
      server = createServer((request, response) => {
        requests.push(`${request.method} ${request.url} ${request.headers.range ?? ""}`.trim());
        const url = request.url ?? "";
        if (broken?.(request, response)) return;
        if (url.startsWith("/token")) {
          const good = `Basic ${Buffer.from("me:secret").toString("base64")}`;
          if (request.headers.authorization !== good) response.writeHead(401).end("{}");
          else response.end(JSON.stringify({ token: "t0k" }));
          return;
        }
        if (url !== "/v2/" && request.headers.authorization !== "Bearer t0k") {
          const challenge = `Bearer realm="http://${host}/token",service="test",scope="repository:team/app:pull"`;
          response.writeHead(401, { "www-authenticate": challenge }).end();
          return;
        }
        const [, kind, what = ""] = /^\/v2\/team\/app\/(manifests|blobs)\/(.+)$/.exec(url) ?? [];
        const manifest = kind === "manifests" ? manifests.get(what) : undefined;
        const blob = kind === "blobs" ? blobs.get(what) : undefined;
        const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
        if (manifest) response.writeHead(200, { "content-type": manifest.type }).end(manifest.bytes);
        else if (blob) response.writeHead(from ? 206 : 200).end(blob.subarray(from));
        else if (url === "/v2/") response.end("{}");
        else
          response
            .writeHead(404)
            .end(JSON.stringify({ errors: [{ code: "MANIFEST_UNKNOWN", message: "manifest unknown" }] }));
      });
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
      const zipped = gzipSync(base, { level: 1 });
      const config = configOf([sha(base)], { comment: "pulled" });
      const type = "application/vnd.docker.distribution.manifest.v2+json";
      const manifest = Buffer.from(
        JSON.stringify({
          schemaVersion: 2,
          mediaType: type,
          config: {
            mediaType: "application/vnd.docker.container.image.v1+json",
            digest: sha(config),
            size: config.length,
          },
          layers: [
            {
              mediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip",
              digest: sha(zipped),
              size: zipped.length,
            },
          ],
        }),
      );
      const index = Buffer.from(
        JSON.stringify({
          schemaVersion: 2,
          manifests: [
            {
              mediaType: type,
              digest: sha(Buffer.from("other")),
              size: 5,
              platform: { os: "linux", architecture: "s390x" },
            },
            {
              mediaType: type,
              digest: sha(manifest),
              size: manifest.length,
              platform: { os: "linux", architecture: "amd64" },
            },
          ],
        }),
      );
      for (const blob of [zipped, config]) blobs.set(sha(blob), blob);
      const list = "application/vnd.docker.distribution.manifest.list.v2+json";
      manifests.set(sha(manifest), { type, bytes: manifest });
      manifests.set("1", { type: list, bytes: index });
      manifests.set("lying", {
        type,
        bytes: Buffer.from(manifest.toString().replace(sha(zipped), sha(zipped.subarray(1)))),
      });
      blobs.set(sha(zipped.subarray(1)), zipped);
    });
    after(() => {
      server.closeAllConnections();
      server.close();
    });

    const auth = { username: "me", password: "secret" };

    test("a multi-platform image behind a token, with Docker's progress, resumed where it broke off", async () => {
      const said: Progress[] = [];
      let once = true;
      broken = (request, response) => {
        const blob = blobs.get(/blobs\/(.+)$/.exec(request.url ?? "")?.[1] ?? "");
        if (!once || !blob || blob.length < 10_000 || !request.headers.authorization) return false;
        once = false;
        response.writeHead(200, { "content-length": blob.length });
        response.write(blob.subarray(0, 8192), () => setTimeout(() => response.destroy(), 50));
        return true;
      };
      const id = await b.runtime.images.pull(`${host}/team/app:1`, { auth, onProgress: (p) => said.push(p) });
      broken = undefined;
      const image = await b.runtime.images.find(`${host}/team/app:1`);
      assert.equal(image?.id, id);
      assert.match(image.repoDigests[0] ?? "", /\/team\/app@sha256:/);
      assert.ok(
        requests.some((line) => line.endsWith("bytes=8192-")),
        requests.join("\n"),
      );
      assert.equal(said[0]?.status, "Pulling from team/app");
      assert.match(said.at(-1)?.status ?? "", /^Status: Downloaded newer image for 127.0.0.1:\d+\/team\/app:1$/);
      assert.equal(await cat(id, "/etc/motd"), "base\n");
      requests = [];
      const again: Progress[] = [];
      await b.runtime.images.pull(`${host}/team/app:1`, { auth, onProgress: (p) => again.push(p) });
      assert.match(again.at(-1)?.status ?? "", /^Status: Image is up to date/);
      assert.ok(!requests.some((line) => line.includes("/blobs/")), "what is here is not fetched again");
    });

    test("refusals name their reason: no login, no such tag, lying digest, nobody there", async () => {
      const { images } = b.runtime;
      await assert.rejects(
        images.pull(`${host}/team/app:1`, {}),
        /pull access denied for .*may require 'docker login'/,
      );
      await assert.rejects(
        images.pull(`${host}/team/app:nope`, { auth }),
        /manifest for .*app:nope not found: manifest unknown/,
      );
      await assert.rejects(images.pull(`${host}/team/app:lying`, { auth }), /verification failed for digest/);
      assert.equal(await images.find(`${host}/team/app:lying`), undefined);
      await assert.rejects(images.pull("127.0.0.1:1/x/y", {}), /ECONNREFUSED/);
    });

    test("a registry that lies, in each place where it can, is not believed and leaves nothing", async () => {
      const { images } = b.runtime;
      const type = "application/vnd.docker.distribution.manifest.v2+json";
      const list = "application/vnd.docker.distribution.manifest.list.v2+json";
      const gz = "application/vnd.docker.image.rootfs.diff.tar.gzip";
      const zipped = gzipSync(await layer({ lie: "x".repeat(100_000) }), { level: 0 });
      const other = Buffer.alloc(zipped.length, 7);
      const config = configOf([sha(gunzipSync(zipped))], { comment: "lies" });
      const give = (tag: string, more: { config?: Buffer; layer?: object; kind?: string; bytes?: Buffer }) => {
        const told = more.config ?? config;
        blobs.set(sha(told), told);
        const document = {
          schemaVersion: 2,
          mediaType: type,
          config: { mediaType: "x", digest: sha(told), size: told.length },
          layers: [{ mediaType: gz, digest: sha(zipped), size: zipped.length, ...more.layer }],
        };
        manifests.set(tag, { type: more.kind ?? type, bytes: more.bytes ?? Buffer.from(JSON.stringify(document)) });
      };
      type Answer = (response: ServerResponse, from: number) => void;
      const whole: Answer = (response, from) => response.writeHead(from ? 206 : 200).end(zipped.subarray(from));
      const lies: Record<string, readonly [Parameters<typeof give>[1], Answer, RegExp]> = {
        "other bytes": [{}, (response) => response.end(other), /verification failed for digest/],
        "more bytes": [{}, (response) => response.end(Buffer.concat([zipped, other])), /is larger than its descriptor/],
        "fewer bytes, always": [{}, (response) => response.end(), /unexpected EOF/],
        "a length that does not come": [
          {},
          (response) => {
            response.writeHead(200, { "content-length": zipped.length });
            response.write(zipped.subarray(0, 10), () => response.destroy());
          },
          /aborted|unexpected EOF|socket hang up/,
        ],
        "another place after a break": [
          {},
          (response, from) => {
            if (from > 0) response.writeHead(206).end(other.subarray(from));
            else response.write(zipped.subarray(0, 70_000), () => response.destroy());
          },
          /verification failed for digest/,
        ],
        "redirects in a circle": [
          {},
          (response) => response.writeHead(307, { location: `/v2/team/app/blobs/${sha(zipped)}` }).end(),
          /redirects too often/,
        ],
        "a redirect to a file": [
          {},
          (response) => response.writeHead(307, { location: "file:///etc/passwd" }).end(),
          /redirects from/,
        ],
        "errors only": [{}, (response) => response.writeHead(500).end("no"), /status 500/],
        "a configuration of other layers": [
          { config: configOf([sha(other)], { comment: "others" }) },
          whole,
          /wrong diff id calculated/,
        ],
        "a configuration that is none": [{ config: Buffer.from("[]") }, whole, /invalid image configuration/],
        "a size below nothing": [{ layer: { size: -1 } }, whole, /invalid image manifest/],
        "a size beyond all": [{ layer: { size: 1e300 } }, whole, /invalid image manifest/],
        "a size that is not the layer's": [
          { layer: { size: zipped.length + 1 } },
          whole,
          /unexpected EOF|verification/,
        ],
        "a digest that is none": [{ layer: { digest: "sha256:../../x" } }, whole, /invalid image manifest/],
        "a manifest that is none": [{ bytes: Buffer.from("{") }, whole, /JSON/],
        "a manifest without end": [{ bytes: Buffer.alloc(9 * 2 ** 20, 32) }, whole, /too large/],
        "an index of what it has not": [
          {
            kind: list,
            bytes: Buffer.from(
              JSON.stringify({
                schemaVersion: 2,
                manifests: [{ digest: sha(other), size: 5, platform: { os: "linux", architecture: "amd64" } }],
              }),
            ),
          },
          whole,
          /not found: manifest unknown/,
        ],
      };
      const before = await b.content();
      for (const [name, [more, answer, words]] of Object.entries(lies)) {
        give("lie", more);
        broken = (request, response) => {
          if (request.url !== `/v2/team/app/blobs/${sha(zipped)}` || !request.headers.authorization) return false;
          answer(response, Number(/bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0));
          return true;
        };
        await assert.rejects(images.pull(`${host}/team/app:lie`, { auth }), (error: Error) => {
          assert.match(error.message, words, name);
          return true;
        });
        assert.deepEqual(await b.content(), before, name);
      }
      broken = undefined;
      blobs.set(sha(zipped), zipped);
      give("lie", {});
      const id = await images.pull(`${host}/team/app:lie`, { auth });
      await images.remove(id, { force: true, inUse: () => undefined });
      assert.deepEqual(await b.content(), before, "an honest answer in the end");
    });

    test("a pull that is given up in the middle leaves nothing", async () => {
      const { images } = b.runtime;
      const before = await b.content();
      const leave = new AbortController();
      broken = (request, response) => {
        if (!request.url?.includes("/blobs/") || !request.headers.authorization) return false;
        response.writeHead(200, { "content-length": 1_000_000 });
        response.write(Buffer.alloc(1000), () => leave.abort(new Error("left")));
        return true;
      };
      await images.remove(`${host}/team/app:1`, { force: true, inUse: () => undefined });
      const without = await b.content();
      await assert.rejects(images.pull(`${host}/team/app:1`, { auth, signal: leave.signal }));
      broken = undefined;
      assert.deepEqual(await b.content(), without);
      assert.ok(before.length >= without.length);
    });
  });
});

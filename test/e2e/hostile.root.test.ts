/**
 * Archives that mean harm, given to `load`, `import` and `cp` of a running engine: each is refused in the client's terms or
 * stays within its image or container, and leaves nothing half-made: no content, snapshot, lease, mount or file.
 * With `SKEIN_CONTROL=1` the real Docker Engine answers; what it says of bad archives it says in a stream of status 200.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { type Header, pack } from "tar-stream";
import { run } from "../../src/lab/process.ts";
import { control, EngineHost, skipControl } from "../support/engine.ts";
import { eventually } from "../support/lab.ts";

let host: EngineHost;
/** A directory of this machine that archives try to write into. */
let outside: string;

before(async () => {
  host = await EngineHost.make("hostile", "10.135.0.0/24");
  outside = join(host.scratch, "outside");
  mkdirSync(outside);
  writeFileSync(join(outside, "kept"), "kept");
});
after(() => host?.[Symbol.asyncDispose]());

type Entry = readonly [header: Partial<Header> & { name: string }, content?: string | Buffer];

function tar(...entries: Entry[]): Promise<Buffer> {
  const out = pack();
  for (const [header, content] of entries) out.entry(header, content ?? "");
  out.finalize();
  return buffer(out as unknown as NodeJS.ReadableStream);
}
const file = (name: string, content: string | Buffer = "x"): Entry => [{ name }, content];
const sha = (bytes: Buffer): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

interface Image {
  readonly layers?: readonly Buffer[];
  readonly config?: object;
  readonly manifest?: unknown;
  readonly extra?: readonly Entry[];
  readonly tags?: readonly string[];
}

/** An archive as `docker save` writes it, but for what is asked for. */
function image({ layers = [], config = {}, manifest, extra = [], tags = ["hostile:1"] }: Image): Promise<Buffer> {
  const document = {
    ...{ architecture: "amd64", os: "linux", config: { Cmd: ["sh"] } },
    rootfs: { type: "layers", diff_ids: layers.map(sha) },
    ...config,
  };
  const names = layers.map((_, index) => `${index}/layer.tar`);
  return tar(
    ...layers.map((layer, index) => file(names[index] ?? "", layer)),
    file("c.json", Buffer.from(JSON.stringify(document))),
    ...extra,
    file("manifest.json", JSON.stringify(manifest ?? [{ Config: "c.json", RepoTags: tags, Layers: names }])),
  );
}

/** Sends a body to the engine's socket. `cut`: the client leaves after so many bytes. */
function send(method: string, path: string, body: Buffer, cut?: number): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const call = request(
      {
        ...{ socketPath: host.host("host").socket, method, path: `/v1.41${path}`, timeout: 20_000 },
        headers: { "Content-Type": "application/x-tar", "Content-Length": body.length },
      },
      async (response) =>
        resolve({
          status: response.statusCode ?? 0,
          text: (await buffer(response)).toString("utf8").replaceAll('\\"', '"'),
        }),
    );
    call.on("error", (error) => (cut === undefined ? reject(error) : resolve({ status: 0, text: "" })));
    call.on("timeout", () => call.destroy(new Error("no answer")));
    if (cut === undefined) call.end(body);
    else call.write(body.subarray(0, cut), () => setTimeout(() => call.destroy(), 50));
  });
}

const load = (body: Buffer) => send("POST", "/images/load?quiet=1", body);

/** Everything that the engine and its containerd keep: by name, in order. */
async function kept(): Promise<string[]> {
  const { stateDir, runDir } = host.host("host");
  const ctr = async (...words: string[]) => {
    const address = `${runDir}/containerd/containerd/containerd.sock`;
    const { code, stdout, stderr } = await run(["ctr", "--address", address, "--namespace", "skein", ...words]);
    assert.equal(code, 0, stderr);
    return stdout.split("\n").map((line) => `${words[0]} ${line.trim().split(/\s+/)[0]}`);
  };
  const all = await Promise.all([
    ctr("content", "ls", "-q"),
    ctr("content", "active"),
    ctr("snapshots", "ls"),
    ctr("leases", "ls", "-q"),
    ctr("images", "ls", "-q"),
  ]);
  const dirs = [`${runDir}/containerd/rootfs`, `${stateDir}/containers`, `${stateDir}/volumes`];
  const snapshots = `${stateDir}/containerd/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots`;
  const there = [...dirs, snapshots].filter((dir) => existsSync(dir));
  const files = there.flatMap((dir) => readdirSync(dir).map((name) => `${dir}/${name}`));
  return [...all.flat(), ...files].sort();
}

/** Runs `job`, which makes nothing that stays, and looks for what it left. */
async function leavesNothing(job: () => Promise<void>): Promise<void> {
  if (control) return await job();
  const before = await kept();
  await job();
  await eventually("all is as it was", async () => JSON.stringify(await kept()) === JSON.stringify(before)).catch(
    async (error) => {
      assert.deepEqual(await kept(), before);
      throw error;
    },
  );
}

test("load: layers stay within their image", async () => {
  const climbs = "../".repeat(20);
  const layers: Record<string, Buffer> = {
    absolute: await tar(file(`${outside}/planted`)),
    climbing: await tar(file(`${climbs}${outside.slice(1)}/planted`)),
    "through a link": await tar([{ name: "l", type: "symlink", linkname: outside }], file("l/planted")),
    "through a climbing link": await tar(
      [{ name: "l", type: "symlink", linkname: `${climbs}${outside.slice(1)}` }],
      file("l/planted"),
    ),
    "a hard link": await tar([{ name: "h", type: "link", linkname: `${outside}/kept` }], file("h", "changed")),
    "a whiteout": await tar(file(`${climbs}${outside.slice(1)}/.wh.kept`)),
    "a whiteout of all": await tar(file(`${climbs}${outside.slice(1)}/.wh..wh..opq`)),
    "a thousand directories": await tar(file(`${"d/".repeat(1000)}f`)),
    devices: await tar([{ name: "dev/x", type: "block-device", devmajor: 8, devminor: 0 }]),
  };
  await leavesNothing(async () => {
    for (const [name, layer] of Object.entries(layers)) {
      const { text } = await load(await image({ layers: [layer] }));
      const loaded = text.includes("Loaded image: hostile:1");
      assert.ok(loaded || /"message"/.test(text), `${name}: ${text}`);
      if (!control) assert.doesNotMatch(text, /containerd|\/var\/lib/, "no paths of the engine's own");
      if (loaded) await host.docker("rmi", "-f", "hostile:1");
      assert.deepEqual(readdirSync(outside), ["kept"], name);
      assert.equal(readFileSync(join(outside, "kept"), "utf8"), "kept", name);
    }
  });
});

test("load: archives that do not hold what they say", async () => {
  const layer = await tar(file("hello"));
  const cut = await image({ layers: [await tar(file("a", Buffer.alloc(300_000, 1)))] });
  const layers = [layer];
  const entry = (more: object) => [{ Config: "c.json", RepoTags: ["hostile:1"], Layers: ["0/layer.tar"], ...more }];
  const rootfs = (...diff_ids: string[]) => ({ rootfs: { type: "layers", diff_ids } });
  const link = (linkname: string): Entry => [{ name: "link", type: "symlink", linkname }];
  const archives: Record<string, readonly [Buffer, RegExp]> = {
    "another diff id": [
      await image({ layers, config: rootfs(sha(Buffer.from("other"))) }),
      /wrong diff id calculated on extraction|invalid diffID for layer 0/,
    ],
    "more diff ids": [
      await image({ layers, config: rootfs(sha(layer), sha(layer)) }),
      /1 layers, but 2 diff ids|layers length mismatch/,
    ],
    "a diff id that is none": [await image({ layers, config: rootfs("md5:1") }), /diff_ids\.0|invalid diffID/],
    "a configuration outside": [
      await image({ layers, manifest: entry({ Config: `../../../..${outside}/kept` }) }),
      /./,
    ],
    "an absolute configuration": [await image({ layers, manifest: entry({ Config: "/etc/passwd" }) }), /./],
    "a layer outside": [await image({ layers, manifest: entry({ Layers: ["/etc/passwd"] }) }), /./],
    "a link outside": [
      await image({ layers, manifest: entry({ Config: "link" }), extra: [link("/etc/passwd")] }),
      /missing|no such file/,
    ],
    "a link to itself": [
      await image({ layers, manifest: entry({ Config: "link" }), extra: [link("link")] }),
      /links to itself|too many links/,
    ],
    "a manifest of another kind": [await image({ layers, manifest: { Config: 5 } }), /./],
    "a name in capitals": [await image({ layers, tags: ["BAD:1"] }), /repository name must be lowercase/],
    "a name without a tag": [await image({ layers, tags: ["bare"] }), /invalid tag "bare"/],
    "a name with a digest": [await image({ layers, tags: [`a@${sha(layer)}`] }), /invalid tag "a@sha256/],
    "another system": [await image({ layers, config: { os: "windows" } }), /cannot load windows image on linux/],
    "a time that is none": [await image({ layers, config: { created: "yesterday" } }), /created|parsing time/],
    "a layer that is no archive": [await image({ layers: [Buffer.alloc(2000, 7)] }), /invalid tar header/],
    "half an archive": [cut.subarray(0, 100_000), /[Uu]nexpected (end|EOF)/],
    "garbage in gzip": [Buffer.concat([Buffer.from([0x1f, 0x8b]), Buffer.alloc(3000, 7)]), /./],
    "names of 5000 directories": [await image({ layers: [await tar(file(`${"d/".repeat(5000)}f`))] }), /name too long/],
    "a whiteout of its own directory": [await image({ layers: [layer, await tar(file(".wh..."))] }), /./],
  };
  await leavesNothing(async () => {
    for (const [name, [archive, words]] of Object.entries(archives)) {
      const { status, text } = await load(archive);
      assert.equal(status, control ? 200 : 400, `${name}: ${text}`);
      assert.match(text, words, name);
      assert.doesNotMatch(text, /Loaded image/, name);
    }
    for (const bytes of [1000, 200_000]) await send("POST", "/images/load", cut, bytes);
  });
});

test("import: what is no root file system makes no image", skipControl, async () => {
  await leavesNothing(async () => {
    for (const [name, archive] of Object.entries({
      garbage: Buffer.alloc(3000, 7),
      "a hard link outside": await tar([{ name: "h", type: "link", linkname: `${outside}/kept` }]),
      "a name that cannot be": await tar(file("n".repeat(300))),
    })) {
      const { status, text } = await send("POST", "/images/create?fromSrc=-&repo=hostile", archive);
      assert.equal(status, 400, `${name}: ${text}`);
    }
    await send("POST", "/images/create?fromSrc=-&repo=hostile", await tar(file("a", Buffer.alloc(300_000))), 200_000);
  });
  assert.deepEqual(readdirSync(outside), ["kept"]);
});

test("an image whose files are not what they should be starts, or is told why not", async () => {
  const etc = await tar(
    [{ name: "etc/", type: "directory" }],
    ...(control ? [] : ([[{ name: "etc/passwd", type: "fifo" }]] as Entry[])),
    [{ name: "etc/group", type: "symlink", linkname: outside }],
  );
  await leavesNothing(async () => {
    const { text } = await load(await image({ layers: [etc], config: { config: { Cmd: ["sh"], User: "bob" } } }));
    assert.match(text, /Loaded image/);
    const { stderr } = await host.attempt("run", "--rm", "hostile:1");
    assert.match(stderr, /unable to find user bob: no matching entries in passwd file/);
    await host.clear();
    await host.docker("rmi", "hostile:1");
  });
});

test("cp: links of a container, and of an archive, lead nowhere outside", async () => {
  const name = "in";
  await host.docker("run", "-d", "--name", name, "alpine", "sh", "-c", `ln -s ${outside} /out; exec sleep 1000`);
  const put = async (entries: readonly Entry[], more = "") =>
    send("PUT", `/containers/${name}/archive?path=/tmp${more}`, await tar(...entries));
  await host.docker("exec", name, "sh", "-c", `ln -s ${outside} /tmp/out; ln -s ../../../../../../../../etc /tmp/up`);
  const tries: Record<string, readonly Entry[]> = {
    "a link there": [file("out/planted")],
    "a link in the archive": [[{ name: "l", type: "symlink", linkname: outside }], file("l/planted")],
    "a hard link": [[{ name: "h", type: "link", linkname: `${outside}/kept` }], file("h", "changed")],
    "a link to a hard link": [
      [{ name: "m", type: "symlink", linkname: `${outside}/kept` }],
      [{ name: "n", type: "link", linkname: "m" }],
      file("n", "changed"),
    ],
    climbing: [file(`../../../../../../../..${outside}/planted`)],
    absolute: [file(`${outside}/planted`)],
    "what the link leads to": [[{ name: "out/", type: "directory" }], file("out/kept", "changed")],
  };
  for (const [what, entries] of Object.entries(tries)) {
    await put(entries);
    assert.deepEqual(readdirSync(outside), ["kept"], what);
    assert.equal(readFileSync(join(outside, "kept"), "utf8"), "kept", what);
  }
  assert.equal((await put([file("up/planted-by-test", "inside")])).status, 200);
  assert.equal(await host.docker("exec", name, "cat", "/etc/planted-by-test"), "inside");
  assert.equal(existsSync("/etc/planted-by-test"), false);
  assert.match((await put([file("../x")])).text, control ? /./ : /invalid tar header: "..\/x" is outside of/);
  // A client that sends nothing holds nobody up.
  const hanging = send("PUT", `/containers/${name}/archive?path=/tmp`, Buffer.alloc(100_000), 0);
  assert.equal(await host.docker("exec", name, "echo", "goes on"), "goes on");
  await hanging;
  for (const body of [Buffer.alloc(3000, 7), (await tar(file("cut", Buffer.alloc(9000)))).subarray(0, 4000)]) {
    const { status } = await send("PUT", `/containers/${name}/archive?path=/tmp`, body);
    assert.ok(status === 400 || (control && status === 500), String(status));
  }
  const keep = await put([file("cut/x")], "&noOverwriteDirNonDir=1");
  assert.ok(keep.status >= 400, "a file is no directory");
  await host.clear();
});

test("cp -a gives the container's user what it copies", async () => {
  const dir = join(host.scratch, "mine");
  mkdirSync(dir);
  writeFileSync(join(dir, "f"), "x");
  await host.docker("run", "-d", "--name", "user", "-u", "nobody", "alpine", "sleep", "1000");
  const owner = (path: string) => host.docker("exec", "user", "stat", "-c", "%u:%g", path);
  await host.docker("cp", "-a", dir, "user:/tmp/a");
  const id = await host.docker("exec", "user", "sh", "-c", "echo $(id -u):$(id -g)");
  assert.deepEqual([await owner("/tmp/a"), await owner("/tmp/a/f")], [id, id]);
  await host.docker("cp", dir, "user:/tmp/b");
  assert.equal(await owner("/tmp/b/f"), "0:0");
  await host.clear();
});

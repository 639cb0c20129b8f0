/** Images between a host and a registry, and what containers make of them. */
import assert from "node:assert/strict";
import { existsSync, lstatSync, mkdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { run } from "../../src/lab/process.ts";
import { EngineHost } from "../support/engine.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { Terminal } from "../support/terminal.ts";

let host: EngineHost;
let open: TestRegistry;
let locked: TestRegistry;

before(async () => {
  host = await EngineHost.make("images", "10.86.0.0/24");
  [open, locked] = await Promise.all([startRegistry(host, 5000), startRegistry(host, 5001, { password: true })]);
});
after(async () => {
  await open?.[Symbol.asyncDispose]();
  await locked?.[Symbol.asyncDispose]();
  await host?.[Symbol.asyncDispose]();
});

test("diff tells added, changed and deleted paths, and nothing of the engine's own files", async () => {
  await host.docker("run", "--name", "d0", "alpine", "true");
  assert.equal(await host.docker("diff", "d0"), "");
  await host.docker(
    ...["run", "--name", "d1", "-v", "/vol", "alpine", "sh", "-c"],
    "mkdir -p /new/deep; echo x > /new/deep/file; echo y >> /etc/passwd; rm /etc/group; echo z > /vol/unseen",
  );
  assert.deepEqual((await host.docker("diff", "d1")).split("\n").sort(), [
    "A /new",
    "A /new/deep",
    "A /new/deep/file",
    "A /vol",
    "C /etc",
    "C /etc/passwd",
    "D /etc/group",
  ]);
  assert.match((await host.attempt("diff", "nosuch")).stderr, /No such container: nosuch/);
  await host.clear();
});

test("commit: files, configuration, changes, history and sizes", async () => {
  await host.docker(
    ...["run", "--name", "c1", "-e", "A=1", "-l", "k=v", "alpine", "sh", "-c"],
    "dd if=/dev/zero of=/big bs=1024 count=300 2>/dev/null; rm -f /etc/group; ln -s /big /link",
  );
  const id = await host.docker(
    ...["commit", "-a", "Anna <a@b.c>", "-m", "because", "-c", 'CMD ["cat","/made"]', "-c", "ENV B=2", "c1", "made:1"],
  );
  assert.match(id, /^sha256:[0-9a-f]{64}$/);
  assert.equal(
    await host.inspect("made:1", "{{.Author}}|{{.Comment}}|{{.Config.Cmd}}|{{.Config.Labels.k}}"),
    "Anna <a@b.c>|because|[cat /made]|v",
  );
  const env = await host.inspect("made:1", "{{json .Config.Env}}");
  assert.ok(env.includes("A=1") && env.includes("B=2"), env);
  const inside = await host.docker(
    ...[
      "run",
      "--rm",
      "made:1",
      "sh",
      "-c",
      "wc -c < /big; readlink /link; test -e /etc/group || echo gone; echo $A$B",
    ],
  );
  assert.deepEqual(inside.split("\n"), ["307200", "/big", "gone", "12"]);
  const steps = (
    await host.docker("history", "--human=false", "--no-trunc", "--format", "{{.Size}} {{.Comment}}", "made:1")
  ).split("\n");
  const [size = "", comment] = steps[0]?.split(" ") ?? [];
  assert.equal(comment, "because");
  assert.ok(Number(size) >= 307200 && Number(size) < 400_000, steps[0]);
  assert.ok(steps.length > 1);
  const [first, base] = [await host.inspect("made:1", "{{.Size}}"), await host.inspect("alpine", "{{.Size}}")].map(
    Number,
  );
  assert.equal((first ?? 0) - (base ?? 0), Number(size), "an image is as large as its layers");
  // A running one, without a name; its processes go on afterwards.
  await host.docker("run", "-d", "--name", "c2", "alpine", "sleep", "1000");
  const nameless = await host.docker("commit", "c2");
  assert.equal(await host.inspect("c2", "{{.State.Status}}"), "running");
  await host.clear();
  const pruned = await host.docker("image", "prune", "-f");
  assert.match(pruned, new RegExp(`deleted: ${nameless}`));
  await host.docker("rmi", "made:1");
  assert.match((await host.attempt("commit", "nosuch", "x")).stderr, /No such container: nosuch/);
});

test("prune frees what no other image has", async () => {
  await host.docker("run", "--name", "p1", "alpine", "dd", "if=/dev/zero", "of=/big", "bs=1000000", "count=3");
  const id = await host.docker("commit", "p1");
  await host.docker("rm", "p1");
  const text = await host.docker("image", "prune", "-f");
  assert.match(text, new RegExp(`deleted: ${id}`));
  assert.match(text, /Total reclaimed space: 3(\.\d+)?MB/);
});

test("push and pull: a round trip, layers told one by one, nothing sent twice", async () => {
  const name = `${open.address}/team/app:1`;
  await host.docker(
    "run",
    "--name",
    "a1",
    "alpine",
    "sh",
    "-c",
    "head -c 2000000 /dev/urandom > /data; md5sum < /data > /sum",
  );
  const id = await host.docker("commit", "a1", name);
  const pushed = await host.docker("push", name);
  assert.match(pushed, new RegExp(`^The push refers to repository \\[${open.address}/team/app\\]`));
  assert.match(pushed, /^[0-9a-f]{12}: Preparing$/m);
  assert.match(pushed, /^[0-9a-f]{12}: Pushed$/m);
  const [, digest = ""] = /^1: digest: (sha256:[0-9a-f]{64}) size: \d+$/m.exec(pushed) ?? [];
  assert.notEqual(digest, "", pushed);
  assert.equal(
    await host.inspect(name, "{{json .RepoDigests}}"),
    JSON.stringify([`${open.address}/team/app@${digest}`]),
  );
  await host.docker("tag", name, `${open.address}/team/app:2`);
  const again = await host.docker("push", `${open.address}/team/app:2`);
  assert.match(again, /Layer already exists/);
  assert.doesNotMatch(again, /: Pushed$/m);
  await host.docker("rm", "a1");
  await host.docker("rmi", name, `${open.address}/team/app:2`);
  assert.notEqual((await host.attempt("image", "inspect", id)).code, 0);

  await using terminal = new Terminal(host.command(["pull", name]));
  await terminal.see(/Pull(ing fs layer|ed)?|Download/);
  const screen = await terminal.see(/Status: Downloaded newer image/);
  assert.match(screen, /Pull complete/);
  assert.match(screen, new RegExp(`Digest: ${digest}`));
  assert.equal(await terminal.ended(), 0);
  assert.equal(await host.inspect(name, "{{.Id}}"), id);
  assert.equal(await host.docker("run", "--rm", name, "sh", "-c", "md5sum < /data | cmp - /sum && echo same"), "same");
  assert.match(await host.docker("pull", name), /Image is up to date/);
  assert.match(await host.docker("pull", `${open.address}/team/app@${digest}`), /Digest: /);
  await host.docker("tag", name, `${open.address}/team/app:3`);
  const all = await host.docker("push", "-a", `${open.address}/team/app`);
  assert.match(all, /^1: digest: /m);
  assert.match(all, /^3: digest: /m);
});

test("what cannot be pushed or pulled is told so", async () => {
  const missing = await host.attempt("push", `${open.address}/none:1`);
  assert.equal(missing.code, 1);
  assert.match(missing.stderr, new RegExp(`does not exist locally with the tag: ${open.address}/none`));
  assert.match((await host.attempt("pull", `${open.address}/none:1`)).stderr, /not found/);
  const nobody = await host.attempt("pull", "localhost:5999/x");
  assert.match(nobody.stderr, /connection refused|ECONNREFUSED/);
});

test("login: wrong and right passwords; pull and push want them; logout", async () => {
  const name = `${locked.address}/private`;
  await host.docker("tag", "alpine", name);
  assert.match((await host.attempt("push", name)).stderr, /no basic auth credentials/);
  const login = (password: string) =>
    run(host.command(["login", "-u", "anna", "--password-stdin", locked.address]), { input: Buffer.from(password) });
  const wrong = await login("wrong");
  assert.notEqual(wrong.code, 0);
  assert.match(wrong.stderr, /[Uu]nauthorized/);
  const right = await login("secret");
  assert.match(right.stdout, /Login Succeeded/, right.stderr);
  assert.match(await host.docker("push", name), /latest: digest: sha256:/);
  await host.docker("rmi", name);
  assert.match(await host.docker("pull", name), /Downloaded newer image|up to date/);
  await host.docker("logout", locked.address);
  await host.docker("rmi", name);
  const denied = await host.attempt("pull", name);
  assert.notEqual(denied.code, 0);
  assert.match(denied.stderr, /no basic auth credentials|unauthorized|denied/);
});

test("a registry that lies about a layer is not believed, and leaves nothing", async () => {
  const name = `${open.address}/liar`;
  await host.docker("run", "--name", "li", "alpine", "sh", "-c", "echo honest > /file");
  await host.docker("commit", "li", name);
  await host.docker("push", name);
  await host.docker("rm", "li");
  const top = (await host.json<string[]>("inspect", "-f", "{{json .RootFS.Layers}}", name)).length;
  assert.ok(top >= 2);
  await host.docker("rmi", name);
  const manifest = await run([
    ...["nsenter", "-t", String(host.state.init.pid), "--net", "curl", "-s", "-H"],
    ...[
      "Accept: application/vnd.docker.distribution.manifest.v2+json",
      `http://${open.address}/v2/liar/manifests/latest`,
    ],
  ]);
  const { layers } = JSON.parse(manifest.stdout) as { layers: { digest: string; size: number }[] };
  const { digest, size } = layers.at(-1) ?? { digest: "", size: 0 };
  const hex = digest.replace("sha256:", "");
  const blob = join(open.files, "docker/registry/v2/blobs/sha256", hex.slice(0, 2), hex, "data");
  assert.ok(existsSync(blob));
  const truth = readFileSync(blob);
  writeFileSync(blob, Buffer.alloc(size, 7));
  const lied = await host.attempt("pull", name);
  assert.notEqual(lied.code, 0);
  assert.match(lied.stderr, /verification failed/);
  assert.notEqual((await host.attempt("image", "inspect", name)).code, 0);
  writeFileSync(blob, truth);
  assert.match(await host.docker("pull", name), /Downloaded newer image/);
  assert.equal(await host.docker("run", "--rm", name, "cat", "/file"), "honest");
});

test("cp: links are kept, followed with -L, and lead nowhere outside", async () => {
  await host.docker("run", "-d", "--name", "cp", "alpine", "sleep", "1000");
  const dir = join(host.scratch, "tree");
  mkdirSync(join(dir, "sub"), { recursive: true });
  writeFileSync(join(dir, "sub/file"), "content");
  symlinkSync("sub/file", join(dir, "good"));
  symlinkSync("/etc/hostname", join(dir, "absolute"));
  await host.docker("cp", dir, "cp:/tree");
  const seen = await host.docker(
    "exec",
    "cp",
    "sh",
    "-c",
    "readlink /tree/good; readlink /tree/absolute; cat /tree/good",
  );
  assert.deepEqual(seen.split("\n"), ["sub/file", "/etc/hostname", "content"]);
  // A directory's contents into one that is there.
  await host.docker("exec", "cp", "mkdir", "/into");
  await host.docker("cp", `${dir}/.`, "cp:/into");
  assert.equal(await host.docker("exec", "cp", "cat", "/into/sub/file"), "content");
  await host.docker("cp", "cp:/tree/good", join(host.scratch, "link"));
  assert.equal(readlinkSync(join(host.scratch, "link")), "sub/file");
  await host.docker("cp", "-L", "cp:/tree/good", join(host.scratch, "followed"));
  assert.equal(lstatSync(join(host.scratch, "followed")).isFile(), true);
  assert.equal(readFileSync(join(host.scratch, "followed"), "utf8"), "content");
  // A link in the container that points at a host path means the container's.
  await host.docker("exec", "cp", "ln", "-s", "/etc", "/etclink");
  await host.docker("cp", join(dir, "sub/file"), "cp:/etclink/planted");
  assert.equal(await host.docker("exec", "cp", "cat", "/etc/planted"), "content");
  assert.equal(existsSync("/etc/planted"), false);
  assert.match(
    (await host.attempt("cp", join(dir, "sub/file"), "cp:/no/such/dir/")).stderr,
    /[Nn]o such|[Cc]ould not find/,
  );
  assert.notEqual((await host.attempt("cp", dir, "cp:/etc/passwd")).code, 0, "a directory does not replace a file");
  await host.clear();
});

/** Files of Debian packages, fetched and unpacked into a folder without being installed. */
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SkeinError } from "../../base/errors.ts";
import { run } from "../process.ts";

/**
 * Unpacks packages and all they depend on.
 * @returns the folder they are in; what is there already is used.
 * @throws notFound when apt cannot fetch them.
 */
export async function unpackPackages(cache: string, packages: readonly string[]): Promise<string> {
  const root = join(cache, "root");
  const stamp = join(
    cache,
    `have-${[...packages]
      .sort()
      .join("-")
      .replace(/[^\w-]/g, "_")}`,
  );
  if (existsSync(stamp)) return root;
  const work = join(cache, "work");
  rmSync(work, { recursive: true, force: true });
  rmSync(root, { recursive: true, force: true });
  mkdirSync(join(work, "debs", "partial"), { recursive: true });
  mkdirSync(join(work, "root"));
  writeFileSync(join(work, "status"), "");
  const options = [`Dir::State::status=${work}/status`, `Dir::Cache::archives=${work}/debs`, "APT::Sandbox::User=root"];
  const command = ["apt-get", "-q", "-y", "--download-only", "--no-install-recommends"];
  const fetched = await run([...command, ...options.flatMap((option) => ["-o", option]), "install", ...packages], {
    timeoutMs: 300_000,
  });
  if (fetched.code !== 0) {
    throw new SkeinError("notFound", `cannot fetch Debian packages ${packages.join(", ")}`, {
      hint: fetched.stderr.trim().split("\n").at(-1) ?? "",
    });
  }
  for (const deb of readdirSync(join(work, "debs")).filter((name) => name.endsWith(".deb"))) {
    const unpacked = await run(["dpkg-deb", "-x", join(work, "debs", deb), join(work, "root")]);
    if (unpacked.code !== 0) throw new SkeinError("internal", `cannot unpack ${deb}: ${unpacked.stderr.trim()}`);
  }
  renameSync(join(work, "root"), root);
  rmSync(work, { recursive: true, force: true });
  writeFileSync(stamp, "");
  return root;
}

/**
 * The shared libraries of a program of an unpacked root, found in that root.
 * @returns paths inside the root, the loader included.
 */
export async function librariesIn(root: string, program: string): Promise<string[]> {
  const triple = readdirSync(join(root, "lib")).find((name) => name.endsWith("-linux-gnu"));
  if (!triple) throw new SkeinError("internal", `no C library in ${root}`);
  const paths = [`lib/${triple}`, `usr/lib/${triple}`].map((dir) => join(root, dir));
  const loader = ["lib64", "lib", `lib/${triple}`]
    .map((dir) => join(root, dir))
    .filter((dir) => existsSync(dir))
    .flatMap((dir) => readdirSync(dir).map((name) => join(dir, name)))
    .find((path) => /\/ld-linux[^/]*\.so\.\d$/.test(path));
  if (!loader) throw new SkeinError("internal", `no program loader in ${root}`);
  const listed = await run([loader, "--library-path", paths.join(":"), "--list", join(root, program)]);
  if (listed.code !== 0) throw new SkeinError("internal", `${program}: ${listed.stderr.trim()}`);
  const found: string[] = [];
  for (const line of listed.stdout.split("\n")) {
    const path = /(?:=>\s+|^\s*)(\/\S+)\s+\(0x/.exec(line)?.[1];
    if (path?.startsWith(`${root}/`)) found.push(path.slice(root.length + 1));
    else if (path?.includes("/ld-linux")) found.push(loader.slice(root.length + 1));
  }
  return [...new Set(found)];
}

/**
 * Small images from Debian packages, for machines that reach no registry: a BusyBox userland with the
 * libraries it needs, and a page that tells its host's name and its client's address.
 */
import { createWriteStream, mkdirSync, readFileSync, renameSync } from "node:fs";
import { dirname } from "node:path";
import { pipeline } from "node:stream/promises";
import { type Pack, pack } from "tar-stream";
import { SkeinError } from "../../base/errors.ts";
import { run } from "../process.ts";
import { librariesOf, realFile } from "./elf.ts";

const busybox = "/bin/busybox";
/** Fixed, so that the same packages give the same image id. */
const mtime = new Date(0);

const page = `#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "Hello from $(hostname)"
echo "client $REMOTE_ADDR"
`;

const files: Record<string, string> = {
  "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
  "etc/group": "root:x:0:\nnogroup:x:65534:\n",
  "etc/nsswitch.conf": "hosts: files dns\n",
  "etc/services": "http 80/tcp\nhttps 443/tcp\ndomain 53/tcp\ndomain 53/udp\n",
};

class Rootfs {
  readonly tar: Pack = pack();
  readonly #dirs = new Set<string>();

  dir(path: string, mode = 0o755): void {
    if (path === "." || this.#dirs.has(path)) return;
    this.dir(dirname(path));
    this.#dirs.add(path);
    this.tar.entry({ name: `${path}/`, type: "directory", mode, mtime });
  }

  file(path: string, content: string | Buffer, mode = 0o644): void {
    this.dir(dirname(path));
    this.tar.entry({ name: path, mode, mtime }, content);
  }

  link(path: string, target: string): void {
    this.dir(dirname(path));
    this.tar.entry({ name: path, type: "symlink", linkname: target, mtime });
  }
}

/** Writes the root file system of the lab's image as a tar archive. */
export async function buildRootfs(target: string): Promise<void> {
  const applets = (await run([busybox, "--list"])).stdout.split("\n").filter((name) => /^[\w[-]+$/.test(name));
  if (applets.length === 0) {
    throw new SkeinError("notFound", `${busybox} is missing`, { hint: "install Debian's package busybox" });
  }
  const root = new Rootfs();
  for (const dir of ["bin", "etc", "lib", "lib64", "proc", "root", "sys", "dev", "run", "usr/bin", "usr/sbin", "var"]) {
    root.dir(dir);
  }
  root.dir("tmp", 0o1777);
  root.file("bin/busybox", readFileSync(busybox), 0o755);
  for (const applet of applets) if (applet !== "busybox") root.link(`bin/${applet}`, "busybox");
  for (const library of await librariesOf(busybox)) {
    root.file(library.slice(1), readFileSync(realFile(library)), 0o755);
  }
  for (const [path, content] of Object.entries(files)) root.file(path, content);
  root.file("www/cgi-bin/index.cgi", page, 0o755);
  root.tar.finalize();
  mkdirSync(dirname(target), { recursive: true });
  await pipeline(root.tar, createWriteStream(`${target}.part`));
  renameSync(`${target}.part`, target);
}

/** The images made of it: name and the `docker import --change` lines. */
export const images: readonly { name: string; changes: readonly string[] }[] = [
  { name: "skein/box:latest", changes: ['CMD ["sh"]', "ENV PATH=/bin:/usr/bin:/usr/sbin"] },
  {
    name: "skein/hello:latest",
    changes: ['CMD ["httpd","-f","-p","80","-h","/www"]', "ENV PATH=/bin:/usr/bin:/usr/sbin", "EXPOSE 80/tcp"],
  },
];

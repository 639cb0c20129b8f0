/** A tiny root file system from the machine's own busybox, as a tar; and a runtime of its own below /tmp. */
import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import type { Readable } from "node:stream";
import { promisify } from "node:util";
import { pack } from "tar-stream";
import { nullLogger } from "../../../src/base/log.ts";
import { removeCgroups } from "../../../src/runtime/cgroup.ts";
import { startRuntime } from "../../../src/runtime/runtime.ts";
import type {
  ContainerSpec,
  OutputChunk,
  Runtime,
  RuntimeOptions,
  StartedProcess,
} from "../../../src/runtime/types.ts";

const applets =
  "sh true false echo cat sleep id env hostname ls mount grep sed head dd stty touch rm mkdir wc ps tr yes kill pwd ip test uname od";

/** The libraries a dynamically linked program needs, its loader among them. */
function librariesOf(program: string): string[] {
  const text = execFileSync("ldd", [program], { encoding: "utf8" });
  return [...text.matchAll(/(\/\S+) \(0x/g)].map(([, path = ""]) => path);
}

export function busyboxTar(extra: Record<string, string> = {}): Readable {
  const tar = pack();
  const dirs = ["bin", "lib", "lib64", "etc", "proc", "sys", "dev", "tmp", "root", "lib/x86_64-linux-gnu"];
  for (const name of dirs) tar.entry({ name: `${name}/`, type: "directory", mode: name === "tmp" ? 0o1777 : 0o755 });
  tar.entry({ name: "bin/busybox", mode: 0o755 }, readFileSync("/usr/bin/busybox"));
  for (const path of librariesOf("/usr/bin/busybox")) {
    tar.entry({ name: path.slice(1), mode: 0o755 }, readFileSync(realpathSync(path)));
  }
  for (const name of applets.split(" ")) tar.entry({ name: `bin/${name}`, type: "symlink", linkname: "busybox" });
  const files: Record<string, string> = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:web:/home/web:/bin/sh\n",
    "etc/group": "root:x:0:\nweb:x:1001:\nlogs:x:50:web\n",
    ...extra,
  };
  for (const [name, content] of Object.entries(files)) tar.entry({ name }, content);
  tar.finalize();
  return tar as unknown as Readable;
}

export interface Bench extends AsyncDisposable {
  readonly dir: string;
  readonly runtime: Runtime;
  readonly cgroupParent: string;
  readonly image: string;
  /** All that containerd keeps, by name: blobs, what is being written, snapshots, leases, images. */
  content(): Promise<string[]>;
  spec(id: string, args: string[], more?: Partial<ContainerSpec>): ContainerSpec;
  killContainerd(): void;
  /** Disposes of the runtime as a daemon that ends does; what ran must have been removed by then. */
  stop(): Promise<void>;
}

/** `place`: a directory for its files; what tmpfs there is under it is the caller's to unmount. */
export async function bench(place = tmpdir(), more: Partial<RuntimeOptions> = {}): Promise<Bench> {
  const dir = mkdtempSync(`${place}/rt-`);
  const cgroupParent = `/skein-test${dir.slice(dir.lastIndexOf("/"))}`;
  const options = { root: `${dir}/root`, run: `${dir}/run`, cgroupParent, ...more };
  const runtime = await startRuntime(options, nullLogger);
  const image = await runtime.images.importTar(busyboxTar(), { reference: "box" });
  let disposed = false;
  const stop = async () => {
    disposed = true;
    await runtime[Symbol.asyncDispose]();
  };
  const spec: Bench["spec"] = (id, args, more = {}) => specOf(image, id, args, more);
  return {
    dir,
    runtime,
    image,
    cgroupParent,
    spec,
    async content() {
      const address = `${dir}/run/containerd/containerd.sock`;
      const kinds = ["content ls -q", "content active", "snapshots ls", "leases ls -q", "images ls -q"];
      const all = await Promise.all(
        kinds.map(async (kind) => {
          const words = ["--address", address, "--namespace", "skein", ...kind.split(" ")];
          const { stdout } = await promisify(execFile)("ctr", words);
          return stdout.split("\n").map((line) => `${kind}: ${line.trim().split(/\s+/)[0]}`);
        }),
      );
      return all.flat().sort();
    },
    killContainerd() {
      process.kill(Number(readFileSync(`${dir}/run/containerd/containerd.pid`, "utf8")), "SIGKILL");
    },
    stop,
    async [Symbol.asyncDispose]() {
      if (!disposed) {
        for (const { id } of await runtime.list()) await runtime.remove(id);
        await stop();
      }
      removeCgroups(cgroupParent, { deep: true });
      removeCgroups("/skein-test");
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

export function specOf(imageId: string, id: string, args: string[], more: Partial<ContainerSpec> = {}): ContainerSpec {
  return {
    id,
    imageId,
    hostname: id.slice(0, 12),
    args,
    env: [],
    cwd: "/",
    user: "",
    tty: false,
    openStdin: false,
    labels: {},
    mounts: [],
    ...more,
  };
}

/** Collects what a process says until it is drained. */
export function collect(process: StartedProcess): { chunks: OutputChunk[]; text(stream?: string): string } {
  const chunks: OutputChunk[] = [];
  process.io.onOutput((chunk) => chunks.push(chunk));
  return {
    chunks,
    text: (stream) =>
      Buffer.concat(chunks.filter((c) => !stream || c.stream === stream).map((c) => c.data)).toString("utf8"),
  };
}

export async function output(process: StartedProcess): Promise<{ code: number; out: string; err: string }> {
  const all = collect(process);
  const { exitCode } = await process.exit;
  await process.io.drained;
  return { code: exitCode, out: all.text("stdout"), err: all.text("stderr") };
}

/** The system's tar on an open directory, which it gets as descriptor 3. */
import { type ChildProcess, spawn } from "node:child_process";
import { PassThrough } from "node:stream";
import { pipeline } from "node:stream/promises";
import { invalid } from "../../base/errors.ts";

const MAX_WORDS = 4096;

function done(child: ChildProcess): Promise<void> {
  let words = "";
  child.stderr?.on("data", (chunk: Buffer) => {
    if (words.length < MAX_WORDS) words += chunk.toString();
  });
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => {
      // 1: a file changed while it was read, which a running container's files do.
      if (code === 0 || code === 1) resolve();
      else reject(invalid(`tar: ${words.trim() || `ended with ${code}`}`));
    });
  });
}

/** As Docker: file capabilities and users' own attributes, and no times but whole seconds. */
const attributes = [
  ...["--xattrs", "--xattrs-include=security.capability", "--xattrs-include=user.*"],
  "--pax-option=delete=atime,delete=ctime,delete=mtime",
];

/** Archives `name` of the directory `fd` into `out`. */
export async function pack(fd: number, name: string, out: PassThrough, options: readonly string[] = []): Promise<void> {
  const child = spawn(
    "tar",
    ["--create", "--file=-", "--numeric-owner", ...attributes, ...options, "-C", "/proc/self/fd/3", "--", name],
    {
      stdio: ["ignore", "pipe", "pipe", fd],
    },
  );
  const ended = done(child);
  ended.catch(() => {});
  if (child.stdout) {
    try {
      await pipeline(child.stdout, out, { end: false });
    } catch (error) {
      child.kill();
      throw error;
    }
  }
  await ended;
}

/** A stream that `work` fills; ends or fails with it. */
export function filled(work: (out: PassThrough) => Promise<void>): PassThrough {
  const out = new PassThrough();
  work(out).then(
    () => out.end(),
    (error) => out.destroy(error instanceof Error ? error : new Error(String(error))),
  );
  return out;
}

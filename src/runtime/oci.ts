/** The OCI runtimes of this host: programs that make a container of a bundle. */
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { invalid } from "../base/errors.ts";

export interface OciRuntime {
  readonly name: string;
  /** Absolute path of the program. */
  readonly path: string;
}

/**
 * In order of preference. crun starts faster, but where controllers of both cgroup versions are in use (a hybrid host) it
 * starts nothing at all, and says so only then: it is used where it is alone, or asked for.
 */
const known = ["runc", "crun"];
/** What Docker calls the shim that runs runc. */
const aliases: Readonly<Record<string, string>> = { "io.containerd.runc.v2": "runc" };

/** Those that are installed, the default first. `preferred` must be among them. */
export function findRuntimes(preferred?: string, path = process.env.PATH ?? ""): OciRuntime[] {
  const found = known.flatMap((name) => {
    const program = path
      .split(delimiter)
      .filter((dir) => dir.startsWith("/"))
      .map((dir) => join(dir, name))
      .find(isProgram);
    return program ? [{ name, path: program }] : [];
  });
  if (preferred === undefined) return found;
  const first = found.find(({ name }) => name === preferred);
  if (!first) {
    const names = found.map(({ name }) => name).join(", ") || "none";
    throw invalid(`--default-runtime ${preferred}: not found; there are: ${names}`);
  }
  return [first, ...found.filter((one) => one !== first)];
}

/** The runtime that a user means; "" is the default. Throws Docker's words. */
export function runtimeNamed(runtimes: readonly OciRuntime[], name: string): OciRuntime {
  const found = name === "" ? runtimes[0] : runtimes.find((one) => one.name === (aliases[name] ?? name));
  if (found) return found;
  if (name === "") throw invalid("no OCI runtime is installed: runc or crun");
  throw invalid(`unknown or invalid runtime name: ${name}`);
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

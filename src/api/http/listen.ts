import { chmodSync, chownSync, lstatSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import type { Server } from "node:http";
import { connect } from "node:net";
import { dirname } from "node:path";
import { conflict, errnoOf } from "../../base/errors.ts";

/** Group id of `docker` in an /etc/group text, if there is such a group. */
export function groupId(groupFile: string, name: string): number | undefined {
  for (const line of groupFile.split("\n")) {
    const [group, , gid] = line.split(":");
    if (group === name && gid !== undefined && /^\d+$/.test(gid)) return Number(gid);
  }
  return undefined;
}

/** True when somebody answers on the socket. */
function alive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => resolve(false));
  });
}

/** Throws when the path cannot become our socket: something else is there, or a living daemon listens on it. */
export async function assertFree(path: string): Promise<void> {
  try {
    if (!lstatSync(path).isSocket()) throw conflict(`${path} is there and is not a socket`);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return;
    throw error;
  }
  if (await alive(path)) throw conflict(`another daemon is listening on ${path}`);
}

/**
 * Listens on a unix socket, mode 0660, group docker where it exists. A socket file left by a dead daemon is replaced;
 * one with a living daemon behind it is refused.
 */
export async function listenUnix(server: Server, path: string): Promise<void> {
  mkdirSync(dirname(path), { recursive: true });
  await assertFree(path);
  rmSync(path, { force: true });
  // Nobody but root may connect before the mode is set.
  const mask = process.umask(0o177);
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(path, () => {
        server.removeListener("error", reject);
        resolve();
      });
    });
  } finally {
    process.umask(mask);
  }
  chmodSync(path, 0o660);
  const gid = readGroup();
  if (gid !== undefined && process.getuid?.() === 0) chownSync(path, 0, gid);
}

function readGroup(): number | undefined {
  try {
    return groupId(readFileSync("/etc/group", "utf8"), "docker");
  } catch {
    return undefined;
  }
}

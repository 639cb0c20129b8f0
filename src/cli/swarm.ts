/**
 * A manager's state kept and put back. Both work on the files of a host whose `skeind` is stopped; its containers run on.
 * The archive is a plain tar of `DATA-ROOT/swarm`: the store, certificates, keys. Whoever has it is a manager, so it is
 * made for root only; of a swarm with autolock the keys in it stay locked.
 */
import { spawnSync } from "node:child_process";
import { chmodSync, closeSync, existsSync, mkdirSync, openSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { Command } from "commander";
import { errnoOf, invalid, notFound, SkeinError } from "../base/errors.ts";

const DATABASE = "swarm/etcd/data/member/snap/db";

export function swarmCommand(): Command {
  const command = new Command("swarm").description("keep the state of a swarm's manager, and put it back");
  const dataRoot = ["--data-root <dir>", "the state of the host's skeind", "/var/lib/skein"] as const;
  command
    .command("backup <file>")
    .description("write the state of this host's manager into a new file; skeind must be stopped")
    .option(...dataRoot)
    .action((file: string, options: { dataRoot: string }) => {
      backup(options.dataRoot, resolve(file));
      process.stdout.write(`${file}: whoever has it has the swarm; keep it as you keep keys\n`);
    });
  command
    .command("restore <file>")
    .description("put a manager's state where there is none; skeind must be stopped")
    .option(...dataRoot)
    .action((file: string, options: { dataRoot: string }) => {
      restore(options.dataRoot, resolve(file));
      process.stdout.write(
        "restored. Start skeind; where the other managers are lost: docker swarm init --force-new-cluster\n",
      );
    });
  return command;
}

function backup(dataRoot: string, file: string): void {
  if (!existsSync(join(dataRoot, DATABASE))) {
    throw new SkeinError("notFound", `there is no manager's state in ${join(dataRoot, "swarm")}`, {
      hint: "back up a manager; a worker has nothing that a new join would not give it",
    });
  }
  checkUnused(dataRoot);
  const part = `${file}.part`;
  try {
    // Made before anything is in it: never readable by others, and never in the place of another backup.
    closeSync(openSync(file, "wx", 0o600));
  } catch (error) {
    if (errnoOf(error) === "EEXIST")
      throw new SkeinError("conflict", `${file} exists`, { hint: "choose another name" });
    throw error;
  }
  try {
    closeSync(openSync(part, "w", 0o600));
    tar("--create", "--file", part, "--directory", dataRoot, "swarm");
    renameSync(part, file);
  } catch (error) {
    for (const path of [part, file]) rmSync(path, { force: true });
    throw error;
  }
}

function restore(dataRoot: string, file: string): void {
  if (!existsSync(file)) throw notFound(`there is no file ${file}`);
  const place = join(dataRoot, "swarm");
  if (existsSync(place) && readdirSync(place).length > 0) {
    throw new SkeinError("conflict", `${place} holds the state of a swarm already`, {
      hint: "leave that swarm (docker swarm leave --force) or move it away first",
    });
  }
  const names = tar("--list", "--file", file).split("\n");
  if (!names.includes(DATABASE) || names.some((name) => name !== "" && !/^swarm\/(?!.*(^|\/)\.\.(\/|$))/.test(name))) {
    throw invalid(`${file} is no backup of a manager`);
  }
  const part = join(dataRoot, ".swarm-restore");
  rmSync(part, { recursive: true, force: true });
  mkdirSync(part, { recursive: true, mode: 0o700 });
  try {
    tar("--extract", "--file", file, "--directory", part, "--same-permissions");
    chmodSync(join(part, "swarm"), 0o700);
    rmSync(place, { recursive: true, force: true });
    renameSync(join(part, "swarm"), place);
  } finally {
    rmSync(part, { recursive: true, force: true });
  }
}

/** Throws while etcd has its database open: what is copied from under it would be torn. */
function checkUnused(dataRoot: string): void {
  const { status } = spawnSync("flock", ["--nonblock", join(dataRoot, DATABASE), "true"]);
  if (status !== 0) {
    throw new SkeinError("conflict", `the swarm's state in ${dataRoot} is in use`, {
      hint: "stop skeind first (after a kill -9 its etcd is still there: start it, then stop it); containers run on",
    });
  }
}

function tar(...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync("tar", args, { encoding: "utf8" });
  if (status === 0) return stdout;
  throw new SkeinError("internal", `tar: ${stderr?.trim() || error?.message}`);
}

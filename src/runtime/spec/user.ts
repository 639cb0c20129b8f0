/** From "user[:group]" to numbers, by the container's own /etc/passwd and /etc/group. Pure. */
import { invalid } from "../../base/errors.ts";
import type { OciUser } from "./oci.ts";

interface Account {
  name: string;
  uid: number;
  gid: number;
  home: string;
}

interface Group {
  name: string;
  gid: number;
  members: string[];
}

const maxId = 2 ** 31 - 1;

function rows(text: string): string[][] {
  return text
    .split("\n")
    .filter((line) => line && !line.startsWith("#"))
    .map((line) => line.split(":"));
}

const number = (text: string | undefined): number => (text && /^\d+$/.test(text) ? Number(text) : Number.NaN);

function accounts(passwd: string): Account[] {
  return rows(passwd)
    .map(([name = "", , uid, gid, , home = "/"]) => ({ name, uid: number(uid), gid: number(gid), home }))
    .filter((account) => account.name && !Number.isNaN(account.uid));
}

function groups(group: string): Group[] {
  return rows(group)
    .map(([name = "", , gid, members = ""]) => ({ name, gid: number(gid), members: members.split(",") }))
    .filter((entry) => entry.name && !Number.isNaN(entry.gid));
}

export interface ResolvedUser extends OciUser {
  readonly home: string;
}

/**
 * A name wins over a number. An unknown number stands for itself with group 0; an unknown name is an error.
 * Supplementary groups come from the group file unless a group is given.
 */
export function resolveUser(
  user: string,
  extraGroups: readonly string[],
  files: { passwd: string; group: string },
): ResolvedUser {
  const [userPart = "", groupPart = ""] = user.split(":", 2);
  const known = accounts(files.passwd);
  const knownGroups = groups(files.group);
  const wanted = userPart || "0";
  const account = known.find((a) => a.name === wanted) ?? known.find((a) => a.uid === number(wanted));
  const uid = account?.uid ?? number(wanted);
  if (Number.isNaN(uid)) throw invalid(`unable to find user ${userPart}: no matching entries in passwd file`);
  checkRange(uid);

  let gid = account?.gid ?? 0;
  let additional: number[] = [];
  if (groupPart) gid = groupId(groupPart, knownGroups);
  else if (account) {
    additional = knownGroups.filter((g) => g.gid !== gid && g.members.includes(account.name)).map((g) => g.gid);
  }
  additional.push(...extraGroups.map((group) => groupId(group, knownGroups)));
  // As in Docker, the process's own group is among its supplementary ones.
  const all = [...new Set([gid, ...additional])];
  return { uid, gid, additionalGids: all, home: account?.home || "/" };
}

function groupId(wanted: string, known: readonly Group[]): number {
  const gid = known.find((g) => g.name === wanted)?.gid ?? number(wanted);
  if (Number.isNaN(gid)) throw invalid(`unable to find group ${wanted}: no matching entries in group file`);
  checkRange(gid);
  return gid;
}

function checkRange(id: number): void {
  if (id > maxId) throw invalid("uids and gids must be in range 0-2147483647");
}

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";

const skein = (...args: string[]) => execFileSync("bin/skein", args, { encoding: "utf8" });

/** What bash offers after the words of a line, the last of which is being typed. */
function complete(...words: string[]): string[] {
  const script = `${skein("completion", "bash")}
skein() {
  case "$*" in
    "show networks") printf 'NAME ID\\nskein-net abc\\ningress def\\n' ;;
    *) printf 'manager\\tx\\nworker-1\\tx\\n' ;;
  esac
}
COMP_WORDS=(${words.map((word) => `"${word}"`).join(" ")})
COMP_CWORD=${words.length - 1}
_skein
printf '%s\\n' "\${COMPREPLY[@]}"`;
  return execFileSync("bash", ["-c", script], { encoding: "utf8" }).trim().split("\n");
}

test("bash completes commands, options and hosts", () => {
  assert.ok(complete("skein", "la").includes("lab"));
  const lab = complete("skein", "lab", "");
  for (const command of ["up", "down", "ls", "ssh", "exec", "unplug", "plug"])
    assert.ok(lab.includes(command), command);
  assert.deepEqual(complete("skein", "lab", "up", "--sub"), ["--subnet"]);
  assert.deepEqual(complete("skein", "lab", "ssh", "work"), ["worker-1"]);
  assert.deepEqual(complete("skein", "show", "gos"), ["gossip"]);
  assert.deepEqual(complete("skein", "show", "network", "sk"), ["skein-net"]);
  assert.deepEqual(complete("skein", "show", "network", "--j"), ["--json"]);
});

test("the manual page names every command and renders without a complaint", () => {
  const page = skein("man");
  for (const command of [
    "skein start",
    "skein lab up",
    "skein lab ssh",
    "skein show",
    "skein show network",
    "skein trace",
    "skein completion",
  ]) {
    assert.ok(page.includes(`.B ${command}`), command);
  }
});

test("an unknown command is an error that names it", () => {
  assert.throws(() => execFileSync("bin/skein", ["nix"], { stdio: "pipe" }), /unknown command 'nix'/);
});

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const skein = (...args: string[]) => execFileSync("bin/skein", args, { encoding: "utf8" });

const completion = skein("completion", "bash");

/** What bash offers after the words of a line, the last of which is being typed. */
function complete(...words: string[]): string[] {
  const script = `${completion}
skein() {
  case "$*" in
    "show networks") printf 'NAME ID\\nskein-net abc\\ningress def\\n' ;;
    "lab ls") printf 'HOST ADDRESS\\nmanager x\\nworker-1 x\\n' ;;
    *) echo "asked for $*" >&2 ;;
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
  assert.deepEqual(complete("skein", "completion", "z"), ["zsh"]);
  assert.deepEqual(complete("skein", "lab", "images", "--from", "p"), ["packages"]);
});

test("zsh, which completes with the same script, gives none of its variables a meaning of its own", () => {
  for (const name of ["path", "status", "argv", "options", "commands", "functions", "signals"])
    assert.doesNotMatch(completion, new RegExp(`\\b${name}=`), name);
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
  assert.match(page, /^\.B \\-\\-hosts <n>\nnumber of hosts \(default: 3\)$/m);
});

for (const [words, expected] of [
  [["nix"], /^skein: unknown command 'nix'\n.*skein --help$/],
  [["show", "nix"], /^skein: unknown command 'nix'\n.*skein show --help$/],
  [["lab", "ups"], /^skein: unknown command 'ups'\n\(Did you mean up\?\)\n.*skein lab --help$/],
  [["lab", "ssh"], /^skein: missing required argument 'host'\n.*skein lab ssh --help$/],
  [["lab", "up", "--hots"], /^skein: unknown option '--hots'\n\(Did you mean --hosts\?\)\n.*skein lab up --help$/],
] as const) {
  test(`"skein ${words.join(" ")}" is an error that names it and says where the right words are`, () => {
    const { status, stderr } = spawnSync("bin/skein", words, { encoding: "utf8" });
    assert.equal(status, 1);
    assert.match(stderr.trimEnd(), expected);
  });
}

test("the version is the package's", () => {
  assert.equal(skein("--version").trim(), JSON.parse(readFileSync("package.json", "utf8")).version);
});

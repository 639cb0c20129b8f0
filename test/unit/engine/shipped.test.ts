/** What is shipped beside the program: the systemd unit, and the page of settings, which must be those that there are. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { fromFile, helpText, readSettings, settings } from "../../../src/engine/daemon/settings.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const analyze = spawnSync("systemd-analyze", ["--version"]).status === 0;

test("the systemd unit is one", { skip: analyze ? false : "there is no systemd-analyze on this machine" }, () => {
  const dir = mkdtempSync(join(tmpdir(), "skein-unit-"));
  try {
    const unit = readFileSync(join(root, "etc/skeind.service"), "utf8");
    assert.match(unit, /^KillMode=process$/m, "containers outlive the daemon");
    assert.match(unit, /^Delegate=yes$/m);
    const here = unit.replaceAll("/opt/skein/", root);
    assert.notEqual(here, unit);
    const path = join(dir, "skeind.service");
    writeFileSync(path, here);
    const { status, stdout, stderr } = spawnSync("systemd-analyze", ["verify", "--man=no", path], { encoding: "utf8" });
    // Of other units on this machine it may complain as well.
    const ours = `${stdout}${stderr}`.split("\n").filter((line) => line.includes("skeind"));
    assert.deepEqual(ours, []);
    assert.ok(status !== null);
    writeFileSync(path, here.replace("KillMode=process", "KillMode=nonsense"));
    const bad = spawnSync("systemd-analyze", ["verify", "--man=no", path], { encoding: "utf8" });
    assert.match(`${bad.stdout}${bad.stderr}`, /skeind\.service.*nonsense/, "the check can fail");
  } finally {
    rmSync(dir, { recursive: true });
  }
});

/** The table of docs/settings.md. */
function table(): string {
  const rows = settings.map(({ name, short, kind, value, fallback, alias, flagOnly, help }) => {
    const flag = [short && `\`-${short}\``, `\`--${name}\``, alias && `\`--${alias}\``].filter(Boolean).join(", ");
    const json = { text: "text", list: "list of texts", switch: "true or false" }[kind];
    const given = value.replaceAll("|", "\\|");
    return `| ${flag}${given ? ` ${given}` : ""} | ${flagOnly ? "—" : `\`${name}\`: ${json}`} | ${fallback ?? ""} | ${help} |`;
  });
  return ["| flag | in the file | default | |", "|---|---|---|---|", ...rows].join("\n");
}

test("docs/settings.md has every setting; SKEIN_GOLDEN=1 writes its table anew", () => {
  const path = join(root, "docs/settings.md");
  const [head = "", ...rest] = readFileSync(path, "utf8").split("\n\n|");
  const after = rest.join("\n\n|").split("\n\n").slice(1);
  const wanted = [`${head}\n`, `${table()}\n`, after.join("\n\n")].join("\n");
  if (process.env.SKEIN_GOLDEN === "1") writeFileSync(path, wanted);
  assert.equal(readFileSync(path, "utf8"), wanted);
});

test("docs/dependencies.md names each package that is installed, with its version, and no other", () => {
  const text = readFileSync(join(root, "docs/dependencies.md"), "utf8");
  const cells = text
    .split("\n")
    .flatMap((line) => (/^\| `/.test(line) ? [line.split("|").map((cell) => cell.trim())] : []));
  const told = cells.flatMap(([, names = "", versions = ""]) =>
    [...names.matchAll(/`([^`]+)`/g)].map(([, name], at, all): [string, string] => {
      const each = versions.split(", ");
      return [name ?? "", (each.length === all.length ? each[at] : each[0]) ?? ""];
    }),
  );
  const manifest: Record<string, Record<string, string>> = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const npm = { ...manifest.dependencies, ...manifest.optionalDependencies, ...manifest.devDependencies };
  const setup = readFileSync(join(root, "bin/setup"), "utf8");
  const debian = [...setup.matchAll(/^ *packages="(.*)"$/gm)].flatMap(([, names = ""]) => names.split(" "));
  const wanted = [...Object.keys(npm), ...debian.filter((name) => name !== "$packages"), "docker-cli", "docker.io"];
  assert.deepEqual([...new Set(told.map(([name]) => name))].sort(), [...new Set(wanted)].sort());
  for (const [name, version] of told) if (name in npm) assert.equal(version, npm[name], name);
});

test("every setting is told by --help, and taken from the file by its name", () => {
  const help = helpText();
  for (const { name, kind, flagOnly, alias, short } of settings) {
    assert.match(help, new RegExp(`--${name}\\b`));
    for (const key of [name, ...(alias ? [alias] : [])]) {
      const text = JSON.stringify({ [key]: kind === "switch" ? true : kind === "list" ? ["x"] : "x" });
      if (flagOnly) assert.throws(() => fromFile(text, "f"), /unknown setting/);
      else assert.deepEqual([...fromFile(text, "f").keys()], [name]);
    }
    if (short) assert.match(help, new RegExp(`-${short}, --${name}\\b`));
  }
  assert.deepEqual(readSettings(["--help"]), { print: "help" });
  assert.deepEqual(readSettings(["-v"]), { print: "version" });
});

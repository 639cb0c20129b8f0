/**
 * Runs every check and every test and prints `N passed, N failed` last.
 *
 * Order: format, lint and types; unit tests, two files at a time; then what needs root and the machine
 * (namespaces, real peers, labs), one file at a time. `test/run.ts PATTERN…` runs the files whose path contains one.
 */
import { spawnSync } from "node:child_process";
import { globSync } from "node:fs";
import { cpus } from "node:os";
import { relative } from "node:path";
import { run } from "node:test";

const root = new URL("..", import.meta.url).pathname;
process.chdir(root);
const patterns = process.argv.slice(2);
const counts = { passed: 0, failed: 0, skipped: 0 };
const failures: string[] = [];
const flaky: string[] = [];

function note(name: string, ok: boolean, ms: number, detail = ""): void {
  counts[ok ? "passed" : "failed"]++;
  if (!ok) failures.push(name);
  console.log(
    `${ok ? "ok  " : "FAIL"} ${name} (${Math.round(ms)} ms)${detail && `\n${detail.replace(/^/gm, "       ")}`}`,
  );
}

function check(name: string, command: string, ...args: string[]): void {
  const start = performance.now();
  const { status, stdout, stderr } = spawnSync(`node_modules/.bin/${command}`, args, { encoding: "utf8" });
  note(name, status === 0, performance.now() - start, status === 0 ? "" : `${stdout}${stderr}`.trim());
}

async function tests(title: string, files: string[], concurrency: number): Promise<void> {
  if (files.length === 0) return;
  console.log(`\n# ${title}`);
  const stream = run({ files, concurrency, timeout: 600_000, execArgv: ["--disable-warning=ExperimentalWarning"] });
  const lastNesting = new Map<string, number>();
  for await (const event of stream) {
    if (event.type === "test:pass" || event.type === "test:fail") {
      const { name, nesting, details, file, skip, todo } = event.data;
      const isFile = nesting === 0 && file !== undefined && name === file;
      // A test made of subtests is counted by them, unless it failed on its own.
      const ofSubtests = nesting < (lastNesting.get(file ?? "") ?? 0);
      lastNesting.set(file ?? "", nesting);
      if (details.type === "suite" || (isFile && event.type === "test:pass")) continue;
      if (ofSubtests && (event.type === "test:pass" || event.data.details.error.failureType === "subtestsFailed"))
        continue;
      const where = `${relative(root, file ?? "")}: ${name}`;
      if (skip !== undefined && skip !== false) {
        counts.skipped++;
        console.log(`skip ${where} (${typeof skip === "string" ? skip : "skipped"})`);
      } else if (todo === undefined || todo === false) {
        const error =
          event.type === "test:fail" ? (event.data.details.error.cause ?? event.data.details.error) : undefined;
        const text = error instanceof Error ? (error.stack ?? error.message) : String(error ?? "");
        note(where, event.type === "test:pass", details.duration_ms, text);
      }
    } else if (event.type === "test:stderr" && process.env.SKEIN_TEST_OUTPUT) {
      process.stderr.write(event.data.message);
    }
  }
}

/**
 * Files that drive daemons, peers and labs in real time, one after another. One that fails is run once more, because a
 * machine that stalls for seconds breaks their deadlines; that it was needed is told, in the log and at the end.
 */
async function onThisMachine(files: string[]): Promise<void> {
  for (const file of files) {
    const before = { ...counts };
    const known = failures.length;
    await tests(file, [file], 1);
    if (failures.length === known) continue;
    const first = failures.splice(known);
    Object.assign(counts, before);
    console.log(`# ${file} again: ${first.length} failed`);
    await tests(file, [file], 1);
    if (failures.length === known) flaky.push(...first);
  }
}

const wanted = (file: string) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern));
const all = globSync("test/**/*.test.ts").sort().filter(wanted);
const needsMachine = (file: string) => file.endsWith(".root.test.ts") || !file.startsWith("test/unit/");
const started = performance.now();

if (patterns.length === 0) {
  check("format", "biome", "format", ".");
  check("lint, import rule included", "biome", "lint", "--error-on-warnings", ".");
  check("types", "tsc", "--noEmit");
}
await tests(
  "unit",
  all.filter((file) => !needsMachine(file)),
  Math.min(2, cpus().length),
);
await onThisMachine(all.filter(needsMachine));

console.log(`\n${Math.round((performance.now() - started) / 1000)} s`);
for (const name of flaky) console.log(`passed only when run again: ${name}`);
for (const failure of failures) console.log(`failed: ${failure}`);
console.log(`${counts.passed} passed, ${counts.failed} failed${counts.skipped ? `, ${counts.skipped} skipped` : ""}`);
process.exit(counts.failed === 0 && counts.passed > 0 ? 0 : 1);

/**
 * Runs every check and every test and prints `N passed, N failed` last.
 *
 * Order: format, lint and types; unit tests, two files at a time; then what needs root and the machine (namespaces, real
 * peers, labs), in three lanes: two for files that work, one for files that mostly wait. Files that hold the machine to a
 * time have the two lanes for themselves. What takes longest begins first.
 * `test/run.ts PATTERN…` runs the files whose path contains one.
 */
import { spawnSync } from "node:child_process";
import { globSync } from "node:fs";
import { cpus } from "node:os";
import { relative } from "node:path";
import { run } from "node:test";
import { archiveOf, collections } from "../src/lab/image/library.ts";
import { imageCache } from "../src/lab/tour.ts";

const root = new URL("..", import.meta.url).pathname;
process.chdir(root);
// No test depends on what a registry has, or on how long it takes to find out that there is none.
process.env.SKEIN_LAB_OFFLINE = "1";
const patterns = process.argv.slice(2);

/** Files that hold the machine to a time: beside them only files that wait. */
const ALONE = ["test/e2e/failover.", "test/e2e/updates."];

/** Files that mostly wait, for timers of real peers that nobody can shorten; those that work least first, beside `ALONE`. */
const WAITING = [
  "test/interop/gossip/",
  "test/interop/dockerd-manager.",
  "test/interop/dockerd-gossip.",
  "test/e2e/external-ca.",
  "test/swarm/root-rotation.",
  "test/interop/mixed-",
  "test/walk/004-",
];

/** Files of a minute and more, and what a lane ends with would otherwise run alone: the longest first, all others after. */
const LONGEST = [
  "test/unit/swarm/manager.",
  "test/unit/gossip/convergence.",
  "test/unit/network/mesh.root.",
  "test/e2e/churn.",
  "test/e2e/managers.",
  "test/walk/003-",
  "test/e2e/services.",
  "test/e2e/faults.",
  "test/walk/000-",
  "test/e2e/",
];

interface Result {
  passed: number;
  skipped: number;
  readonly failures: string[];
}

/** How long each file on this machine took, from its first import to its last cleaning up. */
const took: { file: string; seconds: number }[] = [];
const total: Result = { passed: 0, skipped: 0, failures: [] };
const flaky: string[] = [];

function add({ passed, skipped, failures }: Result): void {
  total.passed += passed;
  total.skipped += skipped;
  total.failures.push(...failures);
}

function line(name: string, ok: boolean, ms: number, detail = ""): string {
  return `${ok ? "ok  " : "FAIL"} ${name} (${Math.round(ms)} ms)${detail && `\n${detail.replace(/^/gm, "       ")}`}`;
}

function check(name: string, command: string, ...args: string[]): void {
  const start = performance.now();
  const { status, stdout, stderr } = spawnSync(`node_modules/.bin/${command}`, args, { encoding: "utf8" });
  const ok = status === 0;
  add({ passed: ok ? 1 : 0, skipped: 0, failures: ok ? [] : [name] });
  console.log(line(name, ok, performance.now() - start, ok ? "" : `${stdout}${stderr}`.trim()));
}

async function tests(files: string[], concurrency: number, print: (text: string) => void): Promise<Result> {
  const result: Result = { passed: 0, skipped: 0, failures: [] };
  if (files.length === 0) return result;
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
        result.skipped++;
        print(`skip ${where} (${typeof skip === "string" ? skip : "skipped"})`);
      } else if (todo === undefined || todo === false) {
        const error =
          event.type === "test:fail" ? (event.data.details.error.cause ?? event.data.details.error) : undefined;
        const text = error instanceof Error ? (error.stack ?? error.message) : String(error ?? "");
        if (event.type === "test:pass") result.passed++;
        else result.failures.push(where);
        print(line(where, event.type === "test:pass", details.duration_ms, text));
      }
    } else if (event.type === "test:stderr" && process.env.SKEIN_TEST_OUTPUT) {
      process.stderr.write(event.data.message);
    }
  }
  return result;
}

/** The images that labs load: made once, so that no two files do it. */
async function makeImages(): Promise<void> {
  for (const collection of collections) await archiveOf(imageCache, collection);
}

/** One file; what it prints comes in one piece, so that several at a time can be read. */
async function inOnePiece(file: string): Promise<Result> {
  const lines: string[] = [];
  const began = performance.now();
  const result = await tests([file], 1, (text) => lines.push(text));
  const seconds = Math.round((performance.now() - began) / 1000);
  took.push({ file, seconds });
  console.log([`\n# ${file} (${seconds} s)`, ...lines].join("\n"));
  return result;
}

const isOneOf = (prefixes: string[]) => (file: string) => prefixes.some((prefix) => file.startsWith(prefix));

/** Those of the first prefix first, and last those of none. */
function inOrder(prefixes: string[], files: string[]): string[] {
  const rank = (file: string) => {
    const index = prefixes.findIndex((prefix) => file.startsWith(prefix));
    return index < 0 ? prefixes.length : index;
  };
  return files.toSorted((a, b) => rank(a) - rank(b));
}

function split(files: string[], wanted: (file: string) => boolean): [those: string[], others: string[]] {
  return [files.filter(wanted), files.filter((file) => !wanted(file))];
}

/**
 * Files that drive daemons, peers and labs in real time. One that fails is run once more at the end, alone, because a
 * machine that stalls for seconds breaks its deadlines; that it was needed is told, in the log and at the end.
 */
async function onThisMachine(files: string[], images: Promise<void>): Promise<void> {
  const failed: { file: string; first: Result }[] = [];
  const take = async (queue: string[]) => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const result = await inOnePiece(file);
      if (result.failures.length === 0) add(result);
      else failed.push({ file, first: result });
    }
  };
  const lanes = async (queue: string[]) => {
    await Promise.all(Array.from({ length: Math.min(2, cpus().length) }, () => take(queue)));
  };
  const [waits, works] = split(files, isOneOf(WAITING));
  const waiting = inOrder(WAITING, waits);
  const working = inOrder(LONGEST, works);
  const [withoutImages, withImages] = split(working, (file) => file.startsWith("test/unit/"));
  const [alone, shared] = split(withImages, isOneOf(ALONE));
  await Promise.all([
    images.then(() => take(waiting)),
    lanes(withoutImages)
      .then(() => images)
      .then(() => take(alone))
      .then(() => lanes(shared))
      .then(() => take(waiting)),
  ]);
  for (const { file, first } of failed) {
    console.log(`\n# ${file} again: ${first.failures.length} failed`);
    const second = await inOnePiece(file);
    if (second.failures.length === 0) flaky.push(...first.failures);
    add(second);
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
const [onMachine, unit] = split(all, needsMachine);
// Mostly a wait for packages to arrive, and meanwhile there is enough to do.
const images = (onMachine.length > 1 ? makeImages() : Promise.resolve()).catch((error: unknown) => {
  console.log(line("images", false, performance.now() - started, String(error)));
  add({ passed: 0, skipped: 0, failures: ["images"] });
});
if (unit.length > 0) console.log("\n# unit");
add(await tests(inOrder(LONGEST, unit), Math.min(2, cpus().length), (text) => console.log(text)));
await onThisMachine(onMachine, images);

const { passed, skipped, failures } = total;
console.log(`\n${Math.round((performance.now() - started) / 1000)} s`);
const slowest = took.sort((a, b) => b.seconds - a.seconds).slice(0, 8);
if (slowest.length > 1)
  console.log(`slowest: ${slowest.map(({ file, seconds }) => `${file} ${seconds} s`).join(", ")}`);
for (const name of flaky) console.log(`passed only when run again: ${name}`);
for (const failure of failures) console.log(`failed: ${failure}`);
console.log(`${passed} passed, ${failures.length} failed${skipped ? `, ${skipped} skipped` : ""}`);
process.exit(failures.length === 0 && passed > 0 ? 0 : 1);

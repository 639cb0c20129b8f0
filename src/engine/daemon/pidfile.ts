/** One daemon per run directory: the pid file names it for as long as it lives. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { conflict, errnoOf } from "../../base/errors.ts";

/** Field 22 of /proc/<pid>/stat: tells two processes with one pid apart. Undefined for one that only waits to be reaped. */
function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

/** Takes the pid file; throws when the process it names lives. The returned disposer removes it. */
export function takePidfile(path: string): Disposable {
  try {
    const [pid, started] = readFileSync(path, "utf8").trim().split(/\s+/);
    const number = Number(pid);
    if (number > 0 && number !== process.pid && startTime(number) !== undefined && startTime(number) === started) {
      throw conflict(`another skeind (pid ${number}) is running with ${path}`);
    }
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
  mkdirSync(dirname(path), { recursive: true, mode: 0o711 });
  writeFileSync(path, `${process.pid} ${startTime(process.pid) ?? ""}\n`);
  return { [Symbol.dispose]: () => rmSync(path, { force: true }) };
}

/** Figures side by side: medians and their ratio, with the spread that tells how far to trust them. */
import { performance } from "node:perf_hooks";

export async function timed(job: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await job();
  return performance.now() - start;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

function shown(values: readonly number[]): string {
  const digits = median(values) < 10 ? 2 : 0;
  const [low, mid, high] = [Math.min(...values), median(values), Math.max(...values)];
  return `${mid.toFixed(digits).padStart(8)} [${low.toFixed(digits)}–${high.toFixed(digits)}]`.padEnd(26);
}

/** One line: ours, theirs where there is one, ours / theirs. */
export function row(name: string, unit: string, ours: readonly number[], theirs: readonly number[] = []): void {
  const ratio = theirs.length > 0 ? `× ${(median(ours) / median(theirs)).toFixed(2)}` : "";
  const other = theirs.length > 0 ? shown(theirs) : "".padEnd(26);
  console.log(`${name.padEnd(44)} ${unit.padEnd(5)} skein ${shown(ours)} docker ${other} ${ratio}`);
}

/** Takes turns, so that what else the machine does meets both. Gives the times of each. */
export async function inTurns(
  times: number,
  ...jobs: ((turn: number) => Promise<number>)[]
): Promise<[number[], number[]]> {
  const out: [number[], number[]] = [[], []];
  for (let turn = 0; turn < times; turn++) {
    for (const [index, job] of jobs.entries()) out[index]?.push(await job(turn));
  }
  return out;
}

/**
 * Where the time of `npm start` goes: brings a lab of its own up with the tour, prints each step, takes it down.
 * `bin/node bench/lab.ts [runs]`.
 */
import { down } from "../src/lab/lab.ts";
import { tour } from "../src/lab/tour.ts";

const runs = Number(process.argv[2] ?? 3);
const times = new Map<string, number[]>();
for (let i = 0; i < runs; i++) {
  await down("bench");
  try {
    const { steps } = await tour({ name: "bench", subnet: "10.76.0.0/24", say: () => {} });
    for (const step of [...steps, { name: "total", ms: steps.reduce((sum, one) => sum + one.ms, 0) }]) {
      times.set(step.name, [...(times.get(step.name) ?? []), step.ms]);
    }
  } finally {
    await down("bench");
  }
}
for (const [name, values] of times) {
  const sorted = values.sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)] ?? 0;
  console.log(
    `${(median / 1000).toFixed(2).padStart(7)} s  [${sorted.map((ms) => (ms / 1000).toFixed(2)).join(" ")}]  ${name}`,
  );
}

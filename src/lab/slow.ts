/** Slow cables: what the switch sends towards a host is delayed, lost or throttled, as far as the kernel can. */
import { invalid, SkeinError } from "../base/errors.ts";
import { run } from "./process.ts";
import type { HostSpec } from "./spec.ts";

export interface Shaping {
  /** Milliseconds. */
  readonly delay?: number;
  /** Percent. */
  readonly loss?: number;
  /** Megabits per second. */
  readonly rate?: number;
}

/** The words of `tc qdisc` for a shaping. A rate alone does without netem, which fewer kernels have. */
function qdiscOf(shaping: Shaping): string[] {
  const { delay, loss, rate } = shaping;
  if (delay === undefined && loss === undefined) {
    return rate === undefined ? [] : ["tbf", "rate", `${rate}mbit`, "burst", "32kbit", "latency", "50ms"];
  }
  return [
    "netem",
    ...(delay === undefined ? [] : ["delay", `${delay}ms`]),
    ...(loss === undefined ? [] : ["loss", `${loss}%`]),
    ...(rate === undefined ? [] : ["rate", `${rate}mbit`]),
  ];
}

/**
 * Shapes a host's cable; without any value it is as it was.
 * @throws notImplemented naming the queueing discipline that this kernel lacks.
 */
export async function slowDown(host: HostSpec, shaping: Shaping): Promise<void> {
  if ((shaping.loss ?? 0) > 100) throw invalid(`--loss ${shaping.loss}: a share of packets is at most 100 percent`);
  const qdisc = qdiscOf(shaping);
  await run(["tc", "qdisc", "del", "dev", host.port, "root"]);
  if (qdisc.length === 0) return;
  const { code, stderr } = await run(["tc", "qdisc", "add", "dev", host.port, "root", ...qdisc]);
  if (code === 0) return;
  if (/unknown|not found|No such file/i.test(stderr)) {
    throw new SkeinError("notImplemented", `this kernel has no ${qdisc[0]} queueing discipline (sch_${qdisc[0]})`, {
      hint: qdisc[0] === "netem" ? "--rate alone may work without it" : "load the module, or use another kernel",
    });
  }
  throw new SkeinError("invalid", `tc: ${stderr.trim()}`);
}

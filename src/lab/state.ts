/** What a running lab must remember: its parameters and the processes it started. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import * as z from "zod";
import { readFileIfAny, writeFileAtomic } from "../base/file.ts";

const processRef = z.object({ pid: z.number().int().positive(), startTime: z.string() });
const hostState = z.object({ holder: processRef, init: processRef, daemon: processRef.optional() });
const labState = z.object({
  name: z.string(),
  subnet: z.string(),
  hosts: z.array(z.string()),
  /** Hosts that run something else than skeind. */
  engines: z.record(z.string(), z.enum(["skeind", "dockerd"])).default({}),
  /** Asked by every engine before Docker Hub; "" for none. */
  mirror: z.string().default(""),
  /** False while the lab is being made: what is found then is a half-made lab. */
  complete: z.boolean(),
  running: z.record(z.string(), hostState),
});

/** What serves the Engine API on a host. */
export type EngineKind = "skeind" | "dockerd";

export type LabState = z.infer<typeof labState>;

const file = (name: string) => join("/run/skein", name, "lab.json");

/** The state of a lab, or undefined where there is none. A damaged file counts as a half-made lab of that name. */
export function loadState(name: string): LabState | undefined {
  const text = readFileIfAny(file(name));
  if (text === undefined) return undefined;
  try {
    return labState.parse(JSON.parse(text));
  } catch {
    return { name, subnet: "", hosts: [], engines: {}, mirror: "", complete: false, running: {} };
  }
}

export function saveState(state: LabState): void {
  writeFileAtomic(file(state.name), JSON.stringify(state), 0o644);
}

export function forgetState(name: string): void {
  rmSync(file(name), { force: true });
}

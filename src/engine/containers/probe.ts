import { hexId } from "../../base/id.ts";
import type { EngineContext } from "../context.ts";
import type { Container } from "./container.ts";
import { processEnv } from "./merge.ts";

const MAX_OUTPUT = 4096;

/** Runs a health probe; when the signal aborts, the probe is killed. */
export async function runProbe(
  ctx: EngineContext,
  container: Container,
  args: readonly string[],
  signal: AbortSignal,
): Promise<{ exitCode: number; output: string }> {
  const { config } = container.record;
  const execId = hexId();
  const process = await ctx.runtime.exec(container.id, {
    execId,
    args: [...args],
    env: processEnv(config, config.Hostname),
    cwd: config.WorkingDir || "/",
    user: config.User,
    tty: false,
    stdin: false,
    privileged: false,
  });
  const parts: Buffer[] = [];
  let size = 0;
  process.io.onOutput(({ data }) => {
    if (size < MAX_OUTPUT) parts.push(data.subarray(0, MAX_OUTPUT - size));
    size += data.length;
  });
  const kill = () => void ctx.runtime.kill(container.id, 9, { execId }).catch(() => {});
  signal.addEventListener("abort", kill, { once: true });
  try {
    const { exitCode } = await process.exit;
    await process.io.drained;
    return { exitCode, output: Buffer.concat(parts).toString("utf8") };
  } finally {
    signal.removeEventListener("abort", kill);
  }
}

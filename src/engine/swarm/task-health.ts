/** What the health check of a task's container says, as its events tell it. */
import type { ContainerStatus, Events } from "../types.ts";
import { orAbort } from "./wait.ts";

export type Verdict = "healthy" | "unhealthy" | "ended";

/** What a container's state says of its health; undefined while that is open. One without a check is healthy. */
function verdictOf(state: ContainerStatus | undefined): Verdict | undefined {
  if (!state || (state.status !== "running" && state.status !== "paused")) return "ended";
  if (state.health === "healthy" || state.health === undefined) return "healthy";
  return state.health === "unhealthy" ? "unhealthy" : undefined;
}

/** The first verdict on container `id` that `wanted` takes. `look` gives its present state. */
export async function verdict(
  events: Events,
  id: string,
  look: () => ContainerStatus | undefined,
  wanted: (verdict: Verdict) => boolean,
  signal: AbortSignal,
): Promise<Verdict> {
  let change = Promise.withResolvers<void>();
  const off = events.stream.on((event) => {
    if (event.type === "container" && event.id === id) change.resolve();
  });
  try {
    for (;;) {
      const found = verdictOf(look());
      if (found !== undefined && wanted(found)) return found;
      await orAbort(change.promise, signal);
      change = Promise.withResolvers<void>();
    }
  } finally {
    off();
  }
}

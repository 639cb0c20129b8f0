import type { WaitCondition } from "../types.ts";
import type { Container } from "./container.ts";

/** Resolves with the exit code once the condition holds. */
export function waitFor(container: Container, condition: WaitCondition, signal?: AbortSignal): Promise<number> {
  const met = begin(container, condition);
  if (!signal) return met;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    if (signal.aborted) abort();
    met.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

function begin(container: Container, condition: WaitCondition): Promise<number> {
  const { state } = container.record;
  switch (condition) {
    case "not-running":
      return container.up || state.status === "restarting" ? container.nextExit() : Promise.resolve(state.exitCode);
    case "next-exit":
      return container.nextExit();
    case "removed":
      return container.removed.promise.then(() => container.record.state.exitCode);
  }
}

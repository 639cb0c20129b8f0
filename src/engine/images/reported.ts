import { AsyncQueue } from "../../base/async.ts";

/** Runs work that reports progress by callback as a stream of its reports. */
export async function* reported<T>(work: (report: (item: T) => void) => Promise<void>): AsyncGenerator<T> {
  const queue = new AsyncQueue<T>();
  work((item) => queue.push(item)).then(
    () => queue.end(),
    (error) => queue.fail(error),
  );
  yield* queue;
}

/** `docker events`: a bounded history and a live stream of what happened on this host. */
import { AsyncQueue, Emitter } from "../base/async.ts";
import type { Clock } from "../base/clock.ts";
import { invalid } from "../base/errors.ts";
import { exact, labels, prefix } from "./filters.ts";
import { familiar, parseReference } from "./images/references.ts";
import { parseTimestamp } from "./time.ts";
import type { EngineEvent, Events, Filters, Json } from "./types.ts";

/** As many as dockerd keeps. */
const HISTORY = 256;
/** What a reader may be behind before it is cut off. */
const READER_LIMIT = 10_000;

export function createEvents(clock: Clock): Events {
  const history: EngineEvent[] = [];
  const stream = new Emitter<EngineEvent>();
  return {
    stream,
    emit(event) {
      const full: EngineEvent = { scope: "local", ...event, at: clock.now() };
      history.push(full);
      if (history.length > HISTORY) history.shift();
      stream.emit(full);
    },
    watch({ since, until, filters, signal }) {
      // Refused before the answer begins.
      const from = since ? parseTimestamp(since, clock.now()) : undefined;
      const to = until ? parseTimestamp(until, clock.now()) : undefined;
      if (from !== undefined && to !== undefined && from > to) {
        throw invalid(`\`since\` time (${since}) cannot be after \`until\` time (${until})`);
      }
      return follow(from, to, filters, signal);
    },
  };

  async function* follow(
    from: number | undefined,
    to: number | undefined,
    filters: Filters,
    signal: AbortSignal,
  ): AsyncGenerator<Json> {
    const queue = new AsyncQueue<EngineEvent>(READER_LIMIT);
    const past = from === undefined ? [] : history.filter((event) => event.at >= from);
    const stop = stream.on((event) => queue.push(event));
    const end = () => queue.end();
    const cancelTimer = to === undefined ? () => {} : clock.after(Math.max(0, to - clock.now()), end);
    signal.addEventListener("abort", end, { once: true });
    if (signal.aborted || (to !== undefined && to <= clock.now())) queue.end();
    try {
      for (const event of past) {
        if ((to === undefined || event.at <= to) && matchesEvent(event, filters)) yield eventDocument(event);
      }
      for await (const event of queue) if (matchesEvent(event, filters)) yield eventDocument(event);
    } finally {
      stop();
      cancelTimer();
      signal.removeEventListener("abort", end);
    }
  }
}

/** That something was pruned, and how many bytes it was. */
export function emitPrune({ events }: { events: Events }, type: EngineEvent["type"], reclaimed: number): void {
  events.emit({ type, action: "prune", id: "", attributes: { reclaimed: String(reclaimed) } });
}

/** Filters that mean whom an event is about: by the beginning of its id or name. */
const KINDS = ["container", "network", "volume", "daemon", "plugin", "service", "node", "secret", "config"];

export function matchesEvent(event: EngineEvent, filters: Filters): boolean {
  const { id, type, action, attributes, scope } = event;
  const image = attributes[type === "image" ? "name" : "image"] ?? "";
  return (
    exact(filters, "event", action, action.split(":")[0] ?? "") &&
    exact(filters, "type", type) &&
    exact(filters, "scope", scope) &&
    // An image is meant whole, or without its tag.
    exact(filters, "image", id, image, repositoryOf(id), repositoryOf(image)) &&
    labels(filters, attributes) &&
    KINDS.every((kind) => prefix(filters, kind, id, attributes.name ?? ""))
  );
}

function repositoryOf(name: string): string {
  try {
    return familiar(parseReference(name).repository);
  } catch {
    return name;
  }
}

function eventDocument(event: EngineEvent): Json {
  const legacy =
    event.type === "container" || event.type === "image"
      ? {
          status: event.action,
          id: event.id,
          ...(event.attributes.image !== undefined && { from: event.attributes.image }),
        }
      : {};
  return {
    ...legacy,
    Type: event.type,
    Action: event.action,
    Actor: { ID: event.id, Attributes: event.attributes },
    scope: event.scope,
    time: Math.floor(event.at / 1000),
    timeNano: Math.round(event.at * 1e6),
  };
}

/** `docker events`: a bounded history and a live stream of what happened on this host. */
import { AsyncQueue, Emitter } from "../base/async.ts";
import type { Clock } from "../base/clock.ts";
import { invalid } from "../base/errors.ts";
import { exact, labels, pattern } from "./filters.ts";
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

export function matchesEvent(event: EngineEvent, filters: Filters): boolean {
  const name = event.attributes.name ?? "";
  const about = (type: EngineEvent["type"], filter: string) => {
    const wanted = filters.get(filter);
    if (!wanted?.length) return true;
    if (event.type === type) return wanted.some((value) => event.id.startsWith(value) || name === value);
    // A network's or volume's event also belongs to the container it names.
    return type === "container" && wanted.some((value) => event.attributes.container?.startsWith(value));
  };
  const base = event.action.split(":")[0] ?? "";
  return (
    exact(filters, "event", event.action, base) &&
    exact(filters, "type", event.type) &&
    exact(filters, "scope", event.scope) &&
    pattern(filters, "image", event.attributes.image ?? (event.type === "image" ? name || event.id : "")) &&
    labels(filters, event.attributes) &&
    about("container", "container") &&
    about("volume", "volume") &&
    about("network", "network") &&
    about("daemon", "daemon") &&
    about("service", "service") &&
    about("node", "node") &&
    about("secret", "secret") &&
    about("config", "config")
  );
}

export function eventDocument(event: EngineEvent): Json {
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

/**
 * Structured logs: one line per event that matters, `key=value`, no secrets.
 */
export type Level = "debug" | "info" | "warn" | "error";
const rank: Record<Level, number> = { debug: 0, info: 1, warn: 2, error: 3 };
export type Fields = Record<string, unknown>;

export interface Logger {
  debug(message: string, fields?: Fields): void;
  info(message: string, fields?: Fields): void;
  warn(message: string, fields?: Fields): void;
  error(message: string, fields?: Fields): void;
  /** A logger whose lines carry these fields too. */
  with(fields: Fields): Logger;
}

function text(value: unknown): string {
  const raw =
    value instanceof Error ? value.message : typeof value === "object" ? JSON.stringify(value) : String(value);
  return /^[\w.:/@+-]+$/.test(raw) ? raw : JSON.stringify(raw);
}

/** A logger that hands each finished line (without newline) to `write`. */
export function createLogger(write: (line: string) => void, level: Level = "info", bound: Fields = {}): Logger {
  const emit = (at: Level, message: string, fields?: Fields) => {
    if (rank[at] < rank[level]) return;
    let line = `time=${new Date().toISOString()} level=${at} msg=${JSON.stringify(message)}`;
    for (const [key, value] of Object.entries({ ...bound, ...fields })) {
      if (value !== undefined) line += ` ${key}=${text(value)}`;
    }
    write(line);
  };
  return {
    debug: (message, fields) => emit("debug", message, fields),
    info: (message, fields) => emit("info", message, fields),
    warn: (message, fields) => emit("warn", message, fields),
    error: (message, fields) => emit("error", message, fields),
    with: (fields) => createLogger(write, level, { ...bound, ...fields }),
  };
}

/** Drops everything; for tests and pure cores. */
export const nullLogger: Logger = createLogger(() => {}, "error");

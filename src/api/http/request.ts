import type { IncomingHttpHeaders } from "node:http";
import type { Readable } from "node:stream";
import { invalid, SkeinError } from "../../base/errors.ts";
import type { Shape } from "../../base/shape.ts";
import { compareVersions } from "./version.ts";

/** Bodies that are parsed whole are bounded; archives are streamed. */
export const MAX_JSON_BODY = 4 * 1024 * 1024;

/** One request of a client, parsed as far as its route knows. */
export class ApiRequest<P extends string = string> {
  readonly method: string;
  readonly path: string;
  /** Negotiated API version, "1.47". */
  readonly version: string;
  readonly params: Readonly<Record<P, string>>;
  readonly query: Query;
  readonly headers: IncomingHttpHeaders;
  /** The request's body as it comes (archives); `json()` reads it whole. */
  readonly body: Readable;
  /** Aborted when the client goes away before the answer is complete. */
  readonly signal: AbortSignal;

  constructor(init: {
    method: string;
    path: string;
    version: string;
    params: Record<P, string>;
    query: URLSearchParams;
    headers: IncomingHttpHeaders;
    body: Readable;
    signal: AbortSignal;
  }) {
    this.method = init.method;
    this.path = init.path;
    this.version = init.version;
    this.params = init.params;
    this.query = new Query(init.query);
    this.headers = init.headers;
    this.body = init.body;
    this.signal = init.signal;
  }

  atLeast(version: string): boolean {
    return compareVersions(this.version, version) >= 0;
  }

  /** The body as one JSON document of this shape. An empty body is the zero value. */
  async json<T>(shape: Shape<T>): Promise<T> {
    const raw = await readAll(this.body, MAX_JSON_BODY);
    if (raw.length === 0) return shape(undefined, "");
    const type = this.headers["content-type"];
    if (type !== undefined && !/^application\/json\b/i.test(type) && !/^text\/plain\b/i.test(type)) {
      throw invalid(`unsupported Content-Type header (${type}): must be 'application/json'`);
    }
    return shape(parseJson(raw.toString("utf8")), "");
  }
}

function parseJson(source: string): unknown {
  try {
    return JSON.parse(source);
  } catch (error) {
    throw new SkeinError("invalid", `invalid JSON: ${error instanceof Error ? error.message : "syntax error"}`, {
      cause: error,
    });
  }
}

async function readAll(stream: Readable, limit: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const chunk of stream) {
    const part = Buffer.from(chunk);
    size += part.length;
    if (size > limit) throw invalid(`request body too large: more than ${limit} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

/** Query parameters with Docker's way of reading them. */
export class Query {
  readonly raw: URLSearchParams;

  constructor(raw: URLSearchParams) {
    this.raw = raw;
  }

  has(name: string): boolean {
    return this.raw.has(name);
  }

  string(name: string): string {
    return this.raw.get(name) ?? "";
  }

  all(name: string): string[] {
    return this.raw.getAll(name);
  }

  /** Docker's: absent, "", "0", "no", "false" and "none" are false, all else is true. */
  bool(name: string): boolean {
    const value = this.string(name).trim().toLowerCase();
    return !["", "0", "no", "false", "none"].includes(value);
  }

  /** As `bool`, with a default for an absent parameter. */
  boolOr(name: string, fallback: boolean): boolean {
    return this.raw.has(name) ? this.bool(name) : fallback;
  }

  /** An integer, or undefined where the parameter is absent or empty. */
  int(name: string): number | undefined {
    const value = this.string(name);
    if (value === "") return undefined;
    if (!/^-?\d{1,15}$/.test(value)) throw invalid(`strconv.Atoi: parsing ${JSON.stringify(value)}: invalid syntax`);
    return Number(value);
  }

  /** The `filters` parameter: {"label":["a"]} or the old form {"label":{"a":true}}. */
  filters(): Filters {
    return parseFilters(this.string("filters"));
  }
}

/** Filter name to its values, in order. */
export type Filters = ReadonlyMap<string, readonly string[]>;

export function parseFilters(source: string): Filters {
  const out = new Map<string, string[]>();
  if (source === "") return out;
  const value = parseJson(source);
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw invalid("invalid filter");
  for (const [key, entry] of Object.entries(value)) {
    if (Array.isArray(entry)) {
      out.set(
        key,
        entry.map((item) => {
          if (typeof item !== "string") throw invalid("invalid filter");
          return item;
        }),
      );
    } else if (typeof entry === "object" && entry !== null) {
      out.set(
        key,
        Object.entries(entry)
          .filter(([, on]) => on === true)
          .map(([name]) => name),
      );
    } else {
      throw invalid("invalid filter");
    }
  }
  return out;
}

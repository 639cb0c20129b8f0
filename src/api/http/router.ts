/** Routes as data: a method, a pattern, a handler. `:name` is one segment, `:name*` may contain slashes. */
import { SkeinError } from "../../base/errors.ts";
import type { Reply } from "./reply.ts";
import type { ApiRequest } from "./request.ts";

export type Method = "GET" | "HEAD" | "POST" | "PUT" | "DELETE";

/** The parameter names in a pattern: "/images/:name*\/json" has "name". */
export type ParamsOf<P extends string> = P extends `${infer Head}/${infer Tail}`
  ? ParamsOf<Head> | ParamsOf<Tail>
  : P extends `:${infer Name}*`
    ? Name
    : P extends `:${infer Name}`
      ? Name
      : never;

export interface Route {
  readonly method: Method;
  readonly pattern: string;
  readonly handle: (request: ApiRequest) => Promise<Reply> | Reply;
}

/** A route whose handler sees exactly the parameters of its pattern. */
export function route<const P extends string>(
  method: Method,
  pattern: P,
  handle: (request: ApiRequest<ParamsOf<P>>) => Promise<Reply> | Reply,
): Route {
  // The router fills `params` from this same pattern, so that the narrower view is true.
  return { method, pattern, handle: handle as Route["handle"] };
}

interface Compiled {
  readonly route: Route;
  readonly regexp: RegExp;
  readonly names: string[];
}

function compile(entry: Route): Compiled {
  const names: string[] = [];
  const source = entry.pattern
    .split("/")
    .map((segment) => {
      if (!segment.startsWith(":")) return segment.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
      const greedy = segment.endsWith("*");
      names.push(segment.slice(1, greedy ? -1 : undefined));
      return greedy ? "(.+)" : "([^/]+)";
    })
    .join("/");
  return { route: entry, regexp: new RegExp(`^${source}$`), names };
}

export interface Match {
  readonly route: Route;
  readonly params: Record<string, string>;
}

export class Router {
  readonly #byMethod = new Map<string, Compiled[]>();

  add(routes: readonly Route[]): this {
    for (const entry of routes) {
      const known = this.#byMethod.get(entry.method) ?? [];
      known.push(compile(entry));
      this.#byMethod.set(entry.method, known);
    }
    return this;
  }

  /** The first route that fits, or undefined: Docker answers both "no such page" and "wrong method" with 404. */
  match(method: string, path: string): Match | undefined {
    for (const { route: found, regexp, names } of this.#byMethod.get(method) ?? []) {
      const hit = regexp.exec(path);
      if (!hit) continue;
      const params: Record<string, string> = {};
      names.forEach((name, index) => {
        params[name] = decode(hit[index + 1] ?? "");
      });
      return { route: found, params };
    }
    return undefined;
  }
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch (error) {
    throw new SkeinError("invalid", `invalid URL escape in ${JSON.stringify(part)}`, { cause: error });
  }
}

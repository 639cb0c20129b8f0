/** Decoding of specs: as Go decodes JSON, but a field that Skein does not know is refused by name, never dropped. */
import { notImplemented } from "../../../base/errors.ts";
import { type Shape, type ShapeOf, struct } from "../../../base/shape.ts";

type Fields = Record<string, Shape<unknown>>;

/** Values that ask for nothing: an unknown field that holds one of these may be passed over. */
function asksNothing(value: unknown): boolean {
  if (value === undefined || value === null || value === "" || value === 0 || value === false) return true;
  if (Array.isArray(value)) return value.length === 0;
  return typeof value === "object" && Object.values(value).every(asksNothing);
}

/** A Go struct whose unknown fields are an error (501) unless they are empty. */
export function strict<F extends Fields>(fields: F): Shape<{ [K in keyof F]: ShapeOf<F[K]> }> {
  const known = new Set(Object.keys(fields).map((name) => name.toLowerCase()));
  const decode = struct(fields);
  return (value, path) => {
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      for (const [key, entry] of Object.entries(value)) {
        if (known.has(key.toLowerCase()) || asksNothing(entry)) continue;
        throw notImplemented(`the field ${path ? `${path}.` : ""}${key}`);
      }
    }
    return decode(value, path);
  };
}

/** A field that Docker knows and Skein does not do: empty values pass, anything else is a 501 that names it. */
export function refused(what: string): Shape<undefined> {
  return (value) => {
    if (!asksNothing(value)) throw notImplemented(what);
    return undefined;
  };
}

/** A pointer to an empty Go struct: true where it is there. */
export const marker: Shape<boolean> = (value) => value !== undefined && value !== null;

/** `[]byte`: base64 in JSON. */
export const base64: Shape<Uint8Array> = (value, path) => {
  if (value === undefined || value === null) return new Uint8Array();
  if (typeof value !== "string") struct({})(value, path);
  return Buffer.from(String(value), "base64");
};

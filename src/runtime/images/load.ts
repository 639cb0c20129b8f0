import type { Readable } from "node:stream";
import { notImplemented } from "../../base/errors.ts";
export async function loadArchive(..._: unknown[]): Promise<string[]> {
  throw notImplemented("load");
}
export type X = Readable;

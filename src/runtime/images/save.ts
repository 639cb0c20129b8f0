import { notImplemented } from "../../base/errors.ts";
export async function saveArchive(..._: unknown[]): Promise<void> {
  throw notImplemented("save");
}

import { notImplemented } from "../../base/errors.ts";
export async function pullImage(..._: unknown[]): Promise<string> {
  throw notImplemented("pull");
}

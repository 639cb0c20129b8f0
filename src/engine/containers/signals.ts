import { constants } from "node:os";
import { invalid } from "../../base/errors.ts";

const byName = new Map<string, number>(Object.entries(constants.signals));

/** A signal by number or name, with or without SIG; throws Docker's words. */
export function parseSignal(text: string): number {
  if (/^\d+$/.test(text)) {
    const number = Number(text);
    if (number < 1 || number > 64) throw invalid(`invalid signal: ${text}`);
    return number;
  }
  const name = text.toUpperCase().replace(/^SIG/, "");
  const realtime = /^RTM(IN|AX)(?:([+-])(\d+))?$/.exec(name);
  if (realtime) {
    const number = (realtime[1] === "IN" ? 34 : 64) + Number(`${realtime[2] ?? ""}${realtime[3] ?? 0}`);
    if (number >= 34 && number <= 64) return number;
  }
  const number = byName.get(`SIG${name}`);
  if (number === undefined) throw invalid(`invalid signal: ${text}`);
  return number;
}

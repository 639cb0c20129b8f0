/** What the options of several drivers have in common. */
import { invalid } from "../../base/errors.ts";

/** Go's strconv.ParseBool. */
export function booleanOption(value: string | undefined, name: string, otherwise: boolean): boolean {
  if (value === undefined || value === "") return otherwise;
  if (["1", "t", "T", "TRUE", "true", "True"].includes(value)) return true;
  if (["0", "f", "F", "FALSE", "false", "False"].includes(value)) return false;
  throw invalid(`failed to parse ${name} value: ${value}`);
}

const mtuOptionName = "com.docker.network.driver.mtu";
/** An old spelling that users still write (for `ingress`); Docker ignores it, here it means what it says. */
const oldMtuOptionName = "com.docker.network.mtu";

export function mtuOption(options: Readonly<Record<string, string>>, otherwise: number): number {
  const value = options[mtuOptionName] ?? options[oldMtuOptionName];
  if (value === undefined || value === "") return otherwise;
  const mtu = Number(value);
  if (!/^\d+$/.test(value) || mtu > 65535) throw invalid(`failed to parse ${mtuOptionName} value: ${value}`);
  if (mtu === 0) return otherwise;
  if (mtu < 68) throw invalid(`invalid MTU number: ${mtu}`);
  return mtu;
}

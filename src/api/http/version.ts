import { invalid } from "../../base/errors.ts";

/** The newest and oldest Engine API spoken here. CLI 28 speaks up to 1.51. */
export const MAX_API = "1.51";
export const MIN_API = "1.24";

/** Compares "1.9" and "1.24" as versions: negative, zero or positive. */
export function compareVersions(a: string, b: string): number {
  const [aMajor = 0, aMinor = 0] = a.split(".").map(Number);
  const [bMajor = 0, bMinor = 0] = b.split(".").map(Number);
  return aMajor - bMajor || aMinor - bMinor;
}

/** Splits "/v1.47/containers/json"; a path without prefix means the newest version. */
export function splitVersion(path: string): { version: string; path: string } {
  const match = /^\/v(\d+\.\d+)(\/.*)$/.exec(path);
  if (!match?.[1] || !match[2]) return { version: MAX_API, path };
  return { version: match[1], path: match[2] };
}

/** Throws Docker's words for a client that is too old or too new. */
export function checkVersion(version: string): void {
  if (compareVersions(version, MIN_API) < 0) {
    throw invalid(
      `client version ${version} is too old. Minimum supported API version is ${MIN_API}, ` +
        "please upgrade your client to a newer version",
    );
  }
  if (compareVersions(version, MAX_API) > 0) {
    throw invalid(`client version ${version} is too new. Maximum supported API version is ${MAX_API}`);
  }
}

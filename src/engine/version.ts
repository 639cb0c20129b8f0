import { readFileSync } from "node:fs";

/** What `docker version` says of the engine. */
export const VERSION = readVersion();

function readVersion(): string {
  const parsed: unknown = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  if (typeof parsed === "object" && parsed !== null && "version" in parsed && typeof parsed.version === "string") {
    return parsed.version;
  }
  return "0.0.0";
}

/** The commit of the checkout it runs from, "" outside one. */
export function gitCommit(): string {
  const git = (path: string) => {
    try {
      return readFileSync(new URL(`../../.git/${path}`, import.meta.url), "utf8").trim();
    } catch {
      return "";
    }
  };
  const head = git("HEAD");
  const hash = head.startsWith("ref: ") ? git(head.slice(5)) : head;
  return hash.slice(0, 7);
}

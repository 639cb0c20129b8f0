/** What a json-file log tells of its container beside the lines: `--log-opt labels, env, tag` and their `-regex` forms. */
import { invalid } from "../../base/errors.ts";
import { shortId } from "../../base/id.ts";
import { linearPattern } from "../../base/pattern.ts";
import type { HostConfig } from "../shapes.ts";

/** The part of a container's record that attributes are made of. */
export interface LogSubject {
  readonly id: string;
  readonly name: string;
  readonly imageId: string;
  readonly config: { readonly Image: string; readonly Env: readonly string[]; readonly Labels: Record<string, string> };
}

const words = (list: string | undefined): string[] => (list ?? "").split(",").filter(Boolean);

function pattern(source: string | undefined): RegExp | undefined {
  if (!source) return undefined;
  try {
    return linearPattern(source);
  } catch {
    throw invalid(`invalid log opt regular expression: ${source}`);
  }
}

/** Throws for what cannot be expanded; `subject` undefined only checks. */
function expandTag(template: string, subject: LogSubject | undefined): string {
  const image = subject?.imageId.replace(/^sha256:/, "") ?? "";
  const fields: Record<string, string> = {
    ID: shortId(subject?.id ?? ""),
    FullID: subject?.id ?? "",
    Name: subject?.name ?? "",
    ImageID: shortId(image),
    ImageFullID: `sha256:${image}`,
    ImageName: subject?.config.Image ?? "",
    DaemonName: "docker",
  };
  return template.replace(/\{\{\s*(.*?)\s*\}\}/g, (_, word: string) => {
    const name = word.replace(/^\./, "");
    const value = word.startsWith(".") && Object.hasOwn(fields, name) ? fields[name] : undefined;
    if (value === undefined) throw invalid(`invalid log tag template: {{${word}}}`);
    return value;
  });
}

/** Refuses options that cannot be read. */
export function verifyLogAttributes(options: Readonly<Record<string, string>>): void {
  pattern(options["labels-regex"]);
  pattern(options["env-regex"]);
  expandTag(options.tag ?? "", undefined);
}

/** Sorted by key, as Go writes a map. */
export function logAttributes(log: HostConfig["LogConfig"], subject: LogSubject): Record<string, string> {
  const options = log.Config;
  const found = new Map<string, string>();
  const collect = (list: string | undefined, source: string | undefined, pairs: (readonly [string, string])[]) => {
    const listed = words(list);
    const matching = pattern(source);
    for (const [key, value] of pairs) if (listed.includes(key) || matching?.test(key)) found.set(key, value);
  };
  collect(options.labels, options["labels-regex"], Object.entries(subject.config.Labels));
  const env = subject.config.Env.filter((entry) => entry.includes("=")).map(
    (entry) => [entry.slice(0, entry.indexOf("=")), entry.slice(entry.indexOf("=") + 1)] as const,
  );
  collect(options.env, options["env-regex"], env);
  if (options.tag) found.set("tag", expandTag(options.tag, subject));
  return Object.fromEntries([...found].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** What `docker logs --details` puts before a line: "a=b,c=d". */
export const detailsText = (attributes: Readonly<Record<string, string>>): string =>
  Object.entries(attributes)
    .map((pair) => pair.map((part) => encodeURIComponent(part).replace(/%20/g, "+")).join("="))
    .join(",");

/** Dockerfile instructions of `docker import --change`. */
import { invalid } from "../../base/errors.ts";
import type { ImageConfig } from "../../runtime/types.ts";

type Mutable = { -readonly [K in keyof ImageConfig]: ImageConfig[K] };

/** CMD and ENTRYPOINT: a JSON array, or a line for the shell. */
function command(rest: string): string[] {
  if (rest.startsWith("[")) {
    try {
      const parsed: unknown = JSON.parse(rest);
      if (Array.isArray(parsed) && parsed.every((word) => typeof word === "string")) return parsed;
    } catch {
      // Not JSON after all: the shell's.
    }
  }
  return ["/bin/sh", "-c", rest];
}

function words(rest: string): string[] {
  return [...rest.matchAll(/(?:[^\s"']|"(?:\\.|[^"])*"|'[^']*')+/g)].map(([word]) =>
    word.replace(/"((?:\\.|[^"])*)"|'([^']*)'/g, (_, a, b) => a ?? b),
  );
}

function pairs(rest: string): [string, string][] {
  const all = words(rest);
  const [first = ""] = all;
  if (!first.includes("=")) return [[first, all.slice(1).join(" ")]];
  return all.map((word) => {
    const equals = word.indexOf("=");
    return [equals < 0 ? word : word.slice(0, equals), equals < 0 ? "" : word.slice(equals + 1)];
  });
}

export function applyChanges(base: ImageConfig, changes: readonly string[]): ImageConfig {
  const config: Mutable = { ...base };
  for (const line of changes) {
    const match = /^\s*([A-Za-z]+)\s+([\s\S]*)$/.exec(line);
    if (!match?.[1]) throw invalid(`dockerfile parse error: ${line}`);
    const rest = (match[2] ?? "").trim();
    switch (match[1].toUpperCase()) {
      case "CMD":
        config.Cmd = command(rest);
        break;
      case "ENTRYPOINT":
        config.Entrypoint = command(rest);
        break;
      case "ENV":
        config.Env = [...(config.Env ?? []), ...pairs(rest).map(([key, value]) => `${key}=${value}`)];
        break;
      case "LABEL":
        config.Labels = { ...config.Labels, ...Object.fromEntries(pairs(rest)) };
        break;
      case "EXPOSE":
        config.ExposedPorts = {
          ...config.ExposedPorts,
          ...Object.fromEntries(words(rest).map((port) => [port.includes("/") ? port : `${port}/tcp`, {}])),
        };
        break;
      case "VOLUME":
        config.Volumes = {
          ...config.Volumes,
          ...Object.fromEntries((rest.startsWith("[") ? command(rest) : words(rest)).map((path) => [path, {}])),
        };
        break;
      case "USER":
        config.User = rest;
        break;
      case "WORKDIR":
        config.WorkingDir = rest;
        break;
      case "ONBUILD":
        config.OnBuild = [...(config.OnBuild ?? []), rest];
        break;
      case "STOPSIGNAL":
        config.StopSignal = rest;
        break;
      default:
        throw invalid(`${match[1].toLowerCase()} is not a valid change command`);
    }
  }
  return config;
}

/** The configuration of a container: what the client asked for, completed from its image by Docker's rules. */
import { invalid } from "../../base/errors.ts";
import type { ImageConfig } from "../../runtime/types.ts";
import type { ContainerConfig } from "../shapes.ts";

const keyOf = (variable: string): string => variable.split("=", 1)[0] ?? "";

/** The client's variables, then those of the image that the client did not set. */
function mergeEnv(own: readonly string[], image: readonly string[]): string[] {
  const have = new Set(own.map(keyOf));
  return [...own, ...image.filter((variable) => !have.has(keyOf(variable)))];
}

export function mergeConfig(request: ContainerConfig, image: ImageConfig): ContainerConfig {
  const config: ContainerConfig = { ...request };
  config.User ||= image.User ?? "";
  config.WorkingDir ||= image.WorkingDir ?? "";
  config.StopSignal ||= image.StopSignal ?? "";
  config.Shell = request.Shell ?? image.Shell;
  config.ExposedPorts = { ...image.ExposedPorts, ...request.ExposedPorts };
  config.Volumes = { ...image.Volumes, ...request.Volumes };
  config.Labels = { ...image.Labels, ...request.Labels };
  config.Env = mergeEnv(request.Env, image.Env ?? []);
  if (!request.Entrypoint?.length) {
    if (!request.Cmd?.length) config.Cmd = image.Cmd ? [...image.Cmd] : undefined;
    // An explicit empty entrypoint, unlike an absent one, hides the image's.
    if (request.Entrypoint === undefined) config.Entrypoint = image.Entrypoint ? [...image.Entrypoint] : undefined;
  }
  if (config.Entrypoint?.length === 1 && config.Entrypoint[0] === "") config.Entrypoint = undefined;
  config.Healthcheck = mergeHealthcheck(request.Healthcheck, image.Healthcheck);
  if (!config.Entrypoint?.length && !config.Cmd?.length) throw invalid("no command specified");
  return config;
}

function mergeHealthcheck(
  own: ContainerConfig["Healthcheck"],
  image: ImageConfig["Healthcheck"],
): ContainerConfig["Healthcheck"] {
  if (!own && !image) return undefined;
  const start = image && "StartInterval" in image && typeof image.StartInterval === "number" ? image.StartInterval : 0;
  return {
    Test: own?.Test?.length ? own.Test : image?.Test,
    Interval: own?.Interval || image?.Interval || 0,
    Timeout: own?.Timeout || image?.Timeout || 0,
    StartPeriod: own?.StartPeriod || image?.StartPeriod || 0,
    StartInterval: own?.StartInterval || start,
    Retries: own?.Retries || image?.Retries || 0,
  };
}

/** The command line that runs: Docker shows it as Path and Args. */
export function commandLine(config: ContainerConfig): { path: string; args: string[] } {
  const [path = "", ...args] = [...(config.Entrypoint ?? []), ...(config.Cmd ?? [])];
  return { path, args };
}

/** The environment of the process: Docker's defaults, then the configured variables; a bare KEY removes one. */
export function processEnv(config: Pick<ContainerConfig, "Env" | "Tty">, hostname: string): string[] {
  const variables = new Map<string, string>([
    ["PATH", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    ["HOSTNAME", `HOSTNAME=${hostname}`],
  ]);
  if (config.Tty) variables.set("TERM", "TERM=xterm");
  for (const variable of config.Env) {
    if (variable.includes("=")) variables.set(keyOf(variable), variable);
    else variables.delete(variable);
  }
  return [...variables.values()];
}

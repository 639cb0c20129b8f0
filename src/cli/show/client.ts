/** Asks an engine over HTTP on its socket, found as the docker command line finds it: `--host`, else DOCKER_HOST. */
import { readFileSync } from "node:fs";
import { request as plainRequest } from "node:http";
import { request as tlsRequest } from "node:https";
import { join } from "node:path";
import { errnoOf, invalid, messageOf, SkeinError } from "../../base/errors.ts";

const ownSocket = "unix:///run/skein/docker.sock";
/** An engine that is busy with a thousand containers may take a while. */
const patienceMs = 30_000;

export type Target =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number; readonly certs: string | undefined };

/** `host`: what was given on the command line, if anything. */
export function targetOf(host: string | undefined, env: Readonly<Record<string, string | undefined>>): Target {
  const address = host || env.DOCKER_HOST || ownSocket;
  const unix = /^unix:\/\/(\/.+)$/.exec(address);
  if (unix?.[1]) return { kind: "unix", path: unix[1] };
  const tcp = /^(?:tcp|https?):\/\/(\[[0-9a-fA-F:]+\]|[^/:[\]]+)(?::(\d+))?\/?$/.exec(address);
  if (!tcp?.[1]) {
    throw invalid(`cannot ask ${address}: expected unix:///path/of/docker.sock or tcp://host:port`);
  }
  const verify = Boolean(env.DOCKER_TLS_VERIFY) || address.startsWith("https:");
  const certs = verify ? env.DOCKER_CERT_PATH || join(env.HOME ?? "/root", ".docker") : undefined;
  return { kind: "tcp", host: tcp[1].replace(/^\[|\]$/g, ""), port: Number(tcp[2] ?? (verify ? 2376 : 2375)), certs };
}

const shown = (target: Target) =>
  target.kind === "unix" ? `unix://${target.path}` : `tcp://${target.host}:${target.port}`;

/** The document at this path; the engine's own words where it refuses. */
export async function ask(target: Target, path: string): Promise<unknown> {
  const { status, body, server } = await get(target, path);
  if (status === 200) return JSON.parse(body);
  if (!server.startsWith("Skein/")) {
    throw new SkeinError("notImplemented", `the engine at ${shown(target)} is not Skein: it cannot be looked into`, {
      hint: "docker network inspect --verbose is what Docker's own engine tells",
    });
  }
  throw new SkeinError("notFound", wordsOf(body) ?? `the engine answered with status ${status}`);
}

function wordsOf(body: string): string | undefined {
  try {
    const parsed: unknown = JSON.parse(body);
    if (typeof parsed === "object" && parsed !== null && "message" in parsed) return String(parsed.message);
  } catch {
    // Not the engine's own words.
  }
  return undefined;
}

function get(target: Target, path: string): Promise<{ status: number; body: string; server: string }> {
  const certs = target.kind === "tcp" ? target.certs : undefined;
  const file = (name: string) => (certs === undefined ? "" : readFileSync(join(certs, name)));
  const options = target.kind === "unix" ? { socketPath: target.path } : { host: target.host, port: target.port };
  return new Promise((resolve, reject) => {
    const common = { ...options, path, headers: { host: "skein" }, timeout: patienceMs };
    const sent = certs
      ? tlsRequest({ ...common, ca: file("ca.pem"), cert: file("cert.pem"), key: file("key.pem"), servername: "" })
      : plainRequest(common);
    sent.on("timeout", () => sent.destroy(new Error("no answer in time")));
    sent.on("error", (error) => reject(unreachable(target, error)));
    sent.on("response", (response) => {
      const parts: Buffer[] = [];
      response.on("data", (part: Buffer) => parts.push(part));
      response.on("error", (error) => reject(unreachable(target, error)));
      response.on("end", () =>
        resolve({
          status: response.statusCode ?? 0,
          body: Buffer.concat(parts).toString("utf8"),
          server: String(response.headers.server ?? ""),
        }),
      );
    });
    sent.end();
  });
}

function unreachable(target: Target, error: unknown): SkeinError {
  const missing = ["ENOENT", "ECONNREFUSED"].includes(errnoOf(error) ?? "");
  return new SkeinError(
    "unavailable",
    `no engine answers at ${shown(target)}${missing ? "" : `: ${messageOf(error)}`}`,
    {
      hint: "name another with --host or DOCKER_HOST; for a host of the lab: skein lab exec HOST -- skein show",
      cause: error,
    },
  );
}

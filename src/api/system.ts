/** /_ping, /version, /info, /events, /system/df, /auth. */
import { readFileSync } from "node:fs";
import { str, struct } from "../base/shape.ts";
import type { Engine, Json } from "../engine/types.ts";
import { json, jsonStream, text } from "./http/reply.ts";
import { type Route, route } from "./http/router.ts";
import { compareVersions } from "./http/version.ts";
import { sizesAsOf } from "./images.ts";

const credentials = struct({ username: str, password: str, serveraddress: str, identitytoken: str });

/** What the kernel says of a switch that newer versions do not tell of any more. */
function isOn(name: string): boolean {
  try {
    return readFileSync(`/proc/sys/net/bridge/${name}`, "utf8").trim() === "1";
  } catch {
    return false;
  }
}

/** Fields that later versions of the API dropped go to the clients that may read them. */
function infoAsOf(version: string, info: Json): Json {
  const before = (limit: string) => compareVersions(version, limit) < 0;
  return {
    ...info,
    ...(before("1.50") && {
      BridgeNfIptables: isOn("bridge-nf-call-iptables"),
      BridgeNfIp6tables: isOn("bridge-nf-call-ip6tables"),
    }),
    ...(before("1.42") && { KernelMemory: false, KernelMemoryTCP: false }),
    ...(before("1.25") && {
      ExecutionDriver: "<not supported>",
      // In its first form: names alone.
      SecurityOptions: ["seccomp"],
    }),
  };
}

function usageAsOf(version: string, usage: Json): Json {
  const images = Array.isArray(usage.Images) ? usage.Images.map((image: Json) => sizesAsOf(version, image)) : null;
  return { ...usage, Images: images, ...(compareVersions(version, "1.42") < 0 && { BuilderSize: 0 }) };
}

export function systemRoutes(engine: Engine): Route[] {
  return [
    route("GET", "/_ping", () => text("OK")),
    route("HEAD", "/_ping", () => text("")),
    route("GET", "/version", async () => json(await engine.system.version())),
    route("GET", "/info", async ({ version }) => json(infoAsOf(version, await engine.system.info()))),
    route("GET", "/system/df", async (request) =>
      json(usageAsOf(request.version, await engine.system.diskUsage(request.query.all("type")))),
    ),
    route("GET", "/events", (request) => {
      const { query, signal } = request;
      return jsonStream(
        engine.events.watch({
          ...(query.has("since") && { since: query.string("since") }),
          ...(query.has("until") && { until: query.string("until") }),
          filters: query.filters(),
          signal,
        }),
      );
    }),
    route("POST", "/auth", async (request) => {
      await engine.images.login(await request.json(credentials), request.signal);
      return json({ Status: "Login Succeeded", IdentityToken: "" });
    }),
  ];
}

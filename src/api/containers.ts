/** /containers: create, lifecycle, inspection. Streams are in `streams.ts`, execs in `exec.ts`. */
import { invalid } from "../base/errors.ts";
import { type Shape, struct } from "../base/shape.ts";
import {
  containerConfig,
  type HostConfig,
  hostConfig,
  networkingConfig,
  resources,
  restartPolicy,
} from "../engine/shapes.ts";
import type { Engine, WaitCondition } from "../engine/types.ts";
import { bytes, empty, json, jsonStream, type Reply } from "./http/reply.ts";
import type { ApiRequest } from "./http/request.ts";
import { type Route, route } from "./http/router.ts";

/** The configuration lies at the top of the body, beside HostConfig and NetworkingConfig. */
const createBody: Shape<{
  config: ReturnType<typeof containerConfig>;
  hostConfig: HostConfig;
  networking: ReturnType<typeof networkingConfig>;
}> = (value, path) => {
  const parts = struct({ HostConfig: hostConfig, NetworkingConfig: networkingConfig })(value, path);
  return {
    config: containerConfig(value, path),
    hostConfig: parts.HostConfig,
    networking: parts.NetworkingConfig,
  };
};

const updateBody = struct({ ...resources, RestartPolicy: restartPolicy });

function waitCondition(word: string): WaitCondition {
  if (word === "") return "not-running";
  if (word === "not-running" || word === "next-exit" || word === "removed") return word;
  throw invalid(`invalid condition: ${JSON.stringify(word)}`);
}

const stopOptions = ({ query }: ApiRequest) => ({
  ...(query.int("t") !== undefined && { timeout: query.int("t") ?? 0 }),
  ...(query.string("signal") && { signal: query.string("signal") }),
});

/**
 * The status line goes out at once, so that `docker run` knows that it waits before it starts; the document follows at
 * the exit.
 */
function waitReply(engine: Engine, request: ApiRequest<"name">): Reply {
  const condition = waitCondition(request.query.string("condition"));
  const { exit } = engine.containers.wait(request.params.name, condition, request.signal);
  return jsonStream(
    (async function* () {
      yield await exit;
    })(),
  );
}

export function containerRoutes(engine: Engine): Route[] {
  const { containers } = engine;
  return [
    route("GET", "/containers/json", async ({ query, version }) => {
      const limit = query.int("limit");
      return json(
        await containers.list({
          all: query.bool("all"),
          ...(limit !== undefined && { limit }),
          size: query.bool("size"),
          filters: query.filters(),
          version,
        }),
      );
    }),
    route("POST", "/containers/create", async (request) => {
      const body = await request.json(createBody);
      const name = request.query.string("name");
      const platform = request.query.string("platform");
      // Before 1.40 the memory of every container could be shared.
      const ipc = !request.atLeast("1.40") && body.hostConfig.IpcMode === "" ? { IpcMode: "shareable" } : {};
      const hostConfig = { ...body.hostConfig, ...ipc };
      const flatReadOnly = !request.atLeast("1.44");
      const made = await containers.create({ name, ...(platform && { platform }), ...body, hostConfig, flatReadOnly });
      return json(made, 201);
    }),
    route("POST", "/containers/prune", async ({ query }) => json(await containers.prune(query.filters()))),
    route("GET", "/containers/:name*/json", async ({ params, query, version }) =>
      json(await containers.inspect(params.name, { size: query.bool("size"), version })),
    ),
    route("GET", "/containers/:name*/top", async ({ params, query }) =>
      json(await containers.top(params.name, query.string("ps_args"))),
    ),
    route("GET", "/containers/:name*/changes", async ({ params }) => json(await containers.changes(params.name))),
    route("GET", "/containers/:name*/export", async ({ params }) =>
      bytes("application/octet-stream", await containers.export(params.name)),
    ),
    route("GET", "/containers/:name*/stats", ({ params, query, signal }) => {
      containers.resolve(params.name);
      const options = { stream: query.boolOr("stream", true), oneShot: query.bool("one-shot"), signal };
      return jsonStream(containers.stats(params.name, options));
    }),
    route("POST", "/containers/:name*/start", async ({ params }) => {
      await containers.start(params.name);
      return empty();
    }),
    route("POST", "/containers/:name*/stop", async (request) => {
      await containers.stop(request.params.name, stopOptions(request));
      return empty();
    }),
    route("POST", "/containers/:name*/restart", async (request) => {
      await containers.restart(request.params.name, stopOptions(request));
      return empty();
    }),
    route("POST", "/containers/:name*/kill", async ({ params, query }) => {
      await containers.kill(params.name, query.string("signal"));
      return empty();
    }),
    route("POST", "/containers/:name*/pause", async ({ params }) => {
      await containers.pause(params.name);
      return empty();
    }),
    route("POST", "/containers/:name*/unpause", async ({ params }) => {
      await containers.unpause(params.name);
      return empty();
    }),
    route("POST", "/containers/:name*/rename", async ({ params, query }) => {
      await containers.rename(params.name, query.string("name"));
      return empty();
    }),
    route("POST", "/containers/:name*/update", async (request) =>
      json(await containers.update(request.params.name, await request.json(updateBody))),
    ),
    route("POST", "/containers/:name*/resize", async ({ params, query }) => {
      await containers.resize(params.name, query.int("w") ?? 0, query.int("h") ?? 0);
      return empty(200);
    }),
    route("POST", "/containers/:name*/wait", (request) => waitReply(engine, request)),
    route("DELETE", "/containers/:name*", async ({ params, query }) => {
      await containers.remove(params.name, {
        force: query.bool("force"),
        volumes: query.bool("v"),
        link: query.bool("link"),
      });
      return empty();
    }),
  ];
}

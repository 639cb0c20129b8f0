/** /images. */
import { PassThrough } from "node:stream";
import { invalid, notFound, notImplemented } from "../base/errors.ts";
import { optional, str, struct } from "../base/shape.ts";
import { containerConfig } from "../engine/shapes.ts";
import type { Engine, Json } from "../engine/types.ts";
import type { RegistryAuth } from "../runtime/types.ts";
import { bytes, empty, json, jsonStream, type Reply } from "./http/reply.ts";
import type { ApiRequest } from "./http/request.ts";
import { type Route, route } from "./http/router.ts";
import { compareVersions } from "./http/version.ts";

const authShape = struct({ username: str, password: str, identitytoken: str, serveraddress: str, auth: str });

/** The X-Registry-Auth header: base64url of a JSON object. Docker ignores one that cannot be read. */
export function registryAuth(header: string | string[] | undefined): RegistryAuth | undefined {
  if (typeof header !== "string" || header === "") return undefined;
  try {
    const { username, password, identitytoken, serveraddress } = authShape(
      JSON.parse(Buffer.from(header, "base64url").toString("utf8")),
      "",
    );
    if (!username && !identitytoken) return undefined;
    return { username, password, identitytoken, serveraddress };
  } catch {
    return undefined;
  }
}

/** `POST /images/create`: a pull (fromImage) or an import (fromSrc). */
function createImage(engine: Engine, request: ApiRequest): Reply {
  const { query } = request;
  const platform = query.string("platform");
  const image = query.string("fromImage");
  if (image !== "") {
    const tag = query.string("tag");
    // A digest is given as the tag.
    const reference = tag === "" ? image : tag.includes(":") ? `${image}@${tag}` : `${image}:${tag}`;
    const auth = registryAuth(request.headers["x-registry-auth"]);
    return jsonStream(
      engine.images.pull(reference, { ...(auth && { auth }), ...(platform && { platform }), signal: request.signal }),
      { patient: true },
    );
  }
  const source = query.string("fromSrc");
  if (source !== "-") {
    if (source === "") throw invalid("fromImage or fromSrc is needed");
    throw notImplemented("importing from a URL");
  }
  const repo = query.string("repo");
  const tag = query.string("tag");
  return jsonStream(
    engine.images.importTar(request.body, {
      ...(repo && { reference: tag ? `${repo}:${tag}` : repo }),
      ...(query.string("message") && { comment: query.string("message") }),
      ...(platform && { platform }),
      changes: query.all("changes"),
    }),
    { patient: true },
  );
}

function save(engine: Engine, names: string[]): Reply {
  if (names.length === 0) throw invalid("no images to save");
  const out = new PassThrough();
  engine.images.save(names, out).then(
    () => out.end(),
    (error) => out.destroy(error instanceof Error ? error : new Error(String(error))),
  );
  return bytes("application/x-tar", out);
}

async function ensureAll(engine: Engine, names: string[]): Promise<string[]> {
  for (const name of names) if (!(await engine.images.has(name))) throw notFound(`No such image: ${name}`);
  return names;
}

/** Fields that later versions of the API dropped go to the clients that may read them. */
function asOf(version: string, document: Json): Json {
  const { Container, VirtualSize, ...rest } = document;
  return {
    ...rest,
    // Gone since 1.45, but Compose 1 asks for it by any version, and dies without it when it makes a container anew.
    ContainerConfig: rest.Config,
    ...(compareVersions(version, "1.44") < 0 && { VirtualSize }),
    ...(compareVersions(version, "1.45") < 0 && { Container }),
  };
}

/** An entry of a list of images; "VirtualSize" has meant the same as "Size" for long. */
export const sizesAsOf = (version: string, image: Json): Json => ({
  ...image,
  ...(compareVersions(version, "1.44") < 0 && { VirtualSize: image.Size }),
});

export function imageRoutes(engine: Engine): Route[] {
  const { images } = engine;
  return [
    route("GET", "/images/json", async ({ query, version }) =>
      json(
        (
          await images.list({
            all: query.bool("all"),
            digests: query.bool("digests"),
            filters: query.filters(),
            version,
          })
        ).map((image) => sizesAsOf(version, image)),
      ),
    ),
    route("POST", "/images/create", (request) => createImage(engine, request)),
    route("POST", "/images/load", ({ body, query }) =>
      jsonStream(images.load(body, query.bool("quiet")), { patient: true }),
    ),
    route("POST", "/images/prune", async ({ query }) => json(await images.prune(query.filters()))),
    route("GET", "/images/get", async ({ query }) => save(engine, await ensureAll(engine, query.all("names")))),
    route("GET", "/images/search", () => {
      throw notImplemented("image search");
    }),
    route("GET", "/images/:name*/json", async ({ params, version }) =>
      json(asOf(version, await images.inspect(params.name))),
    ),
    route("GET", "/images/:name*/history", async ({ params }) => json(await images.history(params.name))),
    route("GET", "/images/:name*/get", async ({ params }) => save(engine, await ensureAll(engine, [params.name]))),
    route("POST", "/images/:name*/tag", async ({ params, query }) => {
      await images.tag(params.name, query.string("repo"), query.string("tag"));
      return empty(201);
    }),
    route("POST", "/images/:name*/push", ({ params, query, headers, signal }) => {
      const auth = registryAuth(headers["x-registry-auth"]);
      return jsonStream(images.push({ name: params.name, tag: query.string("tag"), ...(auth && { auth }), signal }), {
        patient: true,
      });
    }),
    route("DELETE", "/images/:name*", async ({ params, query }) =>
      json(await images.remove(params.name, { force: query.bool("force"), prune: !query.bool("noprune") })),
    ),
    route("POST", "/commit", async (request) => {
      const { query } = request;
      const config = await request.json(optional(containerConfig));
      const made = await images.commit({
        container: query.string("container"),
        repo: query.string("repo"),
        tag: query.string("tag"),
        comment: query.string("comment"),
        author: query.string("author"),
        changes: query.all("changes"),
        pause: query.boolOr("pause", true),
        ...(config && { config }),
      });
      return json(made, 201);
    }),
    route("POST", "/build", () => {
      throw notImplemented("image build");
    }),
  ];
}

/** /containers/…/archive: `docker cp`. */

import { Readable } from "node:stream";
import { invalid } from "../base/errors.ts";
import type { Engine, Json } from "../engine/types.ts";
import { bytes, empty } from "./http/reply.ts";
import { type Route, route } from "./http/router.ts";

const statHeader = (stat: Json) => ({
  "X-Docker-Container-Path-Stat": Buffer.from(JSON.stringify(stat)).toString("base64"),
});

function wanted(path: string): string {
  if (path === "") throw invalid("missing path");
  if (path.includes("\0")) throw invalid("invalid path: it has a null byte");
  return path;
}

export function archiveRoutes(engine: Engine): Route[] {
  const { containers } = engine;
  return [
    route("HEAD", "/containers/:name*/archive", async ({ params, query }) => {
      const stat = await containers.archiveStat(params.name, wanted(query.string("path")));
      return bytes("application/octet-stream", Readable.from([]), statHeader(stat));
    }),
    route("GET", "/containers/:name*/archive", async ({ params, query }) => {
      const { stat, body } = await containers.archiveGet(params.name, wanted(query.string("path")));
      return bytes("application/x-tar", body, statHeader(stat));
    }),
    route("PUT", "/containers/:name*/archive", async ({ params, query, body }) => {
      await containers.archivePut(params.name, wanted(query.string("path")), body, {
        noOverwriteDirNonDir: query.bool("noOverwriteDirNonDir"),
        copyUidGid: query.bool("copyUIDGID"),
      });
      return empty(200);
    }),
  ];
}

/** Writing to a repository: blobs and manifests (OCI distribution v2). */
import type { Readable } from "node:stream";
import { SkeinError } from "../../base/errors.ts";
import type { Descriptor } from "../images/content.ts";
import type { RegistryClient } from "./client.ts";

export async function hasBlob(client: RegistryClient, digest: string): Promise<boolean> {
  const response = await client.request(client.url(`blobs/${digest}`), { method: "HEAD" });
  response.body.resume();
  if (response.status === 401 || response.status === 403) throw await client.refusal(response, digest, "push");
  return response.status === 200;
}

/** Uploads one blob in a single piece. `open` gives its bytes anew for each attempt. */
export async function putBlob(client: RegistryClient, blob: Descriptor, open: () => Readable): Promise<void> {
  const begun = await client.request(client.url("blobs/uploads/"), {
    method: "POST",
    headers: { "content-length": "0" },
  });
  if (begun.status !== 202) throw await client.refusal(begun, blob.digest, "push");
  begun.body.resume();
  const location = client.follow(begun.headers.location);
  const sent = await client.request(location, {
    method: "PATCH",
    body: open,
    headers: { "content-type": "application/octet-stream", "content-length": String(blob.size) },
  });
  if (sent.status !== 202 && sent.status !== 204) throw await client.refusal(sent, blob.digest, "push");
  sent.body.resume();
  const last = client.follow(sent.headers.location ?? location.href);
  last.searchParams.set("digest", blob.digest);
  const done = await client.request(last, { method: "PUT", headers: { "content-length": "0" } });
  if (done.status !== 201) throw await client.refusal(done, blob.digest, "push");
  done.body.resume();
  const digest = done.headers["docker-content-digest"];
  if (digest !== undefined && digest !== blob.digest) {
    throw new SkeinError("internal", `the registry kept ${String(digest)} instead of ${blob.digest}`);
  }
}

/** Gives the digest under which the registry keeps it. */
export async function putManifest(
  client: RegistryClient,
  tag: string,
  bytes: Buffer,
  mediaType: string,
): Promise<string | undefined> {
  const response = await client.request(client.url(`manifests/${tag}`), {
    method: "PUT",
    body: bytes,
    headers: { "content-type": mediaType, "content-length": String(bytes.length) },
  });
  if (response.status !== 201 && response.status !== 200) throw await client.refusal(response, tag, "push");
  response.body.resume();
  const digest = response.headers["docker-content-digest"];
  return typeof digest === "string" ? digest : undefined;
}

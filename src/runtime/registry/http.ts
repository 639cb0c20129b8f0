/** One HTTP request to a registry, redirects followed, with a limit on silence. */
import { readFileSync } from "node:fs";
import { request as httpRequest, type IncomingMessage, type OutgoingHttpHeaders } from "node:http";
import { request as httpsRequest } from "node:https";
import type { Readable } from "node:stream";
import { errnoOf } from "../../base/errors.ts";

/** A registry that says nothing for this long has hung. */
const silence = 60_000;
const maxRedirects = 5;
const maxBody = 8 * 1024 * 1024;

export interface Response {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  readonly body: IncomingMessage;
}

export interface RequestOptions {
  readonly method?: string;
  readonly headers?: OutgoingHttpHeaders;
  /** A function gives the bytes anew, where the request has to be sent again. */
  readonly body?: string | Uint8Array | (() => Readable);
  readonly signal?: AbortSignal;
  /** Loopback registries may have any certificate. */
  readonly insecure?: boolean;
}

export async function send(url: URL, options: RequestOptions = {}, redirects = 0): Promise<Response> {
  const response = await sendOnce(url, options);
  const location = response.headers.location;
  if (![301, 302, 303, 307, 308].includes(response.status) || location === undefined) return response;
  response.body.resume();
  if (redirects >= maxRedirects) throw new Error(`${url.origin} redirects too often`);
  const next = new URL(location, url);
  if (next.protocol !== "https:" && next.protocol !== url.protocol) {
    throw new Error(`${url.origin} redirects from https to ${next.protocol}`);
  }
  const headers = { ...options.headers };
  // Our credentials are for the registry, not for whom it sends us to.
  if (next.host !== url.host) delete headers.authorization;
  return await send(next, { ...options, headers }, redirects + 1);
}

function sendOnce(url: URL, options: RequestOptions): Promise<Response> {
  const { method = "GET", headers = {}, body, signal, insecure = false } = options;
  return new Promise((resolve, reject) => {
    const ca = url.protocol === "https:" ? authorityOf(url.host) : undefined;
    const settings = {
      method,
      headers: { "user-agent": "skein", ...headers },
      ...(signal ? { signal } : {}),
      ...(ca ? { ca } : {}),
      ...(insecure ? { rejectUnauthorized: false } : {}),
    };
    const call = url.protocol === "https:" ? httpsRequest(url, settings) : httpRequest(url, settings);
    call.setTimeout(silence, () => call.destroy(new Error(`${url.host} does not answer`)));
    call.on("error", reject);
    call.on("response", (response) =>
      resolve({ status: response.statusCode ?? 0, headers: response.headers, body: response }),
    );
    if (typeof body !== "function") {
      call.end(body);
      return;
    }
    const bytes = body();
    bytes.once("error", (error) => call.destroy(error));
    // A registry that answers before it has all of it (401, 413) is not waited for.
    call.once("close", () => bytes.destroy());
    bytes.pipe(call);
  });
}

/** Where Docker's users put the authority of a private registry. */
function authorityOf(host: string): Buffer | undefined {
  try {
    return readFileSync(`/etc/docker/certs.d/${host}/ca.crt`);
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return undefined;
    throw error;
  }
}

/** A small body whole. */
export async function bodyOf(response: Response): Promise<Buffer> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of response.body) {
    size += (part as Buffer).length;
    if (size > maxBody) throw new Error("the registry's answer is too large");
    parts.push(part as Buffer);
  }
  return Buffer.concat(parts);
}

/** A client of one repository in a registry: OCI distribution v2 with token or basic authentication. */
import * as z from "zod";
import { messageOf, notFound, SkeinError } from "../../base/errors.ts";
import { sha256 } from "../images/content.ts";
import { mediaTypes } from "../images/manifest.ts";
import { familiar, type Reference, repositoryOf } from "../images/reference.ts";
import type { RegistryAuth } from "../types.ts";
import { parseChallenge } from "./challenge.ts";
import { bodyOf, type RequestOptions, type Response, send } from "./http.ts";
import { isInsecure, noRules, type RegistryRules } from "./rules.ts";

const manifestTypes = [
  mediaTypes.dockerManifest,
  mediaTypes.dockerList,
  mediaTypes.ociManifest,
  mediaTypes.ociIndex,
].join(", ");

const tokenAnswer = z.object({ token: z.string().optional(), access_token: z.string().optional() });
const errorAnswer = z.object({
  errors: z.array(z.object({ code: z.string().optional(), message: z.string().optional() })),
});

/** How often a broken download is taken up again where it broke off. */
const maxResumes = 5;

export interface FetchedManifest {
  readonly bytes: Buffer;
  readonly digest: string;
  readonly mediaType: string;
}

export class RegistryClient {
  readonly #reference: Reference;
  readonly #auth: RegistryAuth | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #insecure: boolean;
  readonly #actions: string;
  readonly #rules: RegistryRules;
  #base: URL;
  #authorization: string | undefined;

  /** `mirror`: base URL of a registry that is asked in place of the reference's own. */
  constructor(
    reference: Reference,
    options: {
      auth?: RegistryAuth;
      signal?: AbortSignal;
      actions?: string;
      rules?: RegistryRules | undefined;
      mirror?: string;
    },
  ) {
    this.#rules = options.rules ?? noRules;
    this.#reference = reference;
    this.#auth = options.auth;
    this.#signal = options.signal;
    this.#actions = options.actions ?? "pull";
    const host = reference.domain === "docker.io" ? "registry-1.docker.io" : reference.domain;
    this.#base = options.mirror ? new URL("v2/", options.mirror) : new URL(`https://${host}/v2/`);
    this.#insecure = isInsecure(this.#base.host, this.#rules);
  }

  /** Finds out how the registry is spoken to: TLS, or plain HTTP where that is allowed. */
  async connect(): Promise<void> {
    try {
      (await this.#send(this.#base)).body.resume();
    } catch (error) {
      if (!this.#insecure || this.#base.protocol === "http:") throw this.#unreachable(error);
      this.#base = new URL(this.#base.href.replace("https:", "http:"));
      try {
        (await this.#send(this.#base)).body.resume();
      } catch (second) {
        throw this.#unreachable(second);
      }
    }
  }

  #unreachable(error: unknown): SkeinError {
    return new SkeinError("internal", `Get "${this.#base.href}": ${messageOf(error)}`, { cause: error });
  }

  /** A manifest by tag or digest, checked against the digest where there is one. */
  async manifest(tagOrDigest: string): Promise<FetchedManifest> {
    const url = new URL(`${this.#reference.path}/manifests/${tagOrDigest}`, this.#base);
    const response = await this.#authorized(url, { accept: manifestTypes });
    if (response.status !== 200) throw await this.refusal(response, tagOrDigest);
    const bytes = await bodyOf(response);
    const digest = sha256(bytes);
    if (tagOrDigest.startsWith("sha256:") && digest !== tagOrDigest) {
      throw new SkeinError("internal", `manifest verification failed for digest ${tagOrDigest}`);
    }
    const mediaType = (response.headers["content-type"] ?? "").split(";")[0]?.trim() ?? "";
    return { bytes, digest, mediaType };
  }

  /** The bytes of a blob; takes a broken download up again. The reader checks the digest. */
  async *blob(digest: string, size: number): AsyncGenerator<Uint8Array> {
    const url = new URL(`${this.#reference.path}/blobs/${digest}`, this.#base);
    let offset = 0;
    for (let attempt = 0; offset < size || attempt === 0; attempt++) {
      try {
        const response = await this.#authorized(url, offset > 0 ? { range: `bytes=${offset}-` } : {});
        if (response.status !== 200 && response.status !== 206) throw await this.refusal(response, digest);
        // A registry that knows no ranges begins at the beginning.
        let skip = response.status === 206 ? 0 : offset;
        for await (const part of response.body) {
          const chunk = (part as Buffer).subarray(skip);
          skip = Math.max(0, skip - (part as Buffer).length);
          offset += chunk.length;
          if (offset > size) throw new SkeinError("internal", `blob ${digest} is larger than its descriptor says`);
          if (chunk.length > 0) yield chunk;
        }
        if (offset < size) throw new Error("unexpected EOF");
        return;
      } catch (error) {
        this.#signal?.throwIfAborted();
        if (error instanceof SkeinError || attempt >= maxResumes) throw error;
      }
    }
  }

  /** An address in this repository: "blobs/…". */
  url(path: string): URL {
    return new URL(`${this.#reference.path}/${path}`, this.#base);
  }

  /** Where the registry sends an upload to; never from TLS to plain HTTP. */
  follow(location: string | undefined): URL {
    if (!location) throw new SkeinError("internal", "the registry does not say where to upload to");
    const url = new URL(location, this.#base);
    if (this.#base.protocol === "https:" && url.protocol !== "https:") {
      throw new SkeinError("internal", `the registry sends uploads from https to ${url.origin}`);
    }
    return url;
  }

  /** One request with whatever authorization the registry asks for. */
  request(url: URL, options: Pick<RequestOptions, "method" | "body"> & { headers?: Record<string, string> } = {}) {
    const { headers = {}, ...rest } = options;
    return this.#authorized(url, headers, rest);
  }

  #send(url: URL, headers: Record<string, string> = {}, rest: Pick<RequestOptions, "method" | "body"> = {}) {
    // Credentials are the registry's alone: an upload may lie with somebody else.
    const own = url.host === this.#base.host && this.#authorization;
    return send(url, {
      ...rest,
      headers: own ? { ...headers, authorization: own } : headers,
      insecure: this.#insecure,
      ...(this.#signal ? { signal: this.#signal } : {}),
    });
  }

  async #authorized(
    url: URL,
    headers: Record<string, string>,
    rest: Pick<RequestOptions, "method" | "body"> = {},
  ): Promise<Response> {
    const first = await this.#send(url, headers, rest);
    if (first.status !== 401) return first;
    const challenge = parseChallenge(first.headers["www-authenticate"] ?? "");
    if (!challenge) return first;
    const authorization = challenge.scheme === "bearer" ? await this.#token(challenge.parameters) : basicOf(this.#auth);
    if (authorization === undefined) return first;
    first.body.resume();
    this.#authorization = authorization;
    return await this.#send(url, headers, rest);
  }

  async #token(parameters: Record<string, string>): Promise<string | undefined> {
    const { realm, service } = parameters;
    if (!realm) return undefined;
    const url = new URL(realm);
    if (url.protocol !== "https:" && !isInsecure(url.host, this.#rules)) {
      throw new SkeinError("internal", `the registry asks for credentials over plain HTTP: ${url.origin}`);
    }
    const scope = parameters.scope ?? `repository:${this.#reference.path}:${this.#actions}`;
    const signal = this.#signal ? { signal: this.#signal } : {};
    const insecure = isInsecure(url.host, this.#rules);
    let response: Response;
    if (this.#auth?.identitytoken) {
      const body = new URLSearchParams({
        grant_type: "refresh_token",
        service: service ?? "",
        scope,
        client_id: "skein",
        refresh_token: this.#auth.identitytoken,
      }).toString();
      const headers = { "content-type": "application/x-www-form-urlencoded" };
      response = await send(url, { method: "POST", body, headers, insecure, ...signal });
    } else {
      if (service) url.searchParams.set("service", service);
      url.searchParams.set("scope", scope);
      const basic = basicOf(this.#auth);
      response = await send(url, { headers: basic ? { authorization: basic } : {}, insecure, ...signal });
    }
    const body = await bodyOf(response);
    if (response.status !== 200) throw denied(this.#reference, "unauthorized: authentication required");
    const { token, access_token } = tokenAnswer.parse(JSON.parse(body.toString("utf8")));
    return `Bearer ${token ?? access_token ?? ""}`;
  }

  /** What Docker says when a registry says no. */
  async refusal(response: Response, what: string, doing: "pull" | "push" = "pull"): Promise<SkeinError> {
    const body = (await bodyOf(response).catch(() => Buffer.alloc(0))).toString("utf8");
    const reason = reasonOf(body) ?? `status ${response.status}`;
    const name = familiar(repositoryOf(this.#reference));
    if (doing === "push") {
      const denial = response.status === 401 || response.status === 403;
      if (denial && !this.#auth?.username && !this.#auth?.identitytoken) {
        return new SkeinError("unauthorized", "no basic auth credentials");
      }
      return new SkeinError(denial ? "unauthorized" : "internal", reason);
    }
    switch (response.status) {
      case 401:
      case 403:
        return denied(this.#reference, reason);
      case 404: {
        const separator = what.startsWith("sha256:") ? "@" : ":";
        return notFound(`manifest for ${name}${separator}${what} not found: ${reason}`);
      }
      case 429:
        return new SkeinError("internal", `toomanyrequests: ${reason}`);
      default:
        return new SkeinError("internal", `error pulling ${name}: ${reason}`);
    }
  }
}

function denied(reference: Reference, reason: string): SkeinError {
  const name = familiar(repositoryOf(reference));
  return notFound(`pull access denied for ${name}, repository does not exist or may require 'docker login': ${reason}`);
}

function reasonOf(body: string): string | undefined {
  try {
    const [first] = errorAnswer.parse(JSON.parse(body)).errors;
    const code = first?.code?.toLowerCase().replaceAll("_", " ");
    return first && [code, first.message].filter(Boolean).join(": ");
  } catch {
    return undefined;
  }
}

function basicOf(auth: RegistryAuth | undefined): string | undefined {
  if (!auth?.username) return undefined;
  return `Basic ${Buffer.from(`${auth.username}:${auth.password ?? ""}`).toString("base64")}`;
}

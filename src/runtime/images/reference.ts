/** Names of images, as Docker reads and shows them. Pure. */
import { invalid } from "../../base/errors.ts";

export interface Reference {
  /** Registry host, with port: "docker.io" where none is named. */
  readonly domain: string;
  /** Path of the repository: "library/alpine". */
  readonly path: string;
  readonly tag?: string;
  /** "sha256:…" */
  readonly digest?: string;
}

const component = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
const pathPattern = new RegExp(`^${component}(?:/${component})*$`);
const domainPattern =
  /^(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*(?::\d+)?$|^\[[a-fA-F0-9:]+\](?::\d+)?$/;
const tagPattern = /^\w[\w.-]{0,127}$/;
const digestPattern = /^sha256:[a-f0-9]{64}$/;

/** Parses what a user typed. Nothing is added but Docker's default registry and its "library/". */
export function parseReference(text: string): Reference {
  const bad = () => invalid(`invalid reference format`);
  if (/^[a-f0-9]{64}$/.test(text)) {
    throw invalid(`invalid repository name (${text}), cannot specify 64-byte hexadecimal strings`);
  }
  const [named = "", digest, ...more] = text.split("@");
  if (more.length > 0 || (digest !== undefined && !digestPattern.test(digest))) throw bad();
  const slash = named.indexOf("/");
  const first = slash < 0 ? "" : named.slice(0, slash);
  const hasDomain = /[.:]/.test(first) || first === "localhost" || first !== first.toLowerCase();
  const rest = hasDomain ? named.slice(slash + 1) : named;
  const colon = rest.lastIndexOf(":");
  const tag = colon < 0 ? undefined : rest.slice(colon + 1);
  let path = colon < 0 ? rest : rest.slice(0, colon);
  let domain = hasDomain ? first : "docker.io";
  if (domain === "index.docker.io") domain = "docker.io";
  if (path !== path.toLowerCase()) throw invalid("invalid reference format: repository name must be lowercase");
  if (domain === "docker.io" && path && !path.includes("/")) path = `library/${path}`;
  if (!pathPattern.test(path) || !domainPattern.test(domain)) throw bad();
  if (tag !== undefined && !tagPattern.test(tag)) throw bad();
  if (domain.length + 1 + path.length > 255) {
    throw invalid("invalid reference format: repository name must not be more than 255 characters");
  }
  return { domain, path, ...(tag === undefined ? {} : { tag }), ...(digest === undefined ? {} : { digest }) };
}

/** "docker.io/library/alpine" */
export const repositoryOf = (reference: Reference): string => `${reference.domain}/${reference.path}`;

/** The full form under which an image is kept: with tag "latest" unless a tag or a digest is given. */
export function fullName(reference: Reference): string {
  const base = repositoryOf(reference);
  if (reference.digest) return `${base}@${reference.digest}`;
  return `${base}:${reference.tag ?? "latest"}`;
}

/** From what a user typed to the full form: "alpine" to "docker.io/library/alpine:latest". */
export const normalise = (text: string): string => fullName(parseReference(text));

/** The short form that Docker shows: "docker.io/library/alpine:latest" as "alpine:latest". */
export function familiar(full: string): string {
  if (full.startsWith("docker.io/library/")) return full.slice("docker.io/library/".length);
  if (full.startsWith("docker.io/")) return full.slice("docker.io/".length);
  return full;
}

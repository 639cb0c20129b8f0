/** Image names: the full form inside ("docker.io/library/alpine:latest"), the short one for people ("alpine:latest"). */
import { invalid } from "../../base/errors.ts";

/** As `docker images` shows it. */
export function familiar(reference: string): string {
  return reference.replace(/^docker\.io\/(library\/)?/, "");
}

const REPOSITORY =
  /^(?:[a-zA-Z0-9.-]+(?::\d+)?\/)?[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const TAG = /^[\w][\w.-]{0,127}$/;
const DIGEST = /^[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}$/;

export interface Reference {
  /** Without tag and digest. */
  readonly repository: string;
  readonly tag: string;
  readonly digest: string;
}

/** Splits "repo[:tag][@digest]"; throws Docker's words. */
export function parseReference(text: string): Reference {
  const at = text.indexOf("@");
  const digest = at < 0 ? "" : text.slice(at + 1);
  const rest = at < 0 ? text : text.slice(0, at);
  const colon = rest.lastIndexOf(":");
  const hasTag = colon > rest.lastIndexOf("/");
  const repository = hasTag ? rest.slice(0, colon) : rest;
  const tag = hasTag ? rest.slice(colon + 1) : "";
  if (!REPOSITORY.test(repository)) {
    if (REPOSITORY.test(repository.toLowerCase())) {
      throw invalid(`invalid reference format: repository name (${repository}) must be lowercase`);
    }
    throw invalid("invalid reference format");
  }
  if (hasTag && !TAG.test(tag)) throw invalid("invalid tag format");
  if (at >= 0 && !DIGEST.test(digest)) throw invalid("invalid digest format");
  return { repository, tag, digest };
}

/** repo:tag, with "latest" where nothing is said. */
export function withDefaultTag(text: string): string {
  const { repository, tag, digest } = parseReference(text);
  if (digest) return `${repository}@${digest}`;
  return `${repository}:${tag || "latest"}`;
}

/** `docker push`: one tag, or all of a repository. */
import type { Progress, RegistryAuth } from "../../runtime/types.ts";
import type { EngineContext } from "../context.ts";
import type { Json } from "../types.ts";
import { parseReference } from "./references.ts";
import { reported } from "./reported.ts";

export interface PushRequest {
  /** Without tag: all tags of the repository. */
  readonly name: string;
  readonly tag: string;
  readonly auth?: RegistryAuth;
  readonly signal?: AbortSignal;
}

/** Progress documents as the CLI draws them, and a last one with digest and size for each tag. */
export async function* push(ctx: EngineContext, request: PushRequest): AsyncGenerator<Json> {
  const { repository } = parseReference(request.name);
  yield { status: `The push refers to repository [${withDomain(repository)}]` };
  for (const { tag, reference } of await tagsOf(ctx, repository, request.tag)) {
    const { auth, signal } = request;
    let done: { digest: string; size: number } | undefined;
    yield* reported<Progress & Json>(async (report) => {
      done = await ctx.runtime.images.push(reference, {
        onProgress: (item) => report({ ...item }),
        ...(auth && { auth }),
        ...(signal && { signal }),
      });
    });
    if (!done) continue;
    const { digest, size } = done;
    ctx.events.emit({ type: "image", action: "push", id: reference, attributes: { name: reference } });
    yield { status: `${tag}: digest: ${digest} size: ${size}` };
    yield { progressDetail: {}, aux: { Tag: tag, Digest: digest, Size: size } };
  }
}

async function tagsOf(
  ctx: EngineContext,
  repository: string,
  wanted: string,
): Promise<{ tag: string; reference: string }[]> {
  if (wanted !== "") return [{ tag: wanted, reference: `${repository}:${wanted}` }];
  const full = withDomain(repository);
  const tags = (await ctx.runtime.images.list())
    .flatMap((image) => image.references)
    .filter((name) => name.startsWith(`${full}:`) && !name.slice(full.length + 1).includes("/"))
    .map((name) => name.slice(full.length + 1))
    .sort();
  // None: the store says so in Docker's words.
  return (tags.length ? tags : ["latest"]).map((tag) => ({ tag, reference: `${repository}:${tag}` }));
}

/** "docker.io/library/alpine" for "alpine"; a first part with a dot, a colon or the name localhost is a registry. */
function withDomain(repository: string): string {
  const [first = "", ...rest] = repository.split("/");
  if (rest.length === 0) return `docker.io/library/${first}`;
  return /[.:]/.test(first) || first === "localhost" ? repository : `docker.io/${repository}`;
}

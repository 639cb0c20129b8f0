/** `docker commit`: the configuration of a container, with what the client changes, becomes that of an image. */
import type { ImageConfig } from "../../runtime/types.ts";
import { emitContainer } from "../containers/attributes.ts";
import type { Container } from "../containers/container.ts";
import type { EngineContext } from "../context.ts";
import type { ContainerConfig } from "../shapes.ts";
import { applyChanges } from "./changes.ts";
import { familiar, withDefaultTag } from "./references.ts";

export interface CommitRequest {
  readonly container: string;
  /** "" for no name. */
  readonly repo: string;
  readonly tag: string;
  readonly comment: string;
  readonly author: string;
  readonly changes: readonly string[];
  /** The container holds still meanwhile. */
  readonly pause: boolean;
  /** What is set here goes before the container's own. */
  readonly config?: ContainerConfig;
}

export async function commit(ctx: EngineContext, request: CommitRequest): Promise<{ Id: string }> {
  const container = ctx.registry.get(request.container);
  const reference = request.repo ? withDefaultTag(request.tag ? `${request.repo}:${request.tag}` : request.repo) : "";
  const own = imageConfig(container.record.config);
  const config = applyChanges(request.config ? over(imageConfig(request.config), own) : own, request.changes);
  const id = await ctx.locks.run(container.id, () =>
    still(ctx, container, request.pause, () =>
      ctx.runtime.images.commit({
        containerId: container.id,
        imageId: container.record.imageId,
        config,
        createdBy: [container.record.path, ...container.record.args].join(" "),
        now: new Date(ctx.clock.now()),
        ...(reference && { reference }),
        ...(request.comment && { comment: request.comment }),
        ...(request.author && { author: request.author }),
      }),
    ),
  );
  if (reference) {
    const name = familiar(reference);
    ctx.events.emit({ type: "image", action: "tag", id, attributes: { ...config.Labels, name } });
  }
  emitContainer(ctx, container, "commit", { comment: request.comment, imageID: id, imageRef: reference });
  return { Id: id };
}

async function still<T>(ctx: EngineContext, container: Container, wanted: boolean, work: () => Promise<T>): Promise<T> {
  if (!wanted || container.record.state.status !== "running") return work();
  await ctx.runtime.pause(container.id);
  try {
    return await work();
  } finally {
    await ctx.runtime.unpause(container.id);
  }
}

function imageConfig(config: ContainerConfig): ImageConfig {
  const { Healthcheck: health } = config;
  return {
    ...(config.User && { User: config.User }),
    ...(config.Env.length && { Env: config.Env }),
    ...(config.Entrypoint && { Entrypoint: config.Entrypoint }),
    ...(config.Cmd && { Cmd: config.Cmd }),
    ...(config.WorkingDir && { WorkingDir: config.WorkingDir }),
    ...(Object.keys(config.Labels).length && { Labels: config.Labels }),
    ...(Object.keys(config.ExposedPorts).length && { ExposedPorts: empties(config.ExposedPorts) }),
    ...(Object.keys(config.Volumes).length && { Volumes: empties(config.Volumes) }),
    ...(config.StopSignal && { StopSignal: config.StopSignal }),
    ...(config.Shell && { Shell: config.Shell }),
    ...(health?.Test && { Healthcheck: { ...health, Test: health.Test } }),
  };
}

const empties = (map: Record<string, unknown>): Record<string, object> =>
  Object.fromEntries(Object.keys(map).map((key) => [key, {}]));

/** Maps and variables are joined; all else of `base` stays where `changed` says nothing. */
function over(changed: ImageConfig, base: ImageConfig): ImageConfig {
  const keys = new Set((changed.Env ?? []).map((variable) => variable.split("=", 1)[0]));
  const env = [...(changed.Env ?? []), ...(base.Env ?? []).filter((entry) => !keys.has(entry.split("=", 1)[0]))];
  return {
    ...base,
    ...changed,
    ...(env.length && { Env: env }),
    ...((base.Labels || changed.Labels) && { Labels: { ...base.Labels, ...changed.Labels } }),
    ...((base.ExposedPorts || changed.ExposedPorts) && {
      ExposedPorts: { ...base.ExposedPorts, ...changed.ExposedPorts },
    }),
    ...((base.Volumes || changed.Volumes) && { Volumes: { ...base.Volumes, ...changed.Volumes } }),
  };
}

import type { EngineContext } from "../context.ts";
import type { Container } from "./container.ts";

/** What every event of a container carries. */
export function attributesOf(container: Container): Record<string, string> {
  return { ...container.record.config.Labels, image: container.record.config.Image, name: container.name };
}

export function emitContainer(
  ctx: EngineContext,
  container: Container,
  action: string,
  extra: Record<string, string> = {},
): void {
  ctx.events.emit({
    type: "container",
    action,
    id: container.id,
    attributes: { ...attributesOf(container), ...extra },
  });
}

/** `docker history`: what made an image, newest first, with the bytes that each step added. Pure. */
import type { Image } from "../../runtime/types.ts";
import { parseRfc3339 } from "../time.ts";
import type { Json } from "../types.ts";

const seconds = (date: string): number => Math.floor((parseRfc3339(date) ?? 0) / 1000);

export function historyOf(image: Image, tags: readonly string[]): Json[] {
  const steps = image.history.length > 0 ? image.history : [{ created: image.created }];
  const sizes = image.layerSizes ?? [];
  let layer = 0;
  return steps
    .map((step) => ({
      Id: "<missing>",
      Created: seconds(step.created ?? image.created),
      CreatedBy: step.created_by ?? "",
      Tags: null as readonly string[] | null,
      Size: step.empty_layer ? 0 : (sizes[layer++] ?? 0),
      Comment: step.comment ?? "",
    }))
    .reverse()
    .map((entry, index) => (index === 0 ? { ...entry, Id: image.id, Tags: tags.length ? tags : null } : entry));
}

/** Bytes that go with an image: those of its layers that none of the others has. */
export function reclaimed(image: Image, others: readonly Image[]): number {
  const needed = new Set(others.filter((other) => other.id !== image.id).flatMap(stacks));
  return stacks(image).reduce(
    (sum, stack, index) => sum + (needed.has(stack) ? 0 : (image.layerSizes?.[index] ?? 0)),
    0,
  );
}

/** A layer is shared only with all that is below it. */
const stacks = (image: Image): string[] => image.layers.map((_, index) => image.layers.slice(0, index + 1).join());

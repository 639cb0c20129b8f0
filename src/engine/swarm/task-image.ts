/** The image of a task. */
import type { ContainerSpec } from "#proto/docker/swarmkit/specs_pb.js";
import { SkeinError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Images } from "../types.ts";
import { registryAuth } from "./task-io.ts";

/** Present, or pulled. Where no registry answers the message is that of the missing image. */
export async function ensureImage(
  { images, log }: { readonly images: Images; readonly log: Logger },
  { image, pullOptions }: ContainerSpec,
  signal: AbortSignal,
): Promise<void> {
  if (await images.has(image)) return;
  try {
    const auth = registryAuth(pullOptions?.registryAuth ?? "");
    for await (const _ of images.pull(image, { ...(auth && { auth }), signal })) signal.throwIfAborted();
  } catch (error) {
    signal.throwIfAborted();
    log.error("pulling image failed", { image, error });
    const reference = /[@:][^/]+$/.test(image) ? image : `${image}:latest`;
    throw new SkeinError("notFound", `No such image: ${reference}`, { cause: error });
  }
}

/** `docker login`: whether a registry takes the credentials. */
import { SkeinError } from "../../base/errors.ts";
import { parseReference } from "../images/reference.ts";
import type { RegistryAuth } from "../types.ts";
import { RegistryClient } from "./client.ts";
import type { RegistryRules } from "./rules.ts";

/** The registry's host in what users and their configuration write: "https://index.docker.io/v1/", "localhost:5000". */
function registryHost(address: string): string {
  const host = address.replace(/^https?:\/\//, "").replace(/\/.*$/, "");
  return host === "" || host === "index.docker.io" ? "docker.io" : host;
}

/** Throws unauthorized when the registry does not take them. */
export async function login(auth: RegistryAuth, signal?: AbortSignal, rules?: RegistryRules): Promise<void> {
  const host = registryHost(auth.serveraddress ?? "");
  // Any repository's name does: only the registry itself is asked.
  const client = new RegistryClient(parseReference(`${host}/library/login`), {
    auth,
    rules,
    ...(signal && { signal }),
  });
  await client.connect();
  const url = new URL("../../", client.url(""));
  const response = await client.request(url).catch((error: unknown) => {
    if (error instanceof SkeinError && error.code === "notFound") return undefined;
    throw error;
  });
  response?.body.resume();
  if (response?.status !== 200) {
    throw new SkeinError("unauthorized", `Get ${JSON.stringify(url.href)}: unauthorized: authentication required`);
  }
}

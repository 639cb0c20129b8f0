/**
 * Runs inside a container's network: asks 127.0.0.11 for a name all the time, and prints the addresses whenever they are
 * others than before, with the time (ms since the epoch): `watch-tasks.ts <name>`. Ends with its input.
 */
import { Resolver } from "node:dns/promises";
import { setTimeout as delay } from "node:timers/promises";

const [name = ""] = process.argv.slice(2);
const pollMs = 10;

process.stdin.resume().once("end", () => process.exit(0));
const resolver = new Resolver({ timeout: 200, tries: 1 });
resolver.setServers(["127.0.0.11"]);
let last = "nothing yet";
for (;;) {
  const found = await resolver.resolve4(name).catch((error: NodeJS.ErrnoException) => {
    // Silence is no answer; that there is none, is one.
    return error.code === "ENOTFOUND" || error.code === "ENODATA" ? [] : undefined;
  });
  const text = found?.sort().join(",");
  if (text !== undefined && text !== last) {
    last = text;
    process.stdout.write(`${Date.now()} ${text}\n`);
  }
  await delay(pollMs);
}

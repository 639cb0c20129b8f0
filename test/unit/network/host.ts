/**
 * A host for tests: a network controller in a process of its own, started inside a namespace. Commands come as lines
 * of JSON on stdin: {"id", "method", "args"}; answers go to stdout. Sets and maps travel as arrays.
 */
import { execFileSync } from "node:child_process";
import { createInterface } from "node:readline";
import { createLogger } from "../../../src/base/log.ts";
import { createNetworkController } from "../../../src/network/controller.ts";

const [stateDir = "", netnsDir = "", resolvConf = ""] = process.argv.slice(2);
const log = createLogger((line) => process.stderr.write(`${line}\n`), "info");
const controller = await createNetworkController({ stateDir, netnsDir, resolvConf, log });
const drift: unknown[] = [];
controller.events.on((event) => {
  if (event.kind === "drift") drift.push(event);
});

/** What JSON cannot carry. */
const special: Record<string, (args: unknown[]) => unknown> = {
  restore: ([alive]) => controller.restore(new Set(alive as string[])),
  setLoadBalancers: ([entries]) => controller.setLoadBalancers(new Map(entries as [string, string][])),
  setKeys: ([keys]) =>
    controller.setKeys({
      gossip: (keys as { key: string; lamportTime: string }[]).map((k) => ({
        key: Buffer.from(k.key, "hex"),
        lamportTime: BigInt(k.lamportTime),
      })),
      ipsec: [],
    }),
  drift: () => drift.splice(0),
  /** A look inside; with a command, right after it was run in a namespace and before anybody can have noticed. */
  look: ([pin, command]) => {
    if (pin) execFileSync("nsenter", [`--net=${netnsDir}/${pin}`, "sh", "-c", String(command)]);
    return controller.view.networks();
  },
  repairs: () => controller.view.repairs(),
  gossip: () => controller.view.gossip(),
  trace: ([id, to]) => controller.view.trace(String(id), "c1", String(to)),
  stop: async () => {
    await controller[Symbol.asyncDispose]();
    setImmediate(() => process.exit(0));
  },
};

const answer = (message: unknown) => process.stdout.write(`${JSON.stringify(message)}\n`);
createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, args } = JSON.parse(line) as { id: number; method: string; args: unknown[] };
  void (async () => {
    const fn =
      special[method] ??
      ((all: unknown[]) => (controller as unknown as Record<string, (...a: unknown[]) => unknown>)[method]?.(...all));
    try {
      const started = performance.now();
      const result = await fn(args);
      answer({ id, result: result ?? null, ms: performance.now() - started });
    } catch (error) {
      answer({ id, error: error instanceof Error ? error.message : String(error) });
    }
  })();
});
answer({ ready: true });

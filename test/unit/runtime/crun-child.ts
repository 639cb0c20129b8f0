/** The life of a container under crun; one JSON line of what was seen. Run by `crun.root.test.ts`. */
import { bench, output } from "./support.ts";

await using b = await bench(undefined, { defaultRuntime: "crun" });
const { runtime } = b;
const [first] = runtime.ociRuntimes;
const once = await output(await runtime.start(b.spec("once", ["sh", "-c", "echo out; echo err >&2; exit 3"])));
const limits = { memory: 64 * 2 ** 20, pidsLimit: 20 };
const process = await runtime.start(b.spec("stays", ["sleep", "1000"], { resources: limits }));
const exec = { env: ["A=b"], cwd: "/tmp", user: "web", tty: false, stdin: false, privileged: false };
const inside = await output(
  await runtime.exec("stays", { execId: "e1", args: ["sh", "-c", "echo $A $(id -u) $(pwd)"], ...exec }),
);
await runtime.pause("stays");
await runtime.unpause("stays");
const { memory, pids } = await runtime.stats("stays");
await runtime.update("stays", { memory: 32 * 2 ** 20 });
const smaller = (await runtime.stats("stays")).memory.limit;
await runtime.kill("stays", 9);
const { exitCode } = await process.exit;
for (const id of ["once", "stays"]) await runtime.remove(id);
const left = await runtime.list();
console.log(
  JSON.stringify({
    ...{ runtime: first?.name, once, inside, exitCode, left, smaller },
    ...{ memory: memory.limit, pids: [pids.current, pids.limit] },
  }),
);

/** A daemon to be killed: starts three containers, tells what the last said, and waits for its end. */
import { mkdirSync } from "node:fs";
import { nullLogger } from "../../../src/base/log.ts";
import { startRuntime } from "../../../src/runtime/runtime.ts";
import type { Mount } from "../../../src/runtime/types.ts";
import { specOf } from "./support.ts";

const [dir = "", cgroupParent = "", image = ""] = process.argv.slice(2);
const runtime = await startRuntime({ root: `${dir}/root`, run: `${dir}/run`, cgroupParent }, nullLogger);
// They end when we are gone, however long that takes.
mkdirSync(`${dir}/gate`);
const mounts: Mount[] = [{ type: "bind", source: `${dir}/gate`, target: "/gate", readonly: true, options: [] }];
const wait = "while [ ! -e /gate/open ]; do sleep 0.05; done";
await runtime.start(specOf(image, "ended", ["sh", "-c", `${wait}; echo last words; exit 4`], { mounts }));
await runtime.start(specOf(image, "left", ["sh", "-c", wait], { mounts }));
const script = "echo before; read line; echo got $line; exit 9";
const first = await runtime.start(specOf(image, "adopt", ["sh", "-c", script], { openStdin: true }));
first.io.onOutput(({ data }) => process.stdout.write(`${data.toString().trim()} ${first.pid}\n`));

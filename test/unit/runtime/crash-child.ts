/** A daemon to be killed: starts three containers, tells what the last said, and waits for its end. */
import { nullLogger } from "../../../src/base/log.ts";
import { startRuntime } from "../../../src/runtime/runtime.ts";
import { specOf } from "./support.ts";

const [dir = "", cgroupParent = "", image = ""] = process.argv.slice(2);
const runtime = await startRuntime({ root: `${dir}/root`, run: `${dir}/run`, cgroupParent }, nullLogger);
await runtime.start(specOf(image, "ended", ["sh", "-c", "sleep 0.2; echo last words; exit 4"]));
await runtime.start(specOf(image, "left", ["sleep", "0.2"]));
const script = "echo before; read line; echo got $line; exit 9";
const first = await runtime.start(specOf(image, "adopt", ["sh", "-c", script], { openStdin: true }));
first.io.onOutput(({ data }) => process.stdout.write(`${data.toString().trim()} ${first.pid}\n`));

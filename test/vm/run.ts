/**
 * The tests that need Debian's own kernel, in one virtual machine (machine.ts).
 *
 *     npm run test:vm                       all of suite/
 *     npm run test:vm -- parents            the files whose name contains that
 *     npm run test:vm -- -- 'uname -r'      a command instead, for whoever wants to look around
 *
 * Takes many minutes, so it is no part of `npm test`.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { archiveOf } from "../../src/lab/image/library.ts";
import { imageCache } from "../../src/lab/tour.ts";
import { debianKernel } from "./kernel.ts";
import { runInMachine } from "./machine.ts";

const root = join(import.meta.dirname, "../..");

/**
 * What users' hosts have: Docker's modules, br_netfilter filtering what is bridged, IPv4 forwarding (which every new
 * namespace copies from the first). What an emulated machine needs: patience, and files that were read before.
 */
const prepare = `
cd '${root}'
modprobe -a br_netfilter ip_vs
sysctl -q -w net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
export SKEIN_LAB_OFFLINE=1 SKEIN_LAB_PATIENCE=10
for program in bin/skeind containerd dockerd etcd docker runc; do $program --version >/dev/null 2>&1 || true; done
`;

const args = process.argv.slice(2);
const dashes = args.indexOf("--");
const patterns = dashes < 0 ? args : [];
const files = readdirSync(join(import.meta.dirname, "suite"))
  .filter((name) => patterns.length === 0 || patterns.some((pattern) => name.includes(pattern)))
  .map((name) => `test/vm/suite/${name}`);
const suite = `bin/node --test --test-reporter=spec --test-concurrency=1 ${files.join(" ")}`;
const command = dashes < 0 ? suite : args.slice(dashes + 1).join(" ");
if (dashes < 0 && files.length === 0) throw new Error(`no file of test/vm/suite is called ${patterns.join(" or ")}`);

// Outside, where there is a network.
await archiveOf(imageCache, "basic");
const kernel = await debianKernel(join(root, ".cache", "vm"));
const interrupted = new AbortController();
for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, () => interrupted.abort());
process.exit(await runInMachine({ kernel, command: prepare + command, signal: interrupted.signal }));

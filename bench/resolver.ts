/**
 * Questions per second of one sandbox's resolver, asked by dnsperf through the sandbox's own nftables table.
 * Root. Usage: node bench/resolver.ts [seconds] [udp|tcp]
 */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { nullLogger } from "../src/base/log.ts";
import { scratchNetNs } from "../src/kernel/netns.ts";
import { openNft } from "../src/kernel/nft.ts";
import { startResolver } from "../src/network/resolver/resolver.ts";
import { nftTable } from "../src/network/resolver/table.ts";
import type { NameRecord } from "../src/network/resolver/types.ts";

const [seconds = "3", mode = "udp"] = process.argv.slice(2);
const names = new Map<string, NameRecord>();
for (let i = 0; i < 1000; i++) names.set(`service${i}`, { ipv4: [`10.0.${i >> 8}.${i & 255}`], ipv6: [] });
names.set("tasks.web", { ipv4: ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4"], ipv6: [] });

const directory = mkdtempSync(join(tmpdir(), "bench-resolver-"));
const questions = join(directory, "questions");
writeFileSync(questions, [...names.keys()].map((name) => `${name} A`).join("\n"));
using ns = scratchNetNs();
const network = { name: "backend", lookup: (name: string) => names.get(name), reverse: () => undefined };
const view = { networks: () => [network] };
await using resolver = await startResolver({ ns, view, upstreams: [], log: nullLogger });
using nft = openNft(ns);
nft.run(nftTable(resolver.ports));
const inside = [`--net=/proc/${process.pid}/fd/${ns.fd}`];
const perf = ["dnsperf", "-m", mode, "-s", "127.0.0.11", "-d", questions, "-l", seconds, "-c", "4", "-q", "200"];
const { stdout } = await promisify(execFile)("nsenter", [...inside, ...perf]);
process.stdout.write(stdout.replace(/^\[.*\n/gm, ""));
rmSync(directory, { recursive: true });

/** What this host tells the managers of itself. The scheduler's filters read it. */
import { cpus, totalmem } from "node:os";
import { create } from "@bufbuild/protobuf";
import { type NodeDescription, NodeDescriptionSchema } from "#proto/docker/swarmkit/types_pb.js";
import type { DriverName } from "../../network/types.ts";

export interface HostFacts {
  readonly hostname: string;
  readonly engineVersion: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly networkDrivers: readonly DriverName[];
  /** Node's name of the architecture; default this machine's. */
  readonly arch?: string;
  readonly nanoCpus?: bigint;
  readonly memoryBytes?: bigint;
}

const archWords: Record<string, string> = { x64: "x86_64", arm64: "aarch64" };

/** Sorted plugins, so that equal hosts describe themselves equally: a change restarts the session. */
export function describeHost(facts: HostFacts): NodeDescription {
  const arch = facts.arch ?? process.arch;
  const named = (type: string, names: readonly string[]) => [...names].sort().map((name) => ({ type, name }));
  return create(NodeDescriptionSchema, {
    hostname: facts.hostname,
    platform: { architecture: archWords[arch] ?? arch, os: "linux" },
    resources: {
      nanoCpus: facts.nanoCpus ?? BigInt(cpus().length) * 1_000_000_000n,
      memoryBytes: facts.memoryBytes ?? BigInt(totalmem()),
    },
    engine: {
      engineVersion: facts.engineVersion,
      labels: { ...facts.labels },
      plugins: [
        ...named("Log", ["json-file", "local", "none"]),
        // By this the managers know that the node can be one of them: a Docker node cannot.
        ...named("Manager", ["skein"]),
        ...named("Network", facts.networkDrivers),
        ...named("Volume", ["local"]),
      ],
    },
  });
}

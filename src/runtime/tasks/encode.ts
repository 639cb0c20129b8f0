/** What containerd takes as `Any`: OCI documents as JSON, runc's options as protobuf. */
import { create, toBinary } from "@bufbuild/protobuf";
import type { Any } from "@bufbuild/protobuf/wkt";
import { OptionsSchema } from "#proto/containerd/runc/v1/options_pb.js";
import type { OciProcess, OciResources, OciSpec } from "../spec/oci.ts";

export interface PlainAny {
  typeUrl: string;
  value: Uint8Array;
}

const oci = (name: string, value: object): PlainAny => ({
  typeUrl: `types.containerd.io/opencontainers/runtime-spec/1/${name}`,
  value: Buffer.from(withInfinity(JSON.stringify(value))),
});

/** RLIM_INFINITY does not fit a double; the largest safe integer stands for it until here. */
const withInfinity = (json: string): string =>
  json.replace(/"(soft|hard)":9007199254740991\b/g, '"$1":18446744073709551615');

export const specAny = (spec: OciSpec | Partial<OciSpec>): PlainAny => oci("Spec", spec);
export const processAny = (process: OciProcess): PlainAny => oci("Process", process);
export const resourcesAny = (resources: OciResources): PlainAny => oci("LinuxResources", resources);

/** The spec of a container that was started at least once. */
export function readRecord(spec: Any | undefined): OciSpec | undefined {
  if (!spec) return undefined;
  const json = Buffer.from(spec.value)
    .toString("utf8")
    .replace(/:18446744073709551615\b/g, ":9007199254740991");
  const parsed = JSON.parse(json) as Partial<OciSpec>;
  return parsed.process && parsed.linux ? (parsed as OciSpec) : undefined;
}

const optionsOf = new Map<string, PlainAny>();

/** Which program makes the container; its state is below `root`, so that several engines on one machine do not meet. */
export function runcOptions(root: string, binaryName: string): PlainAny {
  const key = `${root} ${binaryName}`;
  let options = optionsOf.get(key);
  if (!options) {
    const value = toBinary(OptionsSchema, create(OptionsSchema, { root, binaryName }));
    options = { typeUrl: OptionsSchema.typeName, value };
    optionsOf.set(key, options);
  }
  return options;
}

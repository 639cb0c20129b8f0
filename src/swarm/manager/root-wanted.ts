/**
 * Which root a swarm is to have after its spec was changed: the one it has, a fresh one, one that a user brings with its
 * key, or one whose key only an external authority has. (SwarmKit: manager/controlapi/ca_rotation.go)
 */
import { create } from "@bufbuild/protobuf";
import type { Cluster } from "#proto/docker/swarmkit/objects_pb.js";
import type { ClusterSpec } from "#proto/docker/swarmkit/specs_pb.js";
import { type RootCA, RootRotationSchema } from "#proto/docker/swarmkit/types_pb.js";
import { messageOf } from "../../base/errors.ts";
import {
  checkKeyKind,
  createRootCa,
  crossSign,
  isIssuedBy,
  keyMatches,
  normalPem,
  type RootCa,
  splitPem,
  validityOf,
} from "../ca/certificates.ts";
import { type Authorities, addressesFor } from "./authorities.ts";
import { rpcError } from "./control/errors.ts";

/** A year. */
const MIN_ROOT_LIFE_MS = 365 * 86_400_000;
const text = (bytes: Uint8Array | undefined) => new TextDecoder().decode(bytes);
const bytes = (value: string) => new TextEncoder().encode(value);
const refuse = (why: string) => rpcError("InvalidArgument", why);

/** The root that a user wants, without what stands around the certificate in its file; without a key: an external one. */
function wantedRoot({ caConfig }: ClusterSpec): RootCa | undefined {
  const { signingCaCert, signingCaKey } = caConfig ?? {};
  const certPem = normalPem(text(signingCaCert));
  const keyPem = text(signingCaKey);
  if (text(signingCaCert) === "" && keyPem === "") return undefined;
  if (certPem === "") {
    const missing = "if a signing CA key is provided, the signing CA cert must also be provided";
    throw refuse(text(signingCaCert) === "" ? missing : "invalid root CA: no PEM certificate found");
  }
  return { certPem, keyPem };
}

/** Throws Docker's words when a root that a user gave is none, or not for long. */
function checkRoot({ certPem, keyPem }: RootCa, now: number): void {
  let matches = false;
  try {
    const { notAfter } = validityOf(certPem);
    matches = keyPem === "" || keyMatches(certPem, keyPem);
    if (!matches) throw refuse("certificate key mismatch");
    if (keyPem !== "") checkKeyKind(keyPem);
    if (splitPem(certPem).length > 1) throw refuse("the desired CA certificate cannot contain multiple certificates");
    if (!isIssuedBy(certPem, certPem)) throw new Error("it is not a self-signed CA certificate");
    if (notAfter - now < MIN_ROOT_LIFE_MS) throw refuse("CA certificate expires too soon");
  } catch (error) {
    const why = messageOf(error);
    throw why.startsWith("rpc error") ? error : refuse(`invalid root CA: ${why}`);
  }
}

/**
 * The root with the change begun, given up or not needed (then it is the cluster's own, unchanged).
 * Throws Docker's words when an authority that is needed is not to be reached.
 */
export async function rootAfter(
  cluster: Cluster,
  spec: ClusterSpec,
  now: number,
  authorities: Authorities,
): Promise<RootCA> {
  const { rootCa } = cluster;
  if (!rootCa) throw rpcError("FailedPrecondition", "the cluster has no root CA");
  const { rootRotation } = rootCa;
  const presentPem = normalPem(text(rootCa.caCert));
  const nextPem = rootRotation && normalPem(text(rootRotation.caCert));
  const lastForcedRotation = spec.caConfig?.forceRotate ?? 0n;
  const wanted = wantedRoot(spec);
  const reachable = async (rootPem: string, which: string): Promise<string[]> => {
    const addresses = addressesFor(spec, rootPem, presentPem);
    if (await authorities.reachable(addresses, rootPem)) return addresses;
    throw refuse(
      `there must be at least one valid, reachable external CA corresponding to the ${which} CA certificate`,
    );
  };
  const begun = async (next: RootCa, present: readonly string[]): Promise<RootCA> => {
    const crossSignedCaCert = bytes(await vouch(rootCa, next, present, authorities));
    const rotation = { caCert: bytes(next.certPem), caKey: bytes(next.keyPem), crossSignedCaCert };
    return { ...rootCa, rootRotation: create(RootRotationSchema, rotation), lastForcedRotation };
  };

  if (wanted) checkRoot(wanted, now);
  // The key of an external authority is brought in: from now on the managers sign.
  const keyComes = wanted?.certPem === presentPem && wanted.keyPem !== "";
  const present = rootCa.caKey.length > 0 || keyComes ? [] : await reachable(presentPem, "current");
  if (!wanted) {
    if (rootCa.lastForcedRotation !== lastForcedRotation) return begun(await createRootCa(now), present);
    if (rootRotation && nextPem && rootRotation.caKey.length === 0) await reachable(nextPem, "next");
    return rootCa;
  }
  if (wanted.keyPem === "") await reachable(wanted.certPem, "desired");
  const caKey = bytes(wanted.keyPem);
  // A rotation that goes on is not wanted any more; what was issued meanwhile, the present root vouches for.
  if (wanted.certPem === presentPem) return { ...rootCa, caKey, rootRotation: undefined, lastForcedRotation };
  if (rootRotation && wanted.certPem === nextPem) {
    return { ...rootCa, rootRotation: { ...rootRotation, caKey }, lastForcedRotation };
  }
  return begun(wanted, present);
}

/** The present root's word for the next one: by the managers, or by the external authority that has the present root's key. */
async function vouch(
  { caCert, caKey }: RootCA,
  next: RootCa,
  present: readonly string[],
  authorities: Authorities,
): Promise<string> {
  if (caKey.length > 0) return crossSign(next.certPem, { certPem: text(caCert), keyPem: text(caKey) });
  if (next.keyPem === "") {
    throw refuse("rotating from one external CA to a different external CA is not supported");
  }
  try {
    return await authorities.crossSign(present, next, text(caCert));
  } catch (error) {
    throw rpcError("Internal", `unable to generate a cross-signed certificate for root rotation: ${messageOf(error)}`);
  }
}

/**
 * How a node gets its certificate: the root by the token's digest, then a signing request, then waiting for the
 * managers to issue. Renewal is the same over mutual TLS and without a token. (SwarmKit: ca/certificates.go)
 */
import { CA, NodeCA } from "#proto/docker/swarmkit/ca_pb.js";
import type { NodeSpec_Availability } from "#proto/docker/swarmkit/specs_pb.js";
import { IssuanceStatus_State as State } from "#proto/docker/swarmkit/types_pb.js";
import { type Clock, sleep } from "../../base/clock.ts";
import { SkeinError } from "../../base/errors.ts";
import { type Channel, grpcCodeOf, status } from "../../base/grpc.ts";
import type { Logger } from "../../base/log.ts";
import { rpcErrorText } from "../agent/rpc-error.ts";
import { createCsr, keyMatches, splitPem, verifyChain } from "../ca/certificates.ts";
import { parseToken, rootDigest } from "../ca/token.ts";
import { unverifiedConnection } from "../ca/transport.ts";

const callMs = 5_000;
const attempts = 5;
const attemptPauseMs = 2_000;
const pollMs = { first: 1_000, max: 30_000 };

export interface IssuedCertificate {
  readonly nodeId: string;
  readonly certPem: string;
  readonly keyPem: string;
}

interface Common {
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** Fetches the root certificate of the swarm at `addr`; it must be the one that the token tells of. */
export async function downloadRoot(addr: string, token: string, options: Common): Promise<string> {
  const { digest } = parseToken(token);
  const pem = await severalTimes("the root certificate could not be fetched", options, async () => {
    const channel = unverifiedConnection(addr);
    try {
      const call = { timeoutMs: callMs, signal: options.signal };
      return (await channel.client(CA).getRootCACertificate({}, call)).certificate;
    } finally {
      channel.close();
    }
  });
  if (rootDigest(pem) !== digest) {
    throw new SkeinError("internal", `remote CA does not match fingerprint. Expected: ${digest}`);
  }
  const rootPem = Buffer.from(pem).toString("utf8");
  checkRoots(rootPem);
  return rootPem;
}

/** Every certificate of the bundle must be a root that signs itself. */
export function checkRoots(rootPem: string): void {
  const roots = splitPem(rootPem);
  if (roots.length === 0) throw new SkeinError("internal", "no valid root CA certificates found");
  for (const root of roots) {
    const reason = verifyChain(root, root);
    if (reason) throw new SkeinError("internal", `invalid root CA certificate: ${reason}`);
  }
}

export interface CertificateRequest extends Common {
  readonly rootPem: string;
  /** Empty for a renewal. */
  readonly token: string;
  readonly availability?: NodeSpec_Availability;
  /** A new connection, to any manager; closed here. */
  connect(): Channel;
}

/** A new key and a certificate for it. Waits as long as the managers take. */
export async function requestCertificate(request: CertificateRequest): Promise<IssuedCertificate> {
  const { csrPem, keyPem } = await createCsr();
  const csr = Buffer.from(csrPem);
  const { signal } = request;
  const nodeId = await severalTimes("the certificate request was not taken", request, async () => {
    const channel = request.connect();
    try {
      const { token, availability } = request;
      const issue = { csr, token, ...(availability === undefined ? {} : { availability }) };
      return (await channel.client(NodeCA).issueNodeCertificate(issue, { timeoutMs: callMs, signal })).nodeId;
    } finally {
      channel.close();
    }
  });
  const certPem = await issued(request, nodeId, csr);
  const reason = verifyChain(certPem, request.rootPem);
  if (reason) throw new SkeinError("internal", `the issued certificate is not good: ${reason}`);
  if (!keyMatches(certPem, keyPem)) throw new SkeinError("internal", "the issued certificate is for another key");
  return { nodeId, certPem, keyPem };
}

async function issued(request: CertificateRequest, nodeId: string, csr: Buffer): Promise<string> {
  const { clock, log, signal } = request;
  let wait = pollMs.first;
  let channel = request.connect();
  try {
    for (;;) {
      try {
        const call = { timeoutMs: callMs, signal };
        const answer = await channel.client(NodeCA).nodeCertificateStatus({ nodeId }, call);
        const state = answer.status?.state;
        const certificate = answer.certificate;
        // An older request's certificate may still be what the managers hold.
        const ours = certificate !== undefined && csr.equals(certificate.csr);
        if (ours && (state === State.ISSUED || state === State.ROTATE)) {
          return Buffer.from(certificate.certificate).toString("utf8");
        }
        if (ours && state === State.FAILED) {
          throw new SkeinError("internal", answer.status?.err || "the managers refused the certificate");
        }
      } catch (error) {
        if (error instanceof SkeinError || signal.aborted) throw error;
        if (grpcCodeOf(error) !== status.DEADLINE_EXCEEDED) {
          log.warn("asking for the certificate failed", { error });
          channel.close();
          channel = request.connect();
        }
      }
      await sleep(clock, wait, signal);
      wait = Math.min(wait + pollMs.first, pollMs.max);
    }
  } finally {
    channel.close();
  }
}

/** Answers that no repetition will change. */
const final = new Set<number>([status.INVALID_ARGUMENT, status.PERMISSION_DENIED, status.UNIMPLEMENTED]);

async function severalTimes<T>(what: string, { clock, log, signal }: Common, job: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await job();
    } catch (error) {
      signal.throwIfAborted();
      const code = grpcCodeOf(error);
      if (attempt === attempts || (code !== undefined && final.has(code))) throw asDocker(error);
      log.warn(what, { attempt, error });
    }
    await sleep(clock, attemptPauseMs, signal);
  }
}

/** As dockerd shows a failed RPC. */
function asDocker(error: unknown): Error {
  const kind = grpcCodeOf(error) === status.INVALID_ARGUMENT ? "invalid" : "internal";
  return error instanceof SkeinError ? error : new SkeinError(kind, rpcErrorText(error), { cause: error });
}

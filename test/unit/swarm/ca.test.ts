import "reflect-metadata";
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import * as x509 from "@peculiar/x509";
import { ClusterSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { ClusterSpecSchema } from "#proto/docker/swarmkit/specs_pb.js";
import {
  checkKeyKind,
  createCsr,
  createRootCa,
  crossSign,
  identityOf,
  issuerOf,
  keyMatches,
  signCsr,
  splitPem,
  validityOf,
  verifyChain,
} from "../../../src/swarm/ca/certificates.ts";
import { makeToken, parseToken, rootDigest, sameToken } from "../../../src/swarm/ca/token.ts";
import { rootAfter } from "../../../src/swarm/manager/root-wanted.ts";

const VECTOR = "SWMTKN-1-27gwpqy8zrr16lkorbxjgux3bumowvt4v6hdq9lyyb887iohs3-0054v5h7phl5wc4e458l6ckxr";

test("a token is the known vector and reads back to the digest of the root", () => {
  const secret = Buffer.from("00112233445566778899aabbccddeeff", "hex");
  assert.equal(makeToken("hello\n", secret), VECTOR);
  assert.equal(parseToken(VECTOR).digest, rootDigest("hello\n"));
  assert.equal(parseToken(VECTOR).version, 1);
  assert.ok(sameToken(VECTOR, VECTOR));
  assert.ok(!sameToken(VECTOR, makeToken("hello\n")));
});

test("what is no token is refused", () => {
  for (const bad of [
    "",
    "SWMTKN-1-a-b",
    VECTOR.slice(1),
    `${VECTOR}x`,
    VECTOR.toUpperCase(),
    VECTOR.replace("-1-", "-3-"),
  ])
    assert.throws(() => parseToken(bad), /invalid join token/, bad);
});

test("a node certificate is what SwarmKit issues", async () => {
  const now = Date.UTC(2026, 0, 1, 12, 0, 31);
  const root = await createRootCa(now);
  const { csrPem, keyPem } = await createCsr();
  const chain = await signCsr({ root, csrPem, cn: "node1", ou: "swarm-manager", o: "cluster1", now });
  assert.deepEqual(identityOf(chain), { cn: "node1", ou: "swarm-manager", o: "cluster1" });
  assert.equal(verifyChain(chain, root.certPem, now, "client"), undefined);
  assert.equal(verifyChain(chain, root.certPem, now, "server"), undefined);
  assert.ok(keyMatches(chain, keyPem));
  const { notBefore, notAfter } = validityOf(chain);
  assert.equal(notBefore, Date.UTC(2026, 0, 1, 11, 0, 0));
  assert.equal(notAfter - notBefore, 2161 * 3_600_000);
  const parsed = new X509Certificate(chain);
  assert.deepEqual(parsed.subjectAltName, "DNS:swarm-manager, DNS:node1, DNS:swarm-ca");
  assert.equal(parsed.ca, false);
  assert.match(verifyChain(chain, root.certPem, now + 3000 * 3_600_000) ?? "", /expired/);
});

test("the issuer's subject and key are the bytes that stand in its certificate, a leaf's no less than a root's", async () => {
  const root = await createRootCa();
  const { csrPem } = await createCsr();
  const leaf = await signCsr({ root, csrPem, cn: "n".repeat(200), ou: "swarm-manager", o: "cluster" });
  for (const certificate of [root.certPem, leaf]) {
    const parsed = new x509.X509Certificate(certificate);
    assert.deepEqual(issuerOf(certificate), {
      subject: new Uint8Array(parsed.subjectName.toArrayBuffer()),
      publicKey: new Uint8Array(parsed.publicKey.rawData),
    });
  }
});

test("a foreign root and a forged issuer are refused", async () => {
  const root = await createRootCa();
  const foreign = await createRootCa();
  const { csrPem } = await createCsr();
  const chain = await signCsr({ root: foreign, csrPem, cn: "x", ou: "swarm-manager", o: "c" });
  assert.match(verifyChain(chain, root.certPem) ?? "", /unknown authority/);
  assert.match(verifyChain(chain + foreign.certPem, root.certPem) ?? "", /unknown authority/);
  const leafAsCa = await signCsr({ root, csrPem, cn: "x", ou: "swarm-worker", o: "c" });
  assert.match(verifyChain(chain + leafAsCa, root.certPem) ?? "", /unknown authority/);
});

test("openssl agrees", async () => {
  const dir = mkdtempSync(join(tmpdir(), "skein-ca-"));
  try {
    const root = await createRootCa();
    const { csrPem } = await createCsr();
    writeFileSync(join(dir, "ca.pem"), root.certPem);
    writeFileSync(join(dir, "leaf.pem"), await signCsr({ root, csrPem, cn: "n", ou: "swarm-worker", o: "c" }));
    const out = execFileSync("openssl", [
      "verify",
      "-x509_strict",
      "-CAfile",
      join(dir, "ca.pem"),
      join(dir, "leaf.pem"),
    ]);
    assert.match(out.toString(), /OK/);
  } finally {
    rmSync(dir, { recursive: true });
  }
});

/** A root as `openssl` makes it: other kinds of strings, several parts, text around the certificate. */
function opensslRoot(days = 3650, kind: readonly string[] = ["EC", "ec_paramgen_curve:P-256"]) {
  const dir = mkdtempSync(join(tmpdir(), "skein-ca-"));
  try {
    const [key, cert] = [join(dir, "k.pem"), join(dir, "c.pem")];
    const [algorithm = "", option = ""] = kind;
    execFileSync("openssl", ["genpkey", "-algorithm", algorithm, "-pkeyopt", option, "-out", key], { stdio: "ignore" });
    const subject = ["-subj", "/C=NL/O=Möbel & Co/CN=own root", "-utf8"];
    execFileSync("openssl", ["req", "-x509", "-new", "-key", key, ...subject, "-days", String(days), "-out", cert]);
    const text = execFileSync("openssl", ["x509", "-in", cert, "-text"], { encoding: "utf8" });
    return { certPem: readFileSync(cert, "utf8"), keyPem: readFileSync(key, "utf8"), text };
  } finally {
    rmSync(dir, { recursive: true });
  }
}

test("a root of openssl's issues certificates that name it byte for byte, and is vouched for", async () => {
  const old = await createRootCa();
  const own = opensslRoot();
  const { csrPem } = await createCsr();
  const crossed = await crossSign(own.certPem, old);
  const chain = await signCsr({
    ...{ root: own, csrPem, cn: "n", ou: "swarm-worker", o: "c", intermediatesPem: crossed },
  });
  const subjectOf = (pem: string) => Buffer.from(new x509.X509Certificate(pem).subjectName.toArrayBuffer());
  const leaf = new x509.X509Certificate(splitPem(chain)[0] ?? "");
  assert.deepEqual(Buffer.from(leaf.issuerName.toArrayBuffer()), subjectOf(own.certPem));
  assert.deepEqual(Buffer.from(leaf.issuerName.toArrayBuffer()), Buffer.from(issuerOf(own.certPem).subject));
  assert.deepEqual(subjectOf(crossed), subjectOf(own.certPem));
  assert.equal(verifyChain(chain, own.certPem), undefined);
  assert.equal(verifyChain(chain, old.certPem), undefined);
});

test("roots of RSA and of larger curves sign and are signed; of another kind of key they are refused", async () => {
  const first = await createRootCa();
  for (const kind of [
    ["RSA", "rsa_keygen_bits:2048"],
    ["EC", "ec_paramgen_curve:P-384"],
  ]) {
    const own = opensslRoot(3650, kind);
    const { csrPem } = await createCsr();
    const crossed = await crossSign(own.certPem, first);
    const chain = await signCsr({ root: own, csrPem, cn: "n", ou: "swarm-worker", o: "c", intermediatesPem: crossed });
    assert.equal(verifyChain(chain, own.certPem), undefined, kind.join());
    assert.equal(verifyChain(chain, first.certPem), undefined, kind.join());
    const back = await createRootCa();
    const leaf = await signCsr({ root: back, csrPem, cn: "n", ou: "swarm-worker", o: "c" });
    assert.equal(verifyChain(leaf + (await crossSign(back.certPem, own)), own.certPem), undefined, kind.join());
  }
  assert.doesNotThrow(() => checkKeyKind(first.keyPem));
  const curve = generateKeyPairSync("ec", { namedCurve: "secp256k1" }).privateKey;
  assert.throws(() => checkKeyKind(curve.export({ type: "pkcs8", format: "pem" }).toString()), /only RSA and ECDSA/);
});

test("which root a cluster is to have: as it is, a fresh one, one's own, the former one again", async () => {
  const now = Date.now();
  const old = await createRootCa();
  const own = opensslRoot();
  const encode = (text: string) => new TextEncoder().encode(text);
  const decode = (bytes: Uint8Array | undefined) => new TextDecoder().decode(bytes);
  const cluster = create(ClusterSchema, { rootCa: { caCert: encode(old.certPem), caKey: encode(old.keyPem) } });
  const spec = (cert = "", key = "", forceRotate = 0n) =>
    create(ClusterSpecSchema, {
      caConfig: { signingCaCert: encode(cert), signingCaKey: encode(key), forceRotate },
    });
  const nobody = { reachable: async () => false, crossSign: () => Promise.reject(new Error("nobody")) };
  const after = (from: typeof cluster, given: ReturnType<typeof spec>) => rootAfter(from, given, now, nobody);
  assert.equal(await after(cluster, spec()), cluster.rootCa, "as it is");
  const fresh = await after(cluster, spec("", "", 1n));
  assert.notEqual(decode(fresh.rootRotation?.caCert), old.certPem);
  assert.ok(keyMatches(decode(fresh.rootRotation?.caCert), decode(fresh.rootRotation?.caKey)));
  assert.equal(fresh.lastForcedRotation, 1n);
  assert.equal((await after(cluster, spec(old.certPem, old.keyPem))).rootRotation, undefined, "it has that one");
  const rotating = create(ClusterSchema, { rootCa: await after(cluster, spec(own.text, own.keyPem)) });
  assert.equal(decode(rotating.rootCa?.rootRotation?.caCert), own.certPem, "nothing around it");
  assert.equal(await after(rotating, spec()), rotating.rootCa, "it goes on");
  const again = await after(rotating, spec(own.certPem, own.keyPem));
  assert.deepEqual(
    again.rootRotation?.crossSignedCaCert,
    rotating.rootCa?.rootRotation?.crossSignedCaCert,
    "it gets that one",
  );
  assert.equal((await after(rotating, spec(old.certPem, old.keyPem))).rootRotation, undefined);
  const refused = (given: ReturnType<typeof spec>, words: RegExp) => assert.rejects(after(cluster, given), words);
  await refused(spec(own.certPem, old.keyPem), /InvalidArgument desc = certificate key mismatch$/);
  await refused(
    spec(own.certPem),
    /desc = there must be at least one valid, reachable external CA corresponding to the desired CA certificate$/,
  );
  await refused(spec("", own.keyPem), /the signing CA cert must also be provided/);
  await refused(spec("nonsense", own.keyPem), /no PEM certificate found/);
  await refused(spec(own.certPem + old.certPem, own.keyPem), /cannot contain multiple certificates/);
  const brief = opensslRoot(300);
  await refused(spec(brief.certPem, brief.keyPem), /CA certificate expires too soon/);
});

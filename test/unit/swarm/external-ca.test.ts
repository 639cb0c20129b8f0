/** What is sent to an external certificate authority, what is believed of its answers, and how long it is waited for. */
import "reflect-metadata";
import assert from "node:assert/strict";
import { createPrivateKey } from "node:crypto";
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import * as x509 from "@peculiar/x509";
import { ClusterSchema, type Node, NodeSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { ClusterSpecSchema, NodeSpec_Membership } from "#proto/docker/swarmkit/specs_pb.js";
import { NodeRole, IssuanceStatus_State as State } from "#proto/docker/swarmkit/types_pb.js";
import { VirtualClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import {
  createCsr,
  createRootCa,
  crossSign,
  type RootCa,
  signCsr,
  splitPem,
  verifyChain,
} from "../../../src/swarm/ca/certificates.ts";
import { certificatesOf, crossSignRequest, nodeRequest } from "../../../src/swarm/ca/cfssl.ts";
import { type Caller, callAuthority, checkReachable, Unreachable } from "../../../src/swarm/ca/external.ts";
import { whyNotCrossed, whyNotIssued } from "../../../src/swarm/ca/issued.ts";
import { addressesFor, ExternalAuthorities } from "../../../src/swarm/manager/authorities.ts";
import { rootAfter } from "../../../src/swarm/manager/root-wanted.ts";
import { Signing } from "../../../src/swarm/manager/signing.ts";
import { MemoryBackend } from "../../../src/swarm/store/backend.ts";
import { Store } from "../../../src/swarm/store/store.ts";

const CLUSTER = "cluster1";
const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array | undefined) => new TextDecoder().decode(bytes);
/** Of Docker 20.10's manager, byte for byte but for the request of the node in it. */
const recorded = {
  node:
    '{"hosts":["swarm-manager","pf89sqac8lpxum8bfzo9sfsyx","swarm-ca"],"certificate_request":"CSR","subject":{"CN":' +
    '"pf89sqac8lpxum8bfzo9sfsyx","names":[{"C":"","ST":"","L":"","O":"sqi5nsjowe1vb1rbp9385mh52","OU":"swarm-manager",' +
    '"SerialNumber":""}],"SerialNumber":""},"profile":"","crl_override":"","label":""}',
  crossSign:
    '{"hosts":null,"certificate_request":"CSR","subject":{"CN":"swarm-ca","names":[],"SerialNumber":""},"profile":"CA",' +
    '"crl_override":"","label":"","extensions":[{"id":"2.5.29.19","critical":true,"value":"30030101ff"}]}',
};

test("requests are what Docker's managers send", () => {
  const node = { cn: "pf89sqac8lpxum8bfzo9sfsyx", ou: "swarm-manager", o: "sqi5nsjowe1vb1rbp9385mh52" } as const;
  assert.equal(nodeRequest({ csrPem: "CSR", ...node }), recorded.node);
  assert.deepEqual(JSON.parse(nodeRequest({ csrPem: "CSR", ...node, ou: "swarm-worker" })).hosts, [
    "swarm-worker",
    node.cn,
  ]);
  assert.equal(crossSignRequest("CSR", "swarm-ca", Buffer.from("30030101ff", "hex")), recorded.crossSign);
});

test("answers: a chain, cfssl's errors, and what is neither", async () => {
  const { certPem } = await createRootCa();
  const said = (json: unknown, status = 200) => certificatesOf(status, JSON.stringify(json));
  const answer = { success: true, result: { certificate: `\n${certPem.trim()}` }, errors: [], messages: [] };
  assert.equal(said(answer), certPem);
  assert.throws(() => said(answer, 400), /^NotSigned: unexpected status code in CSR response: 400 - /);
  const refusal = { success: false, result: null, errors: [{ code: 5200, message: "Invalid\n\u001b[31mpolicy" }] };
  assert.throws(() => said(refusal), /response errors: \[\{5200 Invalid \[31mpolicy\}\]$/);
  for (const bad of [
    null,
    [],
    1,
    "x",
    {},
    { success: true },
    { success: true, result: [] },
    { success: 1, result: {} },
  ]) {
    assert.throws(() => said(bad), { name: "NotSigned" }, JSON.stringify(bad));
  }
  assert.throws(() => said({ success: true, result: { certificate: 1 } }), /field type/);
  assert.throws(() => said({ success: true, result: { certificate: "none" } }), /holds no certificate/);
  assert.throws(() => said({ success: true, result: { certificate: certPem.repeat(6) } }), /holds 6 certificates/);
  assert.throws(() => certificatesOf(200, "<html>"), /unable to parse JSON response: <html>$/);
});

/** An authority at 127.0.0.1 that answers as it is told, with a certificate of `root`. */
class Authority {
  readonly server: Server;
  answer: RequestListener = () => {};
  calls = 0;

  private constructor(server: Server) {
    this.server = server;
  }

  static async listen(root: RootCa, own: { certPem: string; keyPem: string }): Promise<Authority> {
    const server = createServer({ cert: own.certPem, key: own.keyPem, ca: root.certPem, requestCert: true });
    const made = new Authority(server);
    server.on("request", (request, response) => {
      made.calls++;
      made.answer(request, response);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return made;
  }

  get url(): string {
    return `https://localhost:${(this.server.address() as AddressInfo).port}/api/v1/cfssl/sign`;
  }

  close(): void {
    this.server.closeAllConnections();
    this.server.close();
  }
}

let root: RootCa;
let manager: { certPem: string; keyPem: string };
let authority: Authority;

async function certificate(by: RootCa, cn: string, ou: "swarm-manager" | "swarm-worker", o = CLUSTER) {
  const { csrPem, keyPem } = await createCsr();
  return { csrPem, keyPem, certPem: await signCsr({ root: by, csrPem, cn, ou, o }) };
}

before(async () => {
  root = await createRootCa();
  manager = await certificate(root, "manager1", "swarm-manager");
  // A node's certificate names its owner among its names: here the host at which the authority is.
  authority = await Authority.listen(root, await certificate(root, "localhost", "swarm-manager"));
});
after(() => authority.close());

const caller = (): Caller => ({ ...manager, rootPem: root.certPem });
const bodyOf = async (request: IncomingMessage) => {
  let body = "";
  for await (const part of request) body += part;
  return body;
};
const give = (response: ServerResponse, certPem: string) =>
  response.end(JSON.stringify({ success: true, result: { certificate: certPem }, errors: [], messages: [] }));

/** Signs as cfssl does: what the request says. */
const signs =
  (by: () => RootCa): RequestListener =>
  async (request, response) => {
    const { certificate_request: csrPem, subject } = JSON.parse(await bodyOf(request));
    const [{ O: o, OU: ou }] = subject.names;
    give(response, await signCsr({ root: by(), csrPem, cn: subject.CN, ou, o }));
  };

test("the call: the manager shows itself, the authority shows a certificate of the root for its name", async () => {
  let shown: unknown;
  authority.answer = async (request, response) => {
    const { socket } = request as IncomingMessage & { socket: { getPeerCertificate(): { subject: unknown } } };
    shown = { subject: socket.getPeerCertificate().subject, body: await bodyOf(request), path: request.url };
    give(response, root.certPem);
  };
  assert.equal(await callAuthority(authority.url, "{}", caller()), root.certPem);
  const subject = { O: CLUSTER, OU: "swarm-manager", CN: "manager1" };
  assert.deepEqual(JSON.parse(JSON.stringify(shown)), { subject, body: "{}", path: "/api/v1/cfssl/sign" });
  const { calls } = authority;
  const foreign = { ...caller(), rootPem: (await createRootCa()).certPem };
  await assert.rejects(checkReachable(authority.url, foreign), /unknown authority/);
  await assert.rejects(callAuthority(authority.url, "{}", foreign), Unreachable);
  const byAddress = authority.url.replace("localhost", "127.0.0.1");
  await assert.rejects(callAuthority(byAddress, "{}", caller()), /not valid for 127\.0\.0\.1/);
  await assert.rejects(checkReachable(authority.url.replace("https", "http"), caller()), /invalid HTTP scheme/);
  await assert.rejects(checkReachable("nonsense", caller()), /invalid URL/);
  await assert.rejects(checkReachable("https://localhost:1/", caller()), /ECONNREFUSED/);
  assert.equal(authority.calls, calls, "nothing was told to whom is not believed");
});

test("hostile answers end in bounded time and memory", async () => {
  const hostile: [RequestListener, RegExp][] = [
    [(_, response) => response.writeHead(302, { location: authority.url }).end(), /unexpected status code .*302/],
    [(_, response) => response.end("<html>hello</html>"), /unable to parse JSON response: <html>hello/],
    [(_, response) => response.socket?.destroy(), /hang up|closed|ECONNRESET/],
    [
      (_, response) => response.writeHead(200, { "content-length": 5 }).write("{", () => response.destroy()),
      /abort|closed/,
    ],
    [
      (_, response) => {
        // As fast as it is read: only the reader can end this.
        const more = () => response.destroyed || response.write(Buffer.alloc(65536, 32), more);
        more();
      },
      /longer than 262144 bytes/,
    ],
  ];
  for (const [answer, words] of hostile) {
    authority.answer = answer;
    await assert.rejects(callAuthority(authority.url, "{}", caller()), words);
  }
  const slow: RequestListener[] = [
    () => {},
    (_, response) => {
      const drip = setInterval(() => response.write(" "), 20);
      response.on("close", () => clearInterval(drip));
    },
  ];
  for (const answer of slow) {
    authority.answer = answer;
    await assert.rejects(callAuthority(authority.url, "{}", caller(), 200), /no answer in time/);
  }
});

test("a certificate is believed only when it is what was asked for", async () => {
  const now = Date.now();
  const day = 86_400_000;
  const { csrPem } = await createCsr();
  const asked = { csrPem, cn: "n1", ou: "swarm-manager", o: CLUSTER, rootPem: root.certPem, now } as const;
  const sign = (change: Partial<Parameters<typeof signCsr>[0]> = {}) =>
    signCsr({ root, csrPem, cn: "n1", ou: "swarm-manager", o: CLUSTER, ...change });
  assert.equal(await whyNotIssued(await sign(), asked), undefined);
  assert.match((await whyNotIssued(await sign({ cn: "n2" }), asked)) ?? "", /for node "n2"/);
  assert.match((await whyNotIssued(await sign({ ou: "swarm-worker" }), asked)) ?? "", /for role "swarm-worker"/);
  assert.match((await whyNotIssued(await sign(), { ...asked, ou: "swarm-worker" })) ?? "", /for role "swarm-manager"/);
  assert.match((await whyNotIssued(await sign({ o: "c2" }), asked)) ?? "", /for cluster "c2"/);
  const otherKey = await sign({ csrPem: (await createCsr()).csrPem });
  assert.match((await whyNotIssued(otherKey, asked)) ?? "", /another key/);
  const other = await createRootCa();
  assert.match((await whyNotIssued(await sign({ root: other }), asked)) ?? "", /unknown authority/);
  assert.match((await whyNotIssued(await sign({ now: now - 91 * day }), asked)) ?? "", /has expired/);
  assert.match((await whyNotIssued(await sign({ now: now - 90 * day + 60_000 }), asked)) ?? "", /within five minutes/);
  assert.match((await whyNotIssued(await sign({ now: now + day }), asked)) ?? "", /not valid yet/);
  assert.match((await whyNotIssued(root.certPem, asked)) ?? "", /another key/);
  const nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  assert.equal(await whyNotIssued(nonsense, asked), "not a certificate");
  // While the root changes: by the new one itself, which the old one vouches for.
  const crossing = { intermediatesPem: await crossSign(other.certPem, root), oldRootPem: root.certPem };
  const changing = { ...asked, rootPem: other.certPem, crossing };
  assert.equal(await whyNotIssued(await sign({ root: other }), changing), undefined);
  assert.match((await whyNotIssued(await sign(), changing)) ?? "", /unknown authority/);
});

test("a node's certificate is for its uses, under the names by which managers are called", async () => {
  const { csrPem } = await createCsr();
  const { serverAuth, clientAuth } = x509.ExtendedKeyUsage;
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const key = createPrivateKey(root.keyPem).export({ type: "pkcs8", format: "der" });
  const signingKey = await crypto.subtle.importKey("pkcs8", new Uint8Array(key), algorithm, false, ["sign"]);
  const issue = async (ou: string, names: string[], uses: x509.ExtendedKeyUsageType[], ca = false) =>
    (
      await x509.X509CertificateGenerator.create({
        subject: [{ O: [CLUSTER] }, { OU: [ou] }, { CN: ["n1"] }],
        issuer: new x509.X509Certificate(root.certPem).subjectName,
        notAfter: new Date(Date.now() + 86_400_000),
        publicKey: new x509.Pkcs10CertificateRequest(csrPem).publicKey,
        ...{ signingKey, signingAlgorithm: algorithm },
        extensions: [
          new x509.BasicConstraintsExtension(ca, undefined, true),
          new x509.ExtendedKeyUsageExtension(uses),
          new x509.SubjectAlternativeNameExtension(names.map((value) => ({ type: "dns", value }))),
        ],
      })
    ).toString("pem");
  const whyNot = async (
    ou: "swarm-manager" | "swarm-worker",
    ...given: [string[], x509.ExtendedKeyUsageType[], boolean?]
  ) =>
    whyNotIssued(await issue(ou, ...given), {
      ...{ csrPem, cn: "n1", ou, o: CLUSTER, rootPem: root.certPem, now: Date.now() },
    });
  const both = [serverAuth, clientAuth];
  assert.equal(await whyNot("swarm-manager", ["swarm-manager", "swarm-ca"], both), undefined);
  assert.equal(await whyNot("swarm-manager", ["swarm-manager"], both), "it does not name swarm-ca");
  assert.equal(await whyNot("swarm-manager", ["swarm-ca"], both), "it does not name swarm-manager");
  assert.match((await whyNot("swarm-manager", ["swarm-manager", "swarm-ca"], [clientAuth])) ?? "", /server auth/);
  assert.match((await whyNot("swarm-worker", ["swarm-worker"], [serverAuth])) ?? "", /client auth/);
  assert.equal(await whyNot("swarm-worker", ["swarm-worker"], [clientAuth]), undefined);
  assert.match((await whyNot("swarm-worker", ["swarm-worker"], both, true)) ?? "", /one of an authority/);
});

test("a cross-signed root is believed only when it is the next one", async () => {
  const [next, other] = [await createRootCa(), await createRootCa()];
  const now = Date.now();
  assert.equal(whyNotCrossed(await crossSign(next.certPem, root), next.certPem, root.certPem, now), undefined);
  assert.match(
    whyNotCrossed(await crossSign(other.certPem, root), next.certPem, root.certPem, now) ?? "",
    /another key/,
  );
  const byOther = await crossSign(next.certPem, other);
  assert.match(whyNotCrossed(byOther, next.certPem, root.certPem, now) ?? "", /unknown authority/);
});

test("an authority without a certificate of its own signs under the present root", async () => {
  const other = await createRootCa();
  const spec = create(ClusterSpecSchema, {
    caConfig: {
      externalCas: [
        { url: "https://a/" },
        { url: "https://b/", caCert: encode(`x\n${other.certPem.trim()}`) },
        { url: "https://c/", caCert: encode("nonsense") },
      ],
    },
  });
  assert.deepEqual(addressesFor(spec, root.certPem, root.certPem), ["https://a/"]);
  assert.deepEqual(addressesFor(spec, other.certPem, root.certPem), ["https://b/"]);
});

/** The root of a swarm as it goes from its own key to an authority's and back. */
test("which root a cluster is to have, with authorities: theirs, another of theirs, its own again", async () => {
  const [own, theirs] = [root, await createRootCa()];
  const there = new Set(["https://theirs/"]);
  const asked: string[] = [];
  const authorities = {
    reachable: async (addresses: readonly string[]) => addresses.some((address) => there.has(address)),
    crossSign: async (addresses: readonly string[], next: RootCa) => {
      asked.push(...addresses);
      return crossSign(next.certPem, theirs);
    },
  };
  const spec = (cert: string, key: string, url: string, caCert: string, forceRotate = 0n) =>
    create(ClusterSpecSchema, {
      caConfig: {
        ...{ signingCaCert: encode(cert), signingCaKey: encode(key), forceRotate },
        externalCas: url ? [{ url, caCert: encode(caCert) }] : [],
      },
    });
  const now = Date.now();
  const after = (cluster: ReturnType<typeof clusterOf>, given: ReturnType<typeof spec>) =>
    rootAfter(cluster, given, now, authorities);
  const clusterOf = (rootCa: NonNullable<Parameters<typeof rootAfter>[0]["rootCa"]>) =>
    create(ClusterSchema, { rootCa });
  const first = create(ClusterSchema, { rootCa: { caCert: encode(own.certPem), caKey: encode(own.keyPem) } });
  const toTheirs = spec(theirs.certPem, "", "https://theirs/", theirs.certPem);
  const going = await after(first, toTheirs);
  assert.equal(going.rootRotation?.caKey.length, 0, "the swarm has no key of it");
  assert.equal(verifyChain(decode(going.rootRotation?.crossSignedCaCert), own.certPem), undefined);
  await assert.rejects(after(clusterOf(going), spec("", "", "", "")), /corresponding to the next CA certificate/);
  const gone = create(ClusterSchema, { rootCa: { caCert: encode(theirs.certPem) } });
  const stay = spec("", "", "https://theirs/", "");
  assert.equal(await after(gone, stay), gone.rootCa, "one that names no root signs under the present one");
  await assert.rejects(after(gone, spec("", "", "https://away/", "")), /corresponding to the current CA certificate$/);
  await assert.rejects(after(gone, spec("", "", "", "")), /corresponding to the current CA certificate$/);
  const third = await createRootCa();
  const both = spec(third.certPem, "", "https://theirs/", "");
  both.caConfig?.externalCas.push(...(spec("", "", "https://theirs/", third.certPem).caConfig?.externalCas ?? []));
  await assert.rejects(after(gone, both), /rotating from one external CA to a different external CA is not supported/);
  const back = await after(gone, spec("", "", "https://theirs/", "", 1n));
  assert.deepEqual(asked, ["https://theirs/"]);
  assert.equal(verifyChain(decode(back.rootRotation?.crossSignedCaCert), theirs.certPem), undefined);
  assert.ok(back.rootRotation && back.rootRotation.caKey.length > 0);
  const withKey = await after(gone, spec(theirs.certPem, theirs.keyPem, "", ""));
  assert.deepEqual([decode(withKey.caKey), withKey.rootRotation], [theirs.keyPem, undefined], "its key is brought in");
});

/** A store with a cluster whose only signer is the authority, under virtual time. */
async function signingWorld(urls: string[]) {
  const clock = new VirtualClock(Date.now());
  const store = await Store.open(new MemoryBackend(), clock, nullLogger);
  const spec = { caConfig: { externalCas: urls.map((url) => ({ url })) } };
  await store.update((tx) =>
    tx.create("cluster", create(ClusterSchema, { id: CLUSTER, spec, rootCa: { caCert: encode(root.certPem) } })),
  );
  const authorities = new ExternalAuthorities(() => manager, clock, nullLogger);
  const signing = new Signing(store, CLUSTER, authorities, clock, nullLogger);
  const join = async (id: string) => {
    const csr = encode((await createCsr()).csrPem);
    const certificate = { csr, cn: id, role: NodeRole.WORKER, status: { state: State.PENDING } };
    const node = create(NodeSchema, { id, spec: { membership: NodeSpec_Membership.ACCEPTED }, certificate });
    await store.update((tx) => tx.create("node", node));
  };
  /** Virtual time goes by until the node's certificate is as wanted; calls of the authority take real time. */
  const until = async (id: string, probe: (node: Node) => boolean): Promise<Node> => {
    for (let step = 0; step < 400; step++) {
      const node = store.view.get("node", id);
      if (node && probe(node)) return node;
      await clock.advance(100);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    assert.fail(`node ${id} never became so: ${store.view.get("node", id)?.certificate?.status?.err}`);
  };
  return { clock, join, signing, store, until };
}
const stateOf = ({ certificate }: Node) => certificate?.status?.state;
const errOf = ({ certificate }: Node) => certificate?.status?.err ?? "";

test("authorities are tried in turn; who is away, refuses or lies is asked again with growing pauses", async () => {
  const world = await signingWorld(["https://localhost:1/", authority.url]);
  try {
    authority.answer = (_, response) => response.writeHead(500).end("busy");
    authority.calls = 0;
    await world.join("n1");
    const waiting = await world.until("n1", (node) => errOf(node) !== "");
    assert.equal(stateOf(waiting), State.PENDING, "it is not given up");
    assert.match(errOf(waiting), /localhost:1\/: .*ECONNREFUSED.*; https:.*: unexpected status code .*500 - busy$/);
    for (let second = 0; second < 60; second++) {
      await world.clock.advance(1000);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    assert.ok(authority.calls >= 4 && authority.calls <= 14, `${authority.calls} calls in a minute`);
    const stranger = await createRootCa();
    authority.answer = signs(() => stranger);
    await world.until("n1", (node) => /the certificate is refused: certificate signed by unknown/.test(errOf(node)));
    authority.answer = signs(() => root);
    const issued = await world.until("n1", (node) => stateOf(node) === State.ISSUED);
    assert.equal(errOf(issued), "");
    assert.equal(verifyChain(decode(issued.certificate?.certificate), root.certPem), undefined);
    assert.equal(splitPem(decode(issued.certificate?.certificate)).length, 1);
  } finally {
    world.signing.close();
  }
});

test("nobody is there: one request finds out for all, and then all are signed", async () => {
  let url = "https://localhost:1/";
  const world = await signingWorld([url]);
  try {
    for (let i = 0; i < 20; i++) await world.join(`n${i}`);
    await world.until("n0", (node) => errOf(node) !== "");
    const told = () => world.store.view.all("node").filter((node) => errOf(node) !== "").length;
    assert.ok(told() <= 9, `${told()} asked where nobody is`);
    authority.answer = signs(() => root);
    url = authority.url;
    await world.store.update((tx) => {
      const cluster = tx.get("cluster", CLUSTER);
      assert.ok(cluster);
      const spec = create(ClusterSpecSchema, { caConfig: { externalCas: [{ url }] } });
      tx.update("cluster", { ...cluster, spec });
    });
    for (let i = 0; i < 20; i++) await world.until(`n${i}`, (node) => stateOf(node) === State.ISSUED);
  } finally {
    world.signing.close();
  }
});

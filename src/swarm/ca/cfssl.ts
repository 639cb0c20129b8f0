/**
 * What is said to an external certificate authority, and what it answers: the `sign` call of cfssl's API, as SwarmKit's
 * managers say it. (SwarmKit: ca/external.go; cfssl: doc/api/endpoint_sign.txt) Pure: `external.ts` carries it.
 */
import { type Shape, struct } from "../../base/shape.ts";
import { MANAGER_OU, type NodeOu, ROOT_CN, splitPem } from "./certificates.ts";

/** No answer with a chain of certificates is longer; the limit is SwarmKit's. Bytes. */
export const MAX_ANSWER = 256 << 10;
/** More certificates than this no chain of a node has. */
const MAX_CHAIN = 5;
/** So much of what an authority says of its refusal is passed on. */
const MAX_REASON = 300;
/** The profile of the authority's configuration for certificates of other authorities. */
const CROSS_SIGN_PROFILE = "CA";
const BASIC_CONSTRAINTS = "2.5.29.19";

/** The answer is no certificate. What may be otherwise the next time: an authority is mended, nodes wait. */
export class NotSigned extends Error {
  override readonly name = "NotSigned";
}

interface Subject {
  readonly cn: string;
  readonly names: readonly { readonly O: string; readonly OU: string }[];
}

function request(csrPem: string, subject: Subject, hosts: readonly string[] | null, more: object): string {
  return JSON.stringify({
    hosts,
    certificate_request: csrPem,
    subject: {
      CN: subject.cn,
      names: subject.names.map(({ O, OU }) => ({ C: "", ST: "", L: "", O, OU, SerialNumber: "" })),
      SerialNumber: "",
    },
    profile: "",
    crl_override: "",
    label: "",
    ...more,
  });
}

/** The body that asks for a node's certificate: whose it is to be says the manager, not the node's request. */
export function nodeRequest(node: { csrPem: string; cn: string; ou: NodeOu; o: string }): string {
  const { cn, csrPem, o, ou } = node;
  const hosts = [ou, cn, ...(ou === MANAGER_OU ? [ROOT_CN] : [])];
  return request(csrPem, { cn, names: [{ O: o, OU: ou }] }, hosts, {});
}

/** The body that asks the authority to vouch for the next root. `basicConstraints` is DER: cfssl drops those of the request. */
export function crossSignRequest(csrPem: string, cn: string, basicConstraints: Uint8Array): string {
  const value = Buffer.from(basicConstraints).toString("hex");
  return request(csrPem, { cn, names: [] }, null, {
    profile: CROSS_SIGN_PROFILE,
    extensions: [{ id: BASIC_CONSTRAINTS, critical: true, value }],
  });
}

const anything: Shape<unknown> = (value) => value;
const answer = struct({ success: anything, result: anything, errors: anything });
const result = struct({ certificate: anything });
const fault = struct({ code: anything, message: anything });

/** A stranger's text, fit for one line of a log. */
function quoted(text: string): string {
  const line = text.replace(/[^\x20-\x7e]+/g, " ").trim();
  return line.length > MAX_REASON ? `${line.slice(0, MAX_REASON)}…` : line;
}

/** The certificates of an answer, leaf first, each PEM with nothing around it. Throws `NotSigned`. */
export function certificatesOf(status: number, body: string): string {
  if (status !== 200) throw new NotSigned(`unexpected status code in CSR response: ${status} - ${quoted(body)}`);
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch {
    throw new NotSigned(`unable to parse JSON response: ${quoted(body)}`);
  }
  const { errors, result: given, success } = decode(answer, json);
  if (success !== true || given === undefined || given === null) {
    const faults = Array.isArray(errors) ? errors.slice(0, MAX_CHAIN).map((error) => decode(fault, error)) : [];
    if (faults.length === 0) throw new NotSigned("certificate signing request failed");
    const told = faults.map(({ code, message }) => `{${Number(code)} ${String(message)}}`).join(" ");
    throw new NotSigned(`response errors: [${quoted(told)}]`);
  }
  const { certificate } = decode(result, given);
  if (typeof certificate !== "string") throw new NotSigned("invalid result certificate field type");
  const chain = splitPem(certificate).map((pem) => `${pem.trim()}\n`);
  if (chain.length === 0) throw new NotSigned("the answer holds no certificate");
  if (chain.length > MAX_CHAIN) throw new NotSigned(`the answer holds ${chain.length} certificates`);
  return chain.join("");
}

function decode<T>(shape: Shape<T>, json: unknown): T {
  try {
    return shape(json, "");
  } catch {
    throw new NotSigned("invalid result type");
  }
}

/**
 * Calls to an external certificate authority: HTTPS under mutual TLS, with this manager's certificate. The authority must
 * show a certificate of one of the swarm's roots (while the root changes: of the old or the new one) for the host in its
 * address, before it is told anything. Every call is bounded in time and size; nothing is followed elsewhere.
 */
import { X509Certificate } from "node:crypto";
import { request } from "node:http";
import { isIP } from "node:net";
import { connect, type TLSSocket } from "node:tls";
import { chainOf, SERVER_AUTH, verifyChain } from "./certificates.ts";
import { certificatesOf, MAX_ANSWER, NotSigned } from "./cfssl.ts";

/** One call, from the first packet to the last byte of the answer. Milliseconds; SwarmKit's. */
const CALL_MS = 5_000;

/** Nobody answers, or somebody who is not to be told: asking again for another node is in vain, too. */
export class Unreachable extends NotSigned {}

const late = () => new Unreachable("no answer in time");
const closed = () => new Unreachable("the connection was closed");

/** How a manager shows itself, and whom it believes. All PEM. */
export interface Caller {
  readonly certPem: string;
  readonly keyPem: string;
  readonly rootPem: string;
}

/** Where the authority is. Throws when it is not to be spoken to. */
function parse(address: string): { host: string; port: number; path: string; authority: string } {
  const url = URL.canParse(address) ? new URL(address) : undefined;
  if (!url) throw new Unreachable("invalid URL");
  if (url.protocol !== "https:") throw new Unreachable("invalid HTTP scheme");
  const host = url.hostname.replace(/^\[|\]$/g, "");
  return { host, port: Number(url.port || 443), path: url.pathname + url.search, authority: url.host };
}

/** Why this is not the authority, or undefined. As Go does: the name must stand among the alternative names. */
function refusal(socket: TLSSocket, host: string, rootPem: string): string | undefined {
  const chain = chainOf(socket);
  const leaf = chain[0] && new X509Certificate(chain[0]);
  if (!leaf) return "it shows no certificate";
  const reason = verifyChain(chain, rootPem);
  if (reason) return reason;
  if (leaf.keyUsage !== undefined && !leaf.keyUsage.includes(SERVER_AUTH)) {
    return "certificate is not for server authentication";
  }
  const named = isIP(host) ? leaf.checkIP(host) : leaf.checkHost(host, { subject: "never" });
  return named === undefined ? `certificate is not valid for ${host}` : undefined;
}

async function open(address: string, { certPem, keyPem, rootPem }: Caller, signal: AbortSignal): Promise<TLSSocket> {
  const { host, port } = parse(address);
  const socket = connect({
    ...{ host, port, cert: certPem, key: keyPem, minVersion: "TLSv1.2" },
    ...(isIP(host) ? {} : { servername: host }),
    // Judged below: OpenSSL takes a cross-signed root for a self-signed one.
    rejectUnauthorized: false,
  });
  const abort = () => socket.destroy(late());
  signal.addEventListener("abort", abort, { once: true });
  socket.once("close", () => signal.removeEventListener("abort", abort));
  await new Promise<void>((resolve, reject) => {
    const fail = (error: Error) => reject(new Unreachable(error.message, { cause: error }));
    socket.once("secureConnect", resolve);
    socket.on("error", fail);
    socket.once("close", () => fail(closed()));
  });
  const reason = refusal(socket, host, rootPem);
  if (reason === undefined) return socket;
  socket.destroy();
  throw new Unreachable(reason);
}

/** Throws `Unreachable` unless somebody answers there who has a certificate of the caller's root. */
export async function checkReachable(address: string, caller: Caller): Promise<void> {
  (await open(address, caller, AbortSignal.timeout(CALL_MS))).destroy();
}

/** Has a request signed; gives the chain, PEM, as it came: nothing of it is checked but its form. Throws `NotSigned`. */
export async function callAuthority(
  address: string,
  body: string,
  caller: Caller,
  timeoutMs = CALL_MS,
): Promise<string> {
  const signal = AbortSignal.timeout(timeoutMs);
  const socket = await open(address, caller, signal);
  const { authority, path } = parse(address);
  try {
    const { status, text } = await post(socket, { host: authority, path, body }, signal);
    return certificatesOf(status, text);
  } finally {
    socket.destroy();
  }
}

/** One request on a connection of its own; an answer that is broken off is no worse than none. */
function post(
  socket: TLSSocket,
  { body, host, path }: { host: string; path: string; body: string },
  signal: AbortSignal,
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const fail = (error: Error) => reject(new Unreachable(error.message, { cause: error }));
    signal.addEventListener("abort", () => fail(late()), { once: true });
    socket.once("close", () => fail(closed()));
    const headers = { host, "content-type": "application/json", "content-length": Buffer.byteLength(body) };
    const call = request({ method: "POST", path, headers, createConnection: () => socket }, (answer) => {
      const parts: Buffer[] = [];
      let size = 0;
      answer.on("data", (part: Buffer) => {
        size += part.length;
        parts.push(part);
        if (size <= MAX_ANSWER) return;
        reject(new NotSigned(`the answer is longer than ${MAX_ANSWER} bytes`));
        socket.destroy();
      });
      answer.once("end", () =>
        resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(parts).toString("utf8") }),
      );
      answer.once("error", fail);
    });
    call.once("error", fail);
    call.end(body);
  });
}

/**
 * The swarm's external certificate authorities, as the managers use them: several that sign under one root are tried one
 * after another, and what they give is believed only when it is what was asked for.
 */
import type { ClusterSpec } from "#proto/docker/swarmkit/specs_pb.js";
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { normalPem, type RootCa, rootCsr } from "../ca/certificates.ts";
import { crossSignRequest, NotSigned, nodeRequest } from "../ca/cfssl.ts";
import { type Caller, callAuthority, checkReachable, Unreachable } from "../ca/external.ts";
import { type Asked, whyNotCrossed, whyNotIssued } from "../ca/issued.ts";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** Addresses of the authorities that sign under this root; one that names none signs under the swarm's present one. */
export function addressesFor({ caConfig }: ClusterSpec, rootPem: string, presentPem: string): string[] {
  const wanted = normalPem(rootPem);
  return (caConfig?.externalCas ?? [])
    .filter(({ caCert }) => normalPem(caCert.length > 0 ? text(caCert) : presentPem) === wanted)
    .map(({ url }) => url);
}

/** What changing the root needs of them. */
export interface Authorities {
  /** True when one of them answers and shows a certificate of this root. */
  reachable(addresses: readonly string[], rootPem: string): Promise<boolean>;
  /** The next root under the signature of the present one, PEM. */
  crossSign(addresses: readonly string[], next: RootCa, presentPem: string): Promise<string>;
}

export class ExternalAuthorities implements Authorities {
  readonly #credentials: () => { readonly certPem: string; readonly keyPem: string };
  readonly #clock: Clock;
  readonly #log: Logger;

  /** `credentials`: this manager's own, as they are now. */
  constructor(credentials: () => { certPem: string; keyPem: string }, clock: Clock, log: Logger) {
    this.#credentials = credentials;
    this.#clock = clock;
    this.#log = log;
  }

  async reachable(addresses: readonly string[], rootPem: string): Promise<boolean> {
    const looks = addresses.map(async (address) => {
      try {
        await checkReachable(address, this.#caller(rootPem));
        return true;
      } catch (error) {
        this.#log.warn("an external CA is unreachable or invalid", { address, error: messageOf(error) });
        return false;
      }
    });
    return (await Promise.all(looks)).includes(true);
  }

  async crossSign(addresses: readonly string[], next: RootCa, presentPem: string): Promise<string> {
    const { basicConstraints, cn, csrPem } = await rootCsr(next);
    const body = crossSignRequest(csrPem, cn, basicConstraints);
    return this.#first(addresses, body, presentPem, (given) =>
      whyNotCrossed(given, next.certPem, presentPem, this.#clock.now()),
    );
  }

  /** A node's certificate, PEM, without what vouches for the root. Throws `NotSigned`: the reason of each. */
  sign(addresses: readonly string[], asked: Omit<Asked, "now">): Promise<string> {
    // While the root changes, the authority may have its own certificate from the old one still.
    const roots = asked.rootPem + (asked.crossing?.oldRootPem ?? "");
    return this.#first(addresses, nodeRequest(asked), roots, (given) =>
      whyNotIssued(given, { ...asked, now: this.#clock.now() }),
    );
  }

  #caller(rootPem: string): Caller {
    const { certPem, keyPem } = this.#credentials();
    return { certPem, keyPem, rootPem };
  }

  async #first(
    addresses: readonly string[],
    body: string,
    rootPem: string,
    why: (given: string) => Promise<string | undefined> | string | undefined,
  ): Promise<string> {
    const refusals: string[] = [];
    let answered = false;
    for (const address of addresses) {
      try {
        const given = await callAuthority(address, body, this.#caller(rootPem));
        answered = true;
        const reason = await why(given);
        if (reason === undefined) return given;
        refusals.push(`${address}: the certificate is refused: ${reason}`);
      } catch (error) {
        answered ||= !(error instanceof Unreachable);
        refusals.push(`${address}: ${messageOf(error)}`);
      }
    }
    const told = refusals.join("; ");
    throw answered ? new NotSigned(told) : new Unreachable(told);
  }
}

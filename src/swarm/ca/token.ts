/**
 * Join tokens: `SWMTKN-1-<digest>-<secret>`. The digest binds the token to the exact PEM bytes of the root bundle,
 * the secret tells the role on the manager (the whole string is compared there).
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { invalid } from "../../base/errors.ts";

const DIGEST_CHARS = 50;
const SECRET_CHARS = 25;
const SECRET_BYTES = 16;

export interface JoinToken {
  /** 1, or 2 for clusters with mandatory FIPS. */
  readonly version: 1 | 2;
  readonly fips: boolean;
  /** SHA-256 of the root bundle, 64 hex characters. */
  readonly digest: string;
  readonly secret: string;
}

function toBase36(bytes: Uint8Array, width: number): string {
  return BigInt(`0x${Buffer.from(bytes).toString("hex")}`)
    .toString(36)
    .padStart(width, "0");
}

function fromBase36(text: string): bigint {
  let value = 0n;
  for (const char of text) value = value * 36n + BigInt(Number.parseInt(char, 36));
  return value;
}

/** SHA-256 of the root bundle's PEM bytes as they go over the wire, 64 hex characters. */
export function rootDigest(rootPem: string | Uint8Array): string {
  return createHash("sha256").update(rootPem).digest("hex");
}

/** A token for this root with a fresh secret (or the given 16 bytes). */
export function makeToken(rootPem: string | Uint8Array, secret: Uint8Array = randomBytes(SECRET_BYTES)): string {
  const digest = createHash("sha256").update(rootPem).digest();
  return `SWMTKN-1-${toBase36(digest, DIGEST_CHARS)}-${toBase36(secret, SECRET_CHARS)}`;
}

/** Takes a token apart; throws `invalid` with Docker's words when it is none. */
export function parseToken(token: string): JoinToken {
  const parts = token.split("-");
  const version = parts[0] === "SWMTKN" ? parts[1] : undefined;
  const [digest, secret, fips] =
    version === "1" && parts.length === 4
      ? [parts[2], parts[3], "0"]
      : version === "2" && parts.length === 5
        ? [parts[3], parts[4], parts[2]]
        : [];
  if (
    !digest?.match(/^[0-9a-z]{50}$/) ||
    !secret?.match(/^[0-9a-z]{25}$/) ||
    (fips !== "0" && fips !== "1") ||
    fromBase36(digest) >> 256n !== 0n
  ) {
    throw invalid("invalid join token");
  }
  return {
    version: version === "2" ? 2 : 1,
    fips: fips === "1",
    digest: fromBase36(digest).toString(16).padStart(64, "0"),
    secret,
  };
}

/** Compares two tokens in constant time. */
export function sameToken(a: string, b: string): boolean {
  const left = Buffer.from(a);
  const right = Buffer.from(b);
  return left.length > 0 && left.length === right.length && timingSafeEqual(left, right);
}

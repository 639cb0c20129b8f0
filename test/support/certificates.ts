/** A CA with a server and a client for tests of the API on TCP, as PEM files. */
import "reflect-metadata";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const usages: KeyUsage[] = ["sign", "verify"];
type KeyUsage = "sign" | "verify";

export interface Credentials {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/**
 * Writes `ca.pem` and for each name `<name>-cert.pem` and `<name>-key.pem` below `dir`; gives their paths. `server` is
 * valid for `addresses`, every other name is a client.
 */
export async function writeCertificates<Name extends string>(
  dir: string,
  names: readonly Name[],
  addresses: readonly string[],
): Promise<Record<Name, Credentials>> {
  const day = 86_400_000;
  const validity = { notBefore: new Date(Date.now() - day), notAfter: new Date(Date.now() + day) };
  const caKeys = await crypto.subtle.generateKey(algorithm, true, usages);
  const ca = await x509.X509CertificateGenerator.createSelfSigned({
    ...validity,
    serialNumber: "01",
    name: `CN=test CA of ${dir.split("/").at(-1)}`,
    keys: caKeys,
    signingAlgorithm: algorithm,
    extensions: [new x509.BasicConstraintsExtension(true, undefined, true)],
  });
  const caPath = join(dir, "ca.pem");
  writeFileSync(caPath, ca.toString("pem"));
  const made = names.map(async (name, index): Promise<[Name, Credentials]> => {
    const keys = await crypto.subtle.generateKey(algorithm, true, usages);
    const server = name === "server";
    const certificate = await x509.X509CertificateGenerator.create({
      ...validity,
      serialNumber: `1${index}`,
      subject: `CN=${name}`,
      issuer: ca.subject,
      publicKey: keys.publicKey,
      signingKey: caKeys.privateKey,
      signingAlgorithm: algorithm,
      extensions: [
        new x509.ExtendedKeyUsageExtension([
          server ? x509.ExtendedKeyUsage.serverAuth : x509.ExtendedKeyUsage.clientAuth,
        ]),
        ...(server
          ? [new x509.SubjectAlternativeNameExtension(addresses.map((value) => ({ type: "ip" as const, value })))]
          : []),
      ],
    });
    const paths = { ca: caPath, cert: join(dir, `${name}-cert.pem`), key: join(dir, `${name}-key.pem`) };
    writeFileSync(paths.cert, certificate.toString("pem"));
    const pkcs8 = Buffer.from(await crypto.subtle.exportKey("pkcs8", keys.privateKey)).toString("base64");
    const lines = (pkcs8.match(/.{1,64}/g) ?? []).join("\n");
    writeFileSync(paths.key, `-----BEGIN PRIVATE KEY-----\n${lines}\n-----END PRIVATE KEY-----\n`, { mode: 0o600 });
    return [name, paths];
  });
  return Object.fromEntries(await Promise.all(made)) as Record<Name, Credentials>;
}

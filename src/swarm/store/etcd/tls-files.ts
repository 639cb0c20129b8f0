/**
 * Where etcd reads the node's key and certificate: in memory, because the key in the state directory may be locked.
 * There it also finds renewed ones, at each handshake.
 */
import { accessSync, constants, existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readFileIfAny, writeFileAtomic } from "../../../base/file.ts";
import type { NodeCredentials } from "../../ca/files.ts";

/** Names the state directory that the files belong to. */
const OWNER = "of";

function memoryDir(): string {
  try {
    accessSync("/run", constants.W_OK);
    return "/run/skein-etcd";
  } catch {
    return join(tmpdir(), "skein-etcd");
  }
}

export class TlsFiles {
  readonly #dir: string;
  readonly #owner: string;

  /** `name`: the node's id; `owner`: its etcd directory. */
  constructor(name: string, owner: string, root = memoryDir()) {
    this.#dir = join(root, name);
    this.#owner = owner;
    sweep(root);
  }

  get paths(): { readonly root: string; readonly cert: string; readonly key: string } {
    return { root: join(this.#dir, "root.crt"), cert: join(this.#dir, "node.crt"), key: join(this.#dir, "node.key") };
  }

  write({ certPem, keyPem, rootPem }: Pick<NodeCredentials, "certPem" | "keyPem" | "rootPem">): void {
    const { cert, key, root } = this.paths;
    mkdirSync(this.#dir, { recursive: true, mode: 0o700 });
    writeFileAtomic(join(this.#dir, OWNER), this.#owner, 0o600);
    writeFileAtomic(root, rootPem, 0o600);
    writeFileAtomic(key, keyPem, 0o600);
    writeFileAtomic(cert, certPem, 0o600);
  }

  remove(): void {
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

/** A manager that was killed and whose state is gone comes back for its key no more. */
function sweep(root: string): void {
  if (!existsSync(root)) return;
  for (const name of readdirSync(root)) {
    const owner = readFileIfAny(join(root, name, OWNER));
    if (owner !== undefined && !existsSync(owner)) rmSync(join(root, name), { recursive: true, force: true });
  }
}

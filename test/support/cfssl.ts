/** cfssl (Debian's golang-cfssl) as the external certificate authority of a swarm, on a host of a lab. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inside } from "../../src/lab/host.ts";
import { hostOf } from "../../src/lab/lab.ts";
import { eventually, type TestLab } from "./lab.ts";

const PORT = 8888;
/** For nodes, and for the next root when the swarm goes back to a key of its own. */
const config = {
  signing: {
    default: {
      expiry: "720h",
      usages: ["digital signature", "key encipherment", "server auth", "client auth"],
    },
    profiles: {
      CA: {
        expiry: "43800h",
        usages: ["cert sign", "crl sign"],
        is_ca: true,
        ca_constraint: { is_ca: true },
        allowed_extensions: ["2.5.29.19"],
      },
    },
  },
};

export type KeyKind = { readonly algo: "ecdsa" | "rsa"; readonly size: number };

export class Cfssl implements AsyncDisposable {
  readonly #lab: TestLab;
  readonly #host: string;
  readonly #dir = mkdtempSync(join(tmpdir(), "skein-cfssl-"));
  #child: ChildProcess | undefined;

  /** A new root, and a certificate under it for the address at which it will be served. */
  constructor(lab: TestLab, host: string, key: KeyKind = { algo: "ecdsa", size: 256 }) {
    this.#lab = lab;
    this.#host = host;
    const write = (name: string, value: object) => writeFileSync(this.path(name), JSON.stringify(value));
    write("config.json", config);
    write("root.json", { CN: "external root", key, ca: { expiry: "87600h" } });
    write("server.json", { CN: "cfssl", key: { algo: "ecdsa", size: 256 }, hosts: [this.#address] });
    this.#generate("root", ["-initca", this.path("root.json")]);
    const by = [
      "-ca",
      this.path("root.pem"),
      "-ca-key",
      this.path("root-key.pem"),
      "-config",
      this.path("config.json"),
    ];
    this.#generate("server", [...by, this.path("server.json")]);
  }

  /** Why tests with it cannot run here; undefined when they can. */
  static missing(): string | undefined {
    return existsSync("/usr/bin/cfssl") ? undefined : "needs cfssl: apt-get install golang-cfssl";
  }

  get #address(): string {
    return this.#lab.host(this.#host).address;
  }

  get url(): string {
    return `https://${this.#address}:${PORT}/api/v1/cfssl/sign`;
  }

  get rootPem(): string {
    return readFileSync(this.path("root.pem"), "utf8");
  }

  path(name: string): string {
    return join(this.#dir, name);
  }

  #generate(name: string, args: readonly string[]): void {
    const made = execFileSync("cfssl", ["gencert", ...args], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    const { cert, key } = JSON.parse(made) as { cert: string; key: string };
    writeFileSync(this.path(`${name}.pem`), cert);
    writeFileSync(this.path(`${name}-key.pem`), key, { mode: 0o600 });
  }

  /** Serves callers that have a certificate of its own root or of `callers`. */
  async start(callers = ""): Promise<void> {
    writeFileSync(this.path("callers.pem"), `${this.rootPem}\n${callers}`);
    const [command = "", ...args] = inside(hostOf(this.#lab.lab, this.#host).state, [
      // nsenter forks to enter a namespace of processes: the pid to end is the one seen in there.
      ...[
        "sh",
        "-c",
        `echo $$ >${this.path("pid")}; exec "$@"`,
        "sh",
        "cfssl",
        "serve",
        "-address",
        this.#address,
        "-port",
        String(PORT),
      ],
      ...["-ca", this.path("root.pem"), "-ca-key", this.path("root-key.pem"), "-config", this.path("config.json")],
      ...["-tls-cert", this.path("server.pem"), "-tls-key", this.path("server-key.pem")],
      ...["-mutual-tls-ca", this.path("callers.pem")],
    ]);
    this.#child = spawn(command, args, { stdio: "ignore" });
    await eventually("cfssl serves", async () => {
      const listening = await this.#lab.in(this.#host, "ss", "-Hltn", `sport = ${PORT}`);
      return listening.stdout.includes(String(PORT));
    });
  }

  async stop(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    await this.#lab.in(this.#host, "kill", "-9", readFileSync(this.path("pid"), "utf8").trim());
    await ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

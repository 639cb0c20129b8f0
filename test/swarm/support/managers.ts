/** Managers in processes of their own, asked over IPC. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { Child, type Usage } from "../../../bench/support/process.ts";
import type { RootCa } from "../../../src/swarm/ca/certificates.ts";
import { freePort, type Pair } from "./hostile.ts";

export interface Cluster {
  readonly id: string;
  readonly root: RootCa;
  readonly worker: string;
  readonly manager: string;
}

export class ManagerHost {
  readonly dir = mkdtempSync(join(tmpdir(), "skein-managers-"));
  readonly addr: string;
  readonly child: Child;

  private constructor(port: number) {
    this.addr = `127.0.0.1:${port}`;
    this.child = new Child("../../test/swarm/support/manager-child.ts", [join(this.dir, "swarm"), this.addr]);
  }

  static async start(): Promise<ManagerHost> {
    return new ManagerHost(await freePort());
  }

  cluster = () => this.child.ask<Cluster>("cluster");
  tasks = () => this.child.ask<{ id: string; nodeId: string; state: TaskState; err: string }[]>("tasks");
  nodes = () => this.child.ask<{ id: string; manager: boolean; leader?: boolean }[]>("nodes");
  log = () => this.child.ask<string[]>("log");
  usage = () => this.child.ask<Usage>("usage");

  /** The certificate that it has now. */
  credentials(): Pair {
    const file = (name: string) => readFileSync(join(this.dir, "swarm/certificates", name), "utf8");
    const key = /-----BEGIN PRIVATE KEY-----[\s\S]+?-----END PRIVATE KEY-----\n/.exec(file("swarm-node.key"));
    return { certPem: file("swarm-node.crt"), keyPem: key?.[0] ?? "" };
  }

  async end(): Promise<void> {
    await this.child[Symbol.asyncDispose]();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

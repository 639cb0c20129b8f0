/** Load from outside: closed loops of HTTP requests, on kept and on fresh connections, with every failure counted. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";

export interface LoadOptions {
  /** "address:port"; clients go round. */
  readonly targets: readonly string[];
  /** Clients that keep their connection for `perConnection` requests, as connection pools do, or until the server ends it. */
  readonly keepAlive: number;
  /** Default 100. */
  readonly perConnection?: number;
  /** Clients with a new connection for each request. */
  readonly fresh: number;
  /** One request may take so long. */
  readonly timeoutMs?: number;
}

export interface LoadCount {
  readonly requests: number;
  readonly failed: number;
  readonly connections: number;
  readonly failures: {
    at: number;
    ms: number;
    target: string;
    reused: boolean;
    keepsAlive: boolean;
    message: string;
  }[];
}

export class Load implements AsyncDisposable {
  readonly #worker: Worker;
  #ended = false;

  constructor(options: LoadOptions) {
    this.#worker = new Worker(new URL("./load-worker.ts", import.meta.url), {
      workerData: { timeoutMs: 10_000, perConnection: 100, ...options },
    });
    this.#worker.once("exit", () => {
      this.#ended = true;
    });
  }

  async #ask(word: "count" | "stop"): Promise<LoadCount> {
    const answer = once(this.#worker, "message");
    this.#worker.postMessage(word);
    const [count] = (await answer) as [LoadCount];
    return count;
  }

  /** Milliseconds that each client rests between two requests. */
  pace(ms: number): void {
    this.#worker.postMessage({ pace: ms });
  }

  count(): Promise<LoadCount> {
    return this.#ask("count");
  }

  /** Lets the requests under way finish; gives the final count. */
  stop(): Promise<LoadCount> {
    return this.#ask("stop");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#ended) await this.#worker.terminate();
  }
}

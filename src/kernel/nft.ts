/**
 * nftables through libnftables, in process: a transaction costs half a millisecond per hundred elements,
 * a process would cost twenty.
 */

import { writeSync } from "node:fs";
import koffi from "koffi";
import { Mutex } from "../base/async.ts";
import { KernelError } from "./error.ts";
import * as libc from "./libc.ts";
import type { NetNs, Nft } from "./types.ts";

const FLAG_JSON = 1 << 4;
const FLAG_NUMERIC_PRIORITY = 1 << 8;

type RunScript = ((ctx: unknown, script: string) => number) & {
  async(ctx: unknown, script: string, done: (error: unknown, status: number) => void): void;
};

type FreeContext = { async(ctx: unknown, done: (error: unknown) => void): void };

/** Loaded at first use: a machine without libnftables can run what needs none. */
function load() {
  let lib: ReturnType<typeof koffi.load>;
  try {
    lib = koffi.load("libnftables.so.1");
  } catch {
    throw new KernelError("ENOSYS", "nftables", "libnftables.so.1 is not installed (package libnftables1)");
  }
  return {
    create: lib.func("void *nft_ctx_new(uint32_t flags)") as (flags: number) => unknown,
    free: lib.func("void nft_ctx_free(void *ctx)") as FreeContext,
    bufferOutput: lib.func("int nft_ctx_buffer_output(void *ctx)") as (ctx: unknown) => number,
    bufferError: lib.func("int nft_ctx_buffer_error(void *ctx)") as (ctx: unknown) => number,
    output: lib.func("str nft_ctx_get_output_buffer(void *ctx)") as (ctx: unknown) => string | null,
    error: lib.func("str nft_ctx_get_error_buffer(void *ctx)") as (ctx: unknown) => string | null,
    setFlags: lib.func("void nft_ctx_output_set_flags(void *ctx, uint flags)") as (ctx: unknown, f: number) => void,
    setDryRun: lib.func("void nft_ctx_set_dry_run(void *ctx, bool dry)") as (ctx: unknown, dry: boolean) => void,
    runFile: lib.func("int nft_run_cmd_from_filename(void *ctx, str name)") as (ctx: unknown, name: string) => number,
    run: lib.func("int nft_run_cmd_from_buffer(void *ctx, str script)") as RunScript,
  };
}
let library: ReturnType<typeof load> | undefined;

/** Opens nftables of `ns`, default the thread's own namespace at each call. */
export function openNft(ns?: NetNs): Nft {
  library ??= load();
  return new Context(library, ns);
}

class Context implements Nft {
  #lib: ReturnType<typeof load>;
  #ns: NetNs | undefined;
  #context: unknown;
  /** What pool threads work with: never touched by this thread while one has it. */
  #background: unknown;
  #queue = new Mutex();

  constructor(lib: ReturnType<typeof load>, ns: NetNs | undefined) {
    this.#lib = lib;
    this.#ns = ns;
    this.#context = this.#create();
  }

  #create(): unknown {
    // The context holds a netlink socket of the namespace in which it is made, whichever thread uses it.
    const context = this.#inside(() => this.#lib.create(0));
    if (!context) throw new KernelError("ENOMEM", "nftables");
    this.#lib.bufferOutput(context);
    this.#lib.bufferError(context);
    return context;
  }

  #inside<T>(fn: () => T): T {
    return this.#ns ? this.#ns.run(fn) : fn();
  }

  run(script: string): void {
    this.#execute(script, 0);
  }

  runAsync(script: string): Promise<void> {
    return this.#queue.run(async () => {
      if (this.#context === undefined) throw new KernelError("EBADF", "nft", "closed");
      this.#background ??= this.#create();
      const context = this.#background;
      const { promise, resolve, reject } = Promise.withResolvers<number>();
      this.#lib.run.async(context, script, (error, status) => (error ? reject(error) : resolve(status)));
      if ((await promise) === 0) return;
      const problem = (this.#lib.error(context) ?? "").trim();
      throw new KernelError(codeOf(problem), "nft", problem);
    });
  }

  list(what: string): unknown[] | undefined {
    let text: string;
    try {
      text = this.#execute(`list ${what}`, FLAG_JSON | FLAG_NUMERIC_PRIORITY);
    } catch (error) {
      if (error instanceof KernelError && error.code === "ENOENT") return undefined;
      throw error;
    }
    if (text.trim() === "") return [];
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === "object" && parsed !== null && "nftables" in parsed && Array.isArray(parsed.nftables)) {
      return parsed.nftables.filter((item: unknown) => !isMetainfo(item));
    }
    throw new KernelError("EPROTO", `nft list ${what}`, "unexpected output");
  }

  tables(): { family: string; name: string }[] {
    const found: { family: string; name: string }[] = [];
    for (const item of this.list("tables") ?? []) {
      if (typeof item !== "object" || item === null || !("table" in item)) continue;
      const { table } = item as { table: { family: string; name: string } };
      found.push({ family: table.family, name: table.name });
    }
    return found;
  }

  #execute(script: string, flags: number): string {
    if (this.#context === undefined) throw new KernelError("EBADF", "nft", "closed");
    return this.#inside(() => {
      this.#lib.setFlags(this.#context, flags);
      const status = this.#lib.run(this.#context, script);
      const output = this.#lib.output(this.#context) ?? "";
      const problem = (this.#lib.error(this.#context) ?? "").trim();
      if (status !== 0) throw new KernelError(codeOf(problem), "nft", this.#locate(script) ?? problem);
      return output;
    });
  }

  /**
   * nft's message for a script in memory quotes the script's first line whatever line is at fault. For a file it
   * gives the number: so the refused script is checked (not run) again as one.
   */
  #locate(script: string): string | undefined {
    if (!script.trimEnd().includes("\n")) return undefined;
    const fd = libc.memfd("nft");
    try {
      writeSync(fd, script);
      const path = `/proc/self/fd/${fd}`;
      this.#lib.setDryRun(this.#context, true);
      const status = this.#lib.runFile(this.#context, path);
      const problem = (this.#lib.error(this.#context) ?? "").trim();
      return status === 0 ? undefined : problem.replaceAll(`${path}:`, "line ");
    } finally {
      this.#lib.setDryRun(this.#context, false);
      libc.close(fd);
    }
  }

  [Symbol.dispose](): void {
    if (this.#context === undefined) return;
    this.#free(this.#context);
    this.#context = undefined;
    void this.#queue.run(() => {
      if (this.#background !== undefined) this.#free(this.#background);
      this.#background = undefined;
    });
  }

  /**
   * On a pool thread: when its socket is closed the kernel first finishes whatever a transaction of that namespace
   * has deleted, which waits for an RCU grace period (tens of milliseconds).
   */
  #free(context: unknown): void {
    this.#lib.free.async(context, () => {});
  }
}

function isMetainfo(item: unknown): boolean {
  return typeof item === "object" && item !== null && "metainfo" in item;
}

/** nft tells errno only as text. */
const MESSAGES: [string, string][] = [
  ["No such file or directory", "ENOENT"],
  ["File exists", "EEXIST"],
  ["Device or resource busy", "EBUSY"],
  ["Operation not supported", "EOPNOTSUPP"],
  ["Operation not permitted", "EPERM"],
];

function codeOf(message: string): string {
  return MESSAGES.find(([text]) => message.includes(text))?.[1] ?? "EINVAL";
}

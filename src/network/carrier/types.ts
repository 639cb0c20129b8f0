/** What the daemon and its carrier tell each other; descriptors that are sent belong to whoever gets them. */

export interface End {
  readonly address: string;
  readonly port: number;
}

/** Where a client's connection leads to. */
export interface Route extends End {
  /** The namespace from which it is reached; without one, that of the daemon. */
  readonly ns?: number | undefined;
  /** Said before anything else. */
  readonly preface?: Uint8Array | undefined;
}

/** A route that is known before the client is. */
export interface FixedRoute extends Omit<Route, "preface"> {
  /** The PROXY protocol's header goes first: from the client, to this. */
  readonly header?: End | undefined;
}

/** What becomes of connections when their listener goes: they are reset, or end in their own time. */
export type Parting = "reset" | "linger";

export type ToCarrier =
  | {
      readonly kind: "listen";
      readonly id: number;
      /** A listening socket that does not block. */
      readonly fd: number;
      /** Without one it is asked for each client. */
      readonly route?: FixedRoute | undefined;
      /** Connections at once; others wait in the kernel's queue. */
      readonly most: number;
    }
  /** Somebody who came before the listener was handed over. */
  | { readonly kind: "client"; readonly id: number; readonly fd: number }
  | { readonly kind: "answer"; readonly question: number; readonly route?: Route | undefined }
  | { readonly kind: "close"; readonly id: number; readonly parting: Parting }
  | { readonly kind: "stop" };

export type FromCarrier =
  | { readonly kind: "ask"; readonly id: number; readonly question: number; readonly client: End; readonly at: End }
  /** So many connections are open that further clients wait. */
  | { readonly kind: "full"; readonly id: number; readonly open: number }
  | { readonly kind: "trouble"; readonly id: number; readonly error: string };

/** What a thread is started with. */
export interface CarrierData {
  /** Counts up when there is something to read. */
  readonly wake: number;
  readonly port: import("node:worker_threads").MessagePort;
  /** A byte for each descriptor: 1 while it is the thread's, which cannot close it when it dies. */
  readonly held: Uint8Array;
  /** Connections at once, of all listeners. */
  readonly most: number;
}

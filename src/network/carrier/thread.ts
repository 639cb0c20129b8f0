/** The thread that carries: it is in its loop (loop.ts) from its start to its end, and Node's own never turns. */
import { receiveMessageOnPort, workerData } from "node:worker_threads";
import { adoptNetNs } from "../../kernel/netns.ts";
import { Loop } from "./loop.ts";
import type { CarrierData, FromCarrier, ToCarrier } from "./types.ts";

const { wake, port, held, most } = workerData as CarrierData;
new Loop({
  wake,
  read: () => receiveMessageOnPort(port)?.message as ToCarrier | undefined,
  tell: (message: FromCarrier) => port.postMessage(message),
  namespace: adoptNetNs,
  held,
  most,
}).run();

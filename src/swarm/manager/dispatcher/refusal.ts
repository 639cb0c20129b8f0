/**
 * Whether a host is there without its engine. One that is off, or cut off, says nothing; a kernel whose engine ended refuses
 * connections to gossip's port at once. Then the engine was killed or is restarted, and the containers run on.
 */
import { connect } from "node:net";
import { errnoOf } from "../../../base/errors.ts";

const GOSSIP_PORT = 7946;
const PATIENCE_MS = 300;

export function refusesConnections(host: string, port = GOSSIP_PORT): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: PATIENCE_MS });
    const finish = (refused: boolean) => {
      socket.destroy();
      resolve(refused);
    };
    socket.once("connect", () => finish(false));
    socket.once("timeout", () => finish(false));
    socket.once("error", (error) => finish(errnoOf(error) === "ECONNREFUSED"));
  });
}

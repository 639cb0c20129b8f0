/** Docker's own words for what a node's state does not allow. (moby: daemon/cluster/errors.go, swarm.go) */
import { conflict, type SkeinError, unavailable } from "../../base/errors.ts";

export const alreadyInSwarm = () =>
  unavailable(
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.',
  );

export const notInSwarm = () => unavailable("This node is not part of a swarm");

export const notManager = () =>
  unavailable(
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
  );

export const notManagerButWorker = () =>
  unavailable(
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.",
  );

export const managerNotReady = () =>
  unavailable("This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.");

export const certificatesExpired = () =>
  unavailable("Swarm certificates have expired. To replace them, leave the swarm and join again.");

export const notLocked = () => conflict("swarm is not locked");

export const joinTimeout = () =>
  unavailable(
    'Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the "docker info" command to see the current swarm status of your node.',
  );

export const locked = () =>
  unavailable(
    'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.',
  );

export const leavingLocked = () =>
  unavailable("Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.");

/** Why a manager does not leave without --force. `managers` counts those reachable and not, itself included. */
export function leavingManager(managers: { reachable: number; unreachable: number } | undefined): SkeinError {
  let text = "You are attempting to leave the swarm on a node that is participating as a manager. ";
  if (!managers) {
    text += "Doing so may lose the consensus of your cluster. ";
  } else {
    const { reachable, unreachable } = managers;
    const total = reachable + unreachable;
    const losesQuorum = reachable - 1 < Math.floor((total - 1) / 2) + 1 || total <= 2;
    if (losesQuorum) {
      if (reachable === 1 && unreachable === 0) {
        text +=
          "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ";
        return unavailable(text);
      }
      text += `Removing this node leaves ${reachable - 1} managers out of ${total}. Without a Raft quorum your swarm will be inaccessible. `;
    }
  }
  text +=
    "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message.";
  return unavailable(text);
}

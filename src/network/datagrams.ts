/**
 * Senders of datagrams that were there before a port was published. The tables are asked for the first packet of a
 * connection only, and one that ended at this host itself, because nothing was published yet, lives as long as its sender
 * goes on: who tells of logs or figures would not be heard again after the container is started anew. So it is forgotten
 * when the tables are in place, and its next packet is translated. What already is translated, or only passes by, stays.
 */
import { messageOf } from "../base/errors.ts";
import { openConntrack } from "../kernel/conntrack.ts";
import type { Core } from "./core.ts";

const IPPROTO_UDP = 17;

/** Ports of this host that are published from now on. */
export function forgetUntranslated(core: Core, ports: ReadonlySet<number>): void {
  if (ports.size === 0) return;
  try {
    using conntrack = openConntrack();
    const addresses = core.namespaces.host.rtnl.addrs();
    for (const family of [4, 6] as const) {
      const replySrc = addresses.filter((one) => one.family === family).map(({ address }) => address);
      if (replySrc.length === 0) continue;
      for (const origDstPort of ports) conntrack.flush({ family, protocol: IPPROTO_UDP, origDstPort, replySrc });
    }
  } catch (error) {
    core.log.warn("senders of datagrams to new ports may go unheard for a while", { error: messageOf(error) });
  }
}

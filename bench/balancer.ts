/**
 * The balancer's tables: time to load 1,000 services of 10 tasks, to change one, and what a new connection's first
 * packet costs at 10 and at 1,000 services (TCP connections per second on loopback, interleaved). Root.
 * Usage: node bench/balancer.ts [rounds]
 */
import { openConntrack } from "../src/kernel/conntrack.ts";
import { scratchNetNs } from "../src/kernel/netns.ts";
import { openNft } from "../src/kernel/nft.ts";
import { tcpConnectIn, tcpListenerIn } from "../src/kernel/socket.ts";
import type { VipService } from "../src/network/balancer/types.ts";
import { renderVips, updateVip } from "../src/network/balancer/vip.ts";

const rounds = Number(process.argv[2] ?? 5);
const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1] ?? 0;
const timed = (fn: () => void) => {
  const start = performance.now();
  fn();
  return performance.now() - start;
};

function services(count: number): VipService[] {
  return Array.from({ length: count }, (_, i) => ({
    id: `service${i}`,
    vip: `10.64.${i >> 8}.${i & 255}`,
    backends: Array.from({ length: 10 }, (_, j) => `10.65.${(i * 10 + j) >> 8}.${(i * 10 + j) & 255}`),
  }));
}

{
  using ns = scratchNetNs();
  using nft = openNft(ns);
  const all = services(1000);
  const text = timed(() => renderVips(all));
  const load = timed(() => nft.run(renderVips(all)));
  const changes: number[] = [];
  for (let i = 0; i < 20; i++) {
    const before = all[i * 40];
    if (!before) continue;
    changes.push(timed(() => nft.run(updateVip(before, { ...before, backends: before.backends.slice(1) }))));
  }
  const again = timed(() => nft.run(renderVips(all)));
  console.log(
    `1,000 services x 10 tasks: rendered ${text.toFixed(1)} ms, loaded ${load.toFixed(0)} ms, again ${again.toFixed(0)} ms`,
  );
  console.log(
    `one service changed: median ${median(changes).toFixed(2)} ms, worst ${Math.max(...changes).toFixed(2)} ms`,
  );
}

using ns = scratchNetNs();
const server = await tcpListenerIn(ns, "127.0.0.1", 8000);
server.on("connection", (socket) =>
  socket
    .on("error", () => {})
    .resume()
    .on("end", () => socket.end()),
);
using nft = openNft(ns);
using conntrack = openConntrack(ns);
const results = new Map<number, number[]>();
for (let round = 0; round < rounds; round++) {
  for (const count of [10, 1000]) {
    const target = { id: "target", vip: "127.9.9.9", backends: ["127.0.0.1"] };
    nft.run(renderVips([...services(count), target]));
    const times: number[] = [];
    for (let i = 0; i < 200; i++) {
      const start = performance.now();
      const socket = tcpConnectIn(ns, target.vip, 8000);
      await new Promise((resolve) => socket.once("connect", resolve));
      times.push(performance.now() - start);
      socket.destroy();
    }
    conntrack.flush({ family: 4 });
    results.set(count, [...(results.get(count) ?? []), median(times)]);
  }
}
for (const [count, medians] of results) {
  console.log(`connect through a VIP among ${count}: median ${(median(medians) * 1000).toFixed(0)} us`);
}
server.close();

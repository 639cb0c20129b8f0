/** A name server on a lab's switch that knows no name, so that neither containers nor the real engine's pulls wait for one. */
import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import type { TestLab } from "../../support/lab.ts";

/** Makes it every host's server until it is disposed of. */
export async function serveNoNames(lab: TestLab): Promise<Disposable> {
  const server = createSocket("udp4", (question, from) => {
    if (question.length < 12) return;
    const answer = Buffer.from(question);
    // An answer, NXDOMAIN; the question is said again as it came.
    answer.writeUInt16BE(0x8183, 2);
    server.send(answer, from.port, from.address);
  });
  const { gateway, hosts } = lab.lab.spec;
  server.bind(53, gateway);
  await once(server, "listening");
  for (const { name, runDir } of hosts) {
    const file = `${runDir}/resolv.conf`;
    writeFileSync(file, `nameserver ${gateway}\n`);
    assert.equal((await lab.in(name, "mount", "--bind", file, "/etc/resolv.conf")).code, 0);
  }
  return { [Symbol.dispose]: () => server.close() };
}

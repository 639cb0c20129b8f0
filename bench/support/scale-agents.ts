/**
 * The nodes of `bench/scale.ts`, all in this process: each joins with the token, has a certificate and a connection of
 * its own and runs the real agent. Only its containers are simulated, and what it keeps on disk is kept in memory.
 */
import { systemClock } from "../../src/base/clock.ts";
import { createLogger, nullLogger } from "../../src/base/log.ts";
import { Agent } from "../../src/swarm/agent/agent.ts";
import { Remotes } from "../../src/swarm/agent/remotes.ts";
import { issuerOf } from "../../src/swarm/ca/certificates.ts";
import { anonymousConnection, nodeConnection } from "../../src/swarm/ca/transport.ts";
import { downloadRoot, requestCertificate } from "../../src/swarm/node/certificate-client.ts";
import { answer, usage } from "./process.ts";
import { IdleHost } from "./scale-host.ts";

/** Nodes that join at the same time. */
const AT_ONCE = 50;
const agents: Agent[] = [];
let registered = 0;
/** When each node's present session began, wall milliseconds. */
const sessions = new Map<string, { id: string; since: number }>();
const log = process.env.SKEIN_BENCH_LOG
  ? createLogger((line) => process.stderr.write(`${line}\n`), "warn")
  : nullLogger;
const { signal } = new AbortController();
const common = { clock: systemClock, log: nullLogger, signal };

async function join(index: number, managers: readonly string[], token: string, rootPem: string): Promise<void> {
  const addr = managers[index % managers.length] ?? "";
  const { certPem, keyPem, nodeId } = await requestCertificate({
    ...{ rootPem, token, ...common },
    connect: () => anonymousConnection(addr, rootPem),
  });
  const { subject, publicKey } = issuerOf(rootPem);
  const agent = new Agent({
    nodeId,
    executor: new IdleHost(`node-${index}`),
    remotes: new Remotes([{ nodeId: "", addr }]),
    db: { load: () => [], put: () => {}, delete: () => {} },
    clock: systemClock,
    log,
    onMessage: ({ sessionId: id }) => {
      if (sessions.get(nodeId)?.id !== id) sessions.set(nodeId, { id, since: Date.now() });
    },
    connect: (to) => nodeConnection(to, { rootPem, certPem, keyPem }),
    tlsInfo: () => ({
      $typeName: "docker.swarmkit.v1.NodeTLSInfo",
      ...{ trustRoot: Buffer.from(rootPem), certIssuerSubject: subject, certIssuerPublicKey: publicKey },
    }),
  });
  agents.push(agent);
  await agent.start();
  await agent.registered;
  registered++;
}

answer(
  {
    join: async ({ count, managers, token }: { count: number; managers: string[]; token: string }) => {
      const rootPem = await downloadRoot(managers[0] ?? "", token, common);
      let next = 0;
      const worker = async () => {
        while (next < count) await join(next++, managers, token, rootPem);
      };
      await Promise.all(Array.from({ length: AT_ONCE }, worker));
    },
    registered: () => registered,
    sessionsSince: (time: number) => [...sessions.values()].filter(({ since }) => since >= time).length,
    usage,
  },
  async () => {},
);

/**
 * Runs inside a container's network: asks 127.0.0.11 for a name until it is there, then connects to it until somebody
 * answers, a refusal being an answer. Prints both times (ms since the epoch). `watch-name.ts <name>`.
 */
import { Resolver } from "node:dns/promises";
import net from "node:net";
import { setTimeout as delay } from "node:timers/promises";

const [name = ""] = process.argv.slice(2);
const pollMs = 5;
const patienceMs = 100;

async function resolved(): Promise<string> {
  for (;;) {
    const resolver = new Resolver({ timeout: patienceMs, tries: 1 });
    resolver.setServers(["127.0.0.11"]);
    const [address] = await resolver.resolve4(name).catch(() => []);
    if (address) return address;
    await delay(pollMs);
  }
}

const answers = (address: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = net.connect({ host: address, port: 9 });
    const done = (answered: boolean) => {
      socket.destroy();
      resolve(answered);
    };
    socket.setTimeout(patienceMs, () => done(false));
    socket.once("connect", () => done(true));
    socket.once("error", (error) => done("code" in error && error.code === "ECONNREFUSED"));
  });

process.stdout.write("watching\n");
const address = await resolved();
const known = Date.now();
while (!(await answers(address))) await delay(pollMs);
process.stdout.write(`${known} ${Date.now()}\n`);

/**
 * "Hands on: the overlay network": its four experiments and its challenges. `apk add` finds what it is asked for in the
 * image already (docs/lab.md). The cable is pulled from the lab's switch.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { hostOf } from "../../src/lab/lab.ts";
import { setCable } from "../../src/lab/switch.ts";
import { eventually } from "../support/lab.ts";
import { rows, Walk } from "../support/walk.ts";

let walk: Walk;
const hosts = ["manager", "worker-1", "worker-2"];
before(async () => {
  walk = await Walk.in("walk4", "10.75.10.0/24", hosts);
  await walk.sh("manager", "docker swarm init --advertise-addr eth0");
  const token = await walk.sh("manager", "docker swarm join-token -q worker");
  for (const host of hosts.slice(1)) await walk.sh(host, `docker swarm join --token ${token} 10.75.10.11:2377`);
});
after(() => walk?.[Symbol.asyncDispose]());

/** The node and container of a service's running task. */
async function taskOf(service: string): Promise<{ node: string; container: string }> {
  const node = await walk.sh(
    "manager",
    `docker service ps ${service} -f desired-state=running --format '{{.Node}}' | head -1`,
  );
  const container = await walk.sh(node, `docker ps | grep ${service} | head -1 | awk '{print $1}'`);
  return { node, container };
}

test("experiment 1: an attachable overlay network", async () => {
  await walk.sh("manager", "docker network create --driver overlay --attachable my-overlay-network");
  const list = rows(await walk.sh("manager", "docker network ls")).map((row) => row.slice(1).join(" "));
  assert.ok(list.includes("my-overlay-network overlay swarm"));
});

test("experiment 2: two services, one reaches the other by its name from whatever host", async () => {
  await walk.sh(
    "manager",
    `docker service create \\
  --quiet --name my-app \\
  --network my-overlay-network \\
  --replicas 1 \\
  alpine/git sh -c "apk add --no-cache netcat-openbsd && while true; do echo -e 'HTTP/1.1 200 OK\\n\\nHello from my-app on $(hostname)!' | nc -l -p 8080; done"`,
  );
  await walk.sh(
    "manager",
    `docker service create \\
  --quiet --name my-web \\
  --network my-overlay-network \\
  -p 80:80 \\
  nginx:latest`,
  );
  assert.match(await walk.sh("manager", "docker service ps my-app"), /my-app\.1 .* Running /);
  assert.match(await walk.sh("manager", "docker service ps my-web"), /my-web\.1 .* Running /);
  const { node, container } = await taskOf("my-web");
  await using terminal = walk.terminal(node, `docker exec -it ${container} bash`);
  await terminal.see(/# /);
  terminal.type("curl http://my-app:8080\n");
  await terminal.see(/Hello from my-app on /);
  terminal.type("exit\n");
  await terminal.ended();
  for (const host of hosts) assert.match(await walk.sh(host, "curl -s -m 5 localhost:80"), /Welcome to nginx!/);
});

test("experiment 3: a standalone container reaches the service", async () => {
  await using terminal = walk.terminal(
    "manager",
    "docker run -it --name my-standalone-container --network my-overlay-network alpine/git sh",
  );
  await terminal.see(/# /);
  terminal.type("apk add --no-cache curl\n");
  await terminal.see(/OK: curl/);
  terminal.type("curl http://my-app:8080\n");
  await terminal.see(/Hello from my-app on /);
  terminal.type("exit\n");
  await terminal.ended();
});

test("experiment 4: cleaning up", async () => {
  await walk.sh("manager", "docker service rm my-app my-web");
  await walk.sh("manager", "docker rm -f my-standalone-container");
  await eventually(
    "the network can go",
    async () => {
      return (await walk.try("manager", "docker network rm my-overlay-network")).code === 0;
    },
    30_000,
  );
  for (const host of hosts) {
    await eventually(`gone on ${host}`, async () => {
      return (await walk.sh(host, "docker network ls -q --filter name=my-overlay-network")) === "";
    });
  }
});

test("challenge 1: networks are apart, a service on both reaches both", async () => {
  for (const one of ["a", "b"]) {
    await walk.sh("manager", `docker network create -d overlay network-${one}`);
    await walk.sh(
      "manager",
      `docker service create --quiet --name service-${one} --network network-${one} alpine sleep infinity`,
    );
  }
  const a = await taskOf("service-a");
  const b = await taskOf("service-b");
  assert.match(
    await walk.fails(a.node, `docker exec ${a.container} ping -c 1 -W 2 service-b`),
    /bad address 'service-b'/,
  );
  const format = `'{{(index .NetworkSettings.Networks "network-b").IPAddress}}'`;
  const address = await walk.sh(b.node, `docker inspect -f ${format} ${b.container}`);
  await walk.fails(a.node, `docker exec ${a.container} ping -c 1 -W 2 ${address}`);
  await walk.sh(
    "manager",
    "docker service create --quiet --name service-c --network network-a --network network-b alpine sleep infinity",
  );
  const c = await taskOf("service-c");
  for (const service of ["service-a", "service-b"]) {
    await eventually(`${service} from service-c`, async () => {
      return (await walk.try(c.node, `docker exec ${c.container} ping -c 1 -W 2 ${service}`)).code === 0;
    });
  }
  await walk.sh("manager", "docker service rm service-a service-b service-c");
});

test("challenge 2: a cable is pulled, the tasks move, the service goes on", async () => {
  await walk.sh("manager", "docker network create -d overlay heal-net");
  await walk.sh(
    "manager",
    "docker service create --quiet --name heal --replicas 3 --network heal-net -p 8080:80 nginx",
  );
  const host = hostOf(walk.lab.lab, "worker-2").host;
  setCable(host, false);
  try {
    await eventually(
      "worker-2 is Down",
      async () => {
        return (await walk.sh("manager", "docker node ls --filter name=worker-2 --format '{{.Status}}'")) === "Down";
      },
      40_000,
    );
    const nodes = await eventually(
      "three tasks on the two others",
      async () => {
        const text = await walk.sh(
          "manager",
          "docker service ps heal -f desired-state=running --format '{{.Node}} {{.CurrentState}}'",
        );
        const running = text.split("\n").filter((line) => /^\S+ Running/.test(line) && !line.startsWith("worker-2"));
        return running.length === 3 ? running.map((line) => line.split(" ")[0]) : undefined;
      },
      30_000,
    );
    assert.deepEqual([...new Set(nodes)].sort(), ["manager", "worker-1"]);
    for (let i = 0; i < 10; i++) {
      assert.match(await walk.sh("manager", "curl -s -m 5 http://10.75.10.12:8080"), /Welcome to nginx!/);
    }
  } finally {
    setCable(host, true);
  }
  await eventually(
    "worker-2 is Ready again",
    async () => {
      return (await walk.sh("manager", "docker node ls --filter name=worker-2 --format '{{.Status}}'")) === "Ready";
    },
    30_000,
  );
  await eventually(
    "worker-2 answers on the port again",
    async () => {
      return (await walk.try("manager", "curl -s -m 3 http://10.75.10.13:8080")).stdout.includes("Welcome to nginx!");
    },
    30_000,
  );
  await walk.sh("manager", "docker service rm heal");
});

test("challenge 3: docker_gwbridge is on every node", async () => {
  for (const host of hosts) {
    const list = rows(await walk.sh(host, "docker network ls --filter name=docker_gwbridge"));
    assert.deepEqual(list[0]?.slice(1), ["docker_gwbridge", "bridge", "local"]);
  }
});

test("leaving", async () => {
  assert.match(await walk.sh("manager", "docker swarm leave --force"), /Node left the swarm\./);
  assert.match(await walk.sh("worker-1", "docker swarm leave"), /Node left the swarm\./);
});

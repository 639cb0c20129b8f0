/**
 * "Use overlay networks": creating them, the ingress network replaced, docker_gwbridge made by hand, published ports.
 *
 * Not run: `--opt encrypted` is refused by Skein until it is real (the walk checks that it is); Windows nodes. The option
 * `--datapath-addr` of the document is spelled `--data-path-addr` by every stock CLI. "Stop and start Docker" is the lab
 * host's skeind.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { run } from "../../src/lab/process.ts";
import { eventually } from "../support/lab.ts";
import { rows, Walk } from "../support/walk.ts";

describe("1.1, 1.2, 2 and 3: networks and ports", () => {
  let walk: Walk;
  before(async () => {
    walk = await Walk.in("walk2", "10.75.4.0/24", ["one", "two"]);
  });
  after(() => walk?.[Symbol.asyncDispose]());

  test("1.1 before a swarm an overlay network cannot be made, afterwards it can", async () => {
    assert.match(
      await walk.fails("one", "docker network create -d overlay my-overlay"),
      /This node is not a swarm manager/,
    );
    await walk.sh("one", "docker swarm init --advertise-addr 10.75.4.11 --data-path-addr 10.75.4.11");
    const token = await walk.sh("one", "docker swarm join-token -q worker");
    await walk.sh(
      "two",
      `docker swarm join --advertise-addr eth0 --data-path-addr eth0 --token ${token} 10.75.4.11:2377`,
    );
    await walk.sh("one", "docker network create -d overlay my-overlay");
    await walk.sh("one", "docker network create -d overlay --attachable my-attachable-overlay");
    const attachable = "docker network inspect -f '{{.Attachable}}'";
    assert.equal(await walk.sh("one", `${attachable} my-overlay`), "false");
    assert.equal(await walk.sh("one", `${attachable} my-attachable-overlay`), "true");
  });

  test("1.2 encryption is refused, not pretended", async () => {
    const error = await walk.fails(
      "one",
      "docker network create --opt encrypted --driver overlay --attachable my-attachable-multi-host-network",
    );
    assert.match(error, /encrypted/);
  });

  for (const [flags, protocols] of [
    ["-p 8080:80", ["tcp"]],
    ["-p published=8080,target=80", ["tcp"]],
    ["-p 8080:80/udp", ["udp"]],
    ["-p published=8080,target=80,protocol=udp", ["udp"]],
    ["-p 8080:80/tcp -p 8080:80/udp", ["tcp", "udp"]],
    ["-p published=8080,target=80,protocol=tcp -p published=8080,target=80,protocol=udp", ["tcp", "udp"]],
  ] as const) {
    test(`2.1 ${flags}`, async () => {
      await walk.sh("one", `docker service create -d --name p ${flags} nginx`);
      const [service] = JSON.parse(await walk.sh("one", "docker service inspect p"));
      const ports = service.Endpoint.Spec.Ports.map((port: Record<string, unknown>) => [
        port.Protocol,
        port.TargetPort,
        port.PublishedPort,
        port.PublishMode,
      ]);
      assert.deepEqual(
        ports.sort(),
        protocols.map((protocol) => [protocol, 80, 8080, "ingress"]),
      );
      await walk.sh("one", "docker service rm p");
    });
  }

  test("2.2 dnsrr: the name gives the tasks' addresses, and a port cannot go through the mesh", async () => {
    assert.match(
      await walk.fails("one", "docker service create -d --name rr --endpoint-mode dnsrr -p 8080:80 nginx"),
      /port published with ingress mode can't be used with dnsrr mode/,
    );
    await walk.sh(
      "one",
      "docker service create --quiet --name rr --endpoint-mode dnsrr --replicas 2 --network my-attachable-overlay nginx",
    );
    const lookup = "docker run --rm --network my-attachable-overlay alpine nslookup rr";
    const addresses = [...(await walk.sh("two", lookup)).matchAll(/^Address(?: \d)?: (10\.\S+)$/gm)].map((m) => m[1]);
    assert.equal(new Set(addresses).size, 2, addresses.join());
    await walk.sh("one", "docker service rm rr");
  });

  test("3.1 only an attachable network takes standalone containers", async () => {
    assert.match(
      await walk.fails("two", "docker run --rm --network my-overlay alpine true"),
      /not manually attachable|network my-overlay not found/,
    );
    await walk.sh("two", "docker run --rm --network my-attachable-overlay alpine true");
  });

  test("3.2 -p of a standalone container on an overlay network publishes on its host", async () => {
    await walk.sh("two", "docker run -d --name web -p 8081:80 --network my-attachable-overlay nginx");
    assert.equal(await walk.sh("two", "docker port web 80/tcp | head -1"), "0.0.0.0:8081");
    await eventually("the page on port 8081", async () => {
      return (await run(["curl", "-s", "-m", "3", "http://10.75.4.12:8081/"])).stdout.includes("Welcome to nginx!");
    });
    await walk.sh("two", "docker rm -f web");
  });
});

describe("1.3 the ingress network replaced", () => {
  let walk: Walk;
  before(async () => {
    walk = await Walk.in("walk2b", "10.75.5.0/24", ["one", "two"]);
    await walk.sh("one", "docker swarm init --advertise-addr 10.75.5.11");
    const token = await walk.sh("one", "docker swarm join-token -q worker");
    await walk.sh("two", `docker swarm join --token ${token} 10.75.5.11:2377`);
    await walk.sh("one", "docker service create --quiet --name web -p 80:80 nginx");
  });
  after(() => walk?.[Symbol.asyncDispose]());

  test("step 1-2: in use it cannot go; afterwards rm asks, N keeps it, y removes it", async () => {
    assert.match(
      await walk.fails("one", "echo y | docker network rm ingress"),
      /is in use by service|cannot be removed because/,
    );
    await walk.sh("one", "docker service rm web");
    {
      await using terminal = walk.terminal("one", "docker network rm ingress");
      const asked = await terminal.see(/Are you sure you want to continue\? \[y\/N\]/);
      assert.match(
        asked,
        /WARNING! Before removing the routing-mesh network, make sure all the nodes\s+in your swarm run the same docker engine version/,
      );
      terminal.type("N\n");
      await terminal.ended();
    }
    assert.notEqual(await walk.sh("one", "docker network ls -q --filter name=ingress"), "");
    await eventually("ingress is removed", async () => {
      await using terminal = walk.terminal("one", "docker network rm ingress");
      await terminal.see(/\[y\/N\]/);
      terminal.type("y\n");
      return (await terminal.ended()) === 0;
    });
    await eventually("ingress is not listed any more", async () => {
      return (await walk.sh("one", "docker network ls -q --filter name=ingress")) === "";
    });
  });

  test("step 3: a new one with subnet, gateway, MTU and a name of its own; a second one is refused", async () => {
    await walk.sh(
      "one",
      `docker network create \\
  --driver overlay \\
  --ingress \\
  --subnet=10.11.0.0/16 \\
  --gateway=10.11.0.2 \\
  --opt com.docker.network.mtu=1200 \\
  my-ingress`,
    );
    const [network] = JSON.parse(await walk.sh("one", "docker network inspect my-ingress"));
    assert.equal(network.Ingress, true);
    assert.deepEqual(network.IPAM.Config, [{ Subnet: "10.11.0.0/16", Gateway: "10.11.0.2" }]);
    assert.match(
      await walk.fails("one", "docker network create --driver overlay --ingress second"),
      /ingress network \(\S+\) is already present/,
    );
  });

  test("step 4: a published service works through it, on every node", async () => {
    await walk.sh("one", "docker service create --quiet --name web -p 80:80 nginx");
    for (const host of ["one", "two"]) {
      await eventually(`port 80 on ${host}`, async () => {
        return (await walk.try(host, "curl -s -m 3 localhost")).stdout.includes("Welcome to nginx!");
      });
    }
  });
});

describe("1.4 docker_gwbridge made by hand", () => {
  let walk: Walk;
  before(async () => {
    walk = await Walk.in("walk2c", "10.75.6.0/24", ["one"]);
  });
  after(() => walk?.[Symbol.asyncDispose]());

  test("step 1-5: the bridge of a former swarm goes, one with own settings is made and kept", async () => {
    await walk.sh("one", "docker swarm init --advertise-addr 10.75.6.11");
    await walk.sh("one", "docker swarm leave --force");
    await walk.sh(
      "one",
      "docker network rm docker_gwbridge || { ip link set docker_gwbridge down; ip link del name docker_gwbridge; }",
    );
    await walk.sh(
      "one",
      `docker network create \\
--subnet 10.11.0.0/16 \\
--opt com.docker.network.bridge.name=docker_gwbridge \\
--opt com.docker.network.bridge.enable_icc=false \\
--opt com.docker.network.bridge.enable_ip_masquerade=true \\
docker_gwbridge`,
    );
    await walk.sh("one", "docker swarm init --advertise-addr 10.75.6.11");
    const [network] = JSON.parse(await walk.sh("one", "docker network inspect docker_gwbridge"));
    assert.equal(network.IPAM.Config[0].Subnet, "10.11.0.0/16");
    assert.equal(network.Options["com.docker.network.bridge.enable_icc"], "false");
    assert.match(await walk.sh("one", "ip -4 addr show docker_gwbridge"), /inet 10\.11\.0\.1\/16/);
    const list = rows(await walk.sh("one", "docker network ls")).map((row) => row[1]);
    assert.equal(list.filter((name) => name === "docker_gwbridge").length, 1);
    await walk.sh("one", "docker service create --quiet --name web -p 8080:80 nginx");
    assert.match(await walk.sh("one", "curl -s -m 5 localhost:8080"), /Welcome to nginx!/);
  });
});

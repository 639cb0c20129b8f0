/**
 * The networking tutorial for overlay networks: default and user-defined overlay networks, standalone containers on
 * two hosts, and containers on the default bridge. Section numbers are the document's.
 *
 * Written otherwise than the document: `docker swarm --join` is no option of any CLI (a slip of the document, whose own
 * section 4 has it right); addresses are the lab's. Not run: ping to a name on the internet, where there is none; the
 * way out is shown by the lab's own switch instead.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { eventually } from "../support/lab.ts";
import { ctrlP, ctrlQ } from "../support/terminal.ts";
import { rows, Walk } from "../support/walk.ts";

describe("2. the default overlay network", () => {
  let walk: Walk;
  const hosts = ["manager", "worker-1", "worker-2"];
  before(async () => {
    walk = await Walk.in("walk0", "10.75.0.0/24", hosts);
  });
  after(() => walk?.[Symbol.asyncDispose]());

  test("2.2.1 step 1-3: init prints the command that joins, the workers join", async () => {
    const init = await walk.sh("manager", "docker swarm init --advertise-addr=10.75.0.11");
    assert.match(init, /^Swarm initialized: current node \([0-9a-z]{25}\) is now a manager\.$/m);
    const token = /--token (SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25})/.exec(init)?.[1];
    assert.ok(token, init);
    assert.match(init, /10\.75\.0\.11:2377/);
    assert.match(init, /docker swarm join-token manager/);
    for (const [host, address] of [
      ["worker-1", "10.75.0.12"],
      ["worker-2", "10.75.0.13"],
    ] as const) {
      const joined = await walk.sh(
        host,
        `docker swarm join --token ${token} \\\n  --advertise-addr ${address} \\\n  10.75.0.11:2377`,
      );
      assert.equal(joined, "This node joined a swarm as a worker.");
    }
  });

  test("2.2.1 step 4: node ls, and its filters", async () => {
    const nodes = await eventually("three Ready nodes", async () => {
      const list = rows(await walk.sh("manager", "docker node ls"));
      return list.filter((row) => row.includes("Ready")).length === 3 ? list : undefined;
    });
    const [self] = nodes.filter((row) => row[0]?.endsWith("*"));
    assert.deepEqual(self?.slice(1, 5), ["manager", "Ready", "Active", "Leader"]);
    const names = async (filter: string) =>
      (await walk.sh("manager", `docker node ls --filter ${filter} --format '{{.Hostname}}'`)).split("\n").sort();
    assert.deepEqual(await names("role=manager"), ["manager"]);
    assert.deepEqual(await names("role=worker"), ["worker-1", "worker-2"]);
  });

  test("2.2.1 step 5: every node lists ingress and docker_gwbridge", async () => {
    for (const host of hosts) {
      const list = rows(await walk.sh(host, "docker network ls")).map((row) => row.slice(1).join(" "));
      assert.deepEqual(list.sort(), [
        "bridge bridge local",
        "docker_gwbridge bridge local",
        "host host local",
        "ingress overlay swarm",
        "none null local",
      ]);
    }
  });

  test("2.2.2 step 1-3: a network and a service of five replicas", async () => {
    assert.match(await walk.sh("manager", "docker network create -d overlay nginx-net"), /^[0-9a-z]{25}$/);
    await walk.sh(
      "manager",
      `docker service create \\
  --name my-nginx \\
  --publish target=80,published=80 \\
  --replicas=5 \\
  --network nginx-net \\
  nginx`,
    );
    const [row] = rows(await walk.sh("manager", "docker service ls"));
    assert.equal(row?.[1], "my-nginx");
    assert.equal(row?.[3], "5/5");
    for (const address of ["10.75.0.11", "10.75.0.12", "10.75.0.13"]) {
      assert.match(await walk.sh("manager", `curl -s -m 5 http://${address}/`), /Welcome to nginx!/);
    }
  });

  test("2.2.2 step 4: network inspect on each node shows its own containers, and the peers", async () => {
    let containers = 0;
    for (const host of hosts) {
      const [network] = JSON.parse(await walk.sh(host, "docker network inspect nginx-net"));
      assert.equal(network.Scope, "swarm");
      assert.equal(network.Driver, "overlay");
      const tasks = Object.values<{ Name: string; IPv4Address: string }>(network.Containers).filter((one) =>
        one.Name.startsWith("my-nginx."),
      );
      for (const task of tasks) assert.match(task.IPv4Address, /^10\.0\.1\.\d+\/24$/);
      containers += tasks.length;
      assert.ok(network.Containers["lb-nginx-net"], "the network's load balancer endpoint");
      const peers = network.Peers.map((peer: { IP: string }) => peer.IP).sort();
      assert.deepEqual(peers, ["10.75.0.11", "10.75.0.12", "10.75.0.13"]);
    }
    assert.equal(containers, 5);
  });

  test("2.2.2 step 5: service inspect shows ports and endpoint", async () => {
    const [service] = JSON.parse(await walk.sh("manager", "docker service inspect my-nginx"));
    assert.deepEqual(service.Endpoint.Ports, [
      { Protocol: "tcp", TargetPort: 80, PublishedPort: 80, PublishMode: "ingress" },
    ]);
    assert.equal(service.Endpoint.Spec.Mode, "vip");
    assert.equal(service.Endpoint.VirtualIPs.length, 2);
  });

  test("2.2.2 step 6-7: the service moves to another network", async () => {
    await walk.sh("manager", "docker network create -d overlay nginx-net-2");
    await walk.sh(
      "manager",
      `docker service update \\
  --network-add nginx-net-2 \\
  --network-rm nginx-net \\
  my-nginx`,
    );
    assert.match(await walk.sh("manager", "docker service ls"), /my-nginx .* 5\/5/);
    const tasksOn = async (network: string) => {
      let count = 0;
      for (const host of hosts) {
        const { code, stdout } = await walk.try(host, `docker network inspect ${network}`);
        if (code !== 0) continue;
        const names = Object.values<{ Name: string }>(JSON.parse(stdout)[0].Containers ?? {});
        count += names.filter((one) => one.Name.startsWith("my-nginx.")).length;
      }
      return count;
    };
    await eventually("no container on nginx-net", async () => (await tasksOn("nginx-net")) === 0);
    assert.equal(await tasksOn("nginx-net-2"), 5);
  });

  test("2.2.2 step 8: clean up; the workers drop the networks by themselves", async () => {
    await walk.sh("manager", "docker service rm my-nginx");
    await eventually("the networks can go", async () => {
      return (await walk.try("manager", "docker network rm nginx-net nginx-net-2")).code === 0;
    });
    for (const host of hosts) {
      await eventually(`no nginx-net on ${host}`, async () => {
        return (await walk.sh(host, "docker network ls --filter name=nginx-net -q")) === "";
      });
    }
  });

  test("3. a user-defined overlay network", async () => {
    await walk.sh("manager", "docker network create -d overlay my-overlay");
    await walk.sh(
      "manager",
      `docker service create \\
  --name my-nginx \\
  --network my-overlay \\
  --replicas 1 \\
  --publish published=8080,target=80 \\
  nginx:latest`,
    );
    const node = await walk.sh("manager", "docker service ps my-nginx --format '{{.Node}}' -f desired-state=running");
    const [network] = JSON.parse(await walk.sh(node, "docker network inspect my-overlay"));
    const names = Object.values<{ Name: string }>(network.Containers).map((one) => one.Name);
    assert.ok(
      names.some((name) => name.startsWith("my-nginx.1.")),
      names.join(),
    );
    for (const host of hosts) assert.match(await walk.sh(host, "curl -s -m 5 localhost:8080"), /Welcome to nginx!/);
    await walk.sh("manager", "docker service rm my-nginx");
    await eventually("the network can go", async () => {
      return (await walk.try("manager", "docker network rm my-overlay")).code === 0;
    });
  });
});

describe("4. an overlay network for standalone containers", () => {
  let walk: Walk;
  before(async () => {
    walk = await Walk.in("walk0b", "10.75.1.0/24", ["host1", "host2"], ["basic"]);
    await walk.sh("host1", "ip addr add 192.0.2.1/24 dev eth0");
    await walk.sh("host2", "ip addr add 192.0.2.2/24 dev eth0");
  });
  after(() => walk?.[Symbol.asyncDispose]());

  test("4.2.1 the swarm", async () => {
    const init = await walk.sh("host1", "docker swarm init --advertise-addr 192.0.2.1");
    const token = /SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}/.exec(init)?.[0];
    const joined = await walk.sh(
      "host2",
      `docker swarm join \\
          --token ${token} \\
          --advertise-addr 192.0.2.2:2377 \\
          192.0.2.1:2377`,
    );
    assert.equal(joined, "This node joined a swarm as a worker.");
  });

  test("4.2.2-4.2.4 an attachable network, a container on each host; the network appears on host2", async () => {
    await walk.sh("host1", "docker network create --driver=overlay --attachable test-net");
    assert.equal(await walk.sh("host2", "docker network ls -q --filter name=test-net"), "");
    await walk.sh(
      "host1",
      `docker run -dit \\
          --name alpine1 \\
          --network test-net \\
          alpine`,
    );
    await walk.sh(
      "host2",
      `docker run -dit \\
          --name alpine2 \\
          --network test-net \\
          alpine`,
    );
    const list = rows(await walk.sh("host2", "docker network ls")).map((row) => row.slice(1).join(" "));
    assert.ok(list.includes("test-net overlay swarm"), list.join());
    const id = (host: string) => walk.sh(host, "docker network ls --filter name=test-net --format '{{.ID}}'");
    assert.equal(await id("host1"), await id("host2"));
  });

  test("4.2.5 attached to alpine2, alpine1 answers by name; CTRL-p CTRL-q leaves it running", async () => {
    await using terminal = walk.terminal("host2", "docker container attach alpine2");
    terminal.type("\n");
    await terminal.see(/# /);
    terminal.type("ping -c 2 alpine1\n");
    const seen = await terminal.see(/packets received[^\n]*\n/, 15_000);
    assert.match(seen, /PING alpine1 \(10\.0\.1\.\d+\): 56 data bytes/);
    assert.match(seen, /2 packets transmitted, 2 packets received/);
    terminal.type(ctrlP);
    terminal.type(ctrlQ);
    await terminal.ended();
    assert.equal(await walk.sh("host2", "docker inspect -f '{{.State.Running}}' alpine2"), "true");
  });

  test("4.2.6 stopped and removed on each host", async () => {
    await walk.sh("host1", "docker container stop -t 1 alpine1");
    await walk.sh("host1", "docker container rm alpine1");
    await walk.sh("host2", "docker container stop -t 1 alpine2");
    await walk.sh("host2", "docker container rm alpine2");
    await walk.sh("host1", "docker network rm test-net");
    await eventually("test-net is gone on host2", async () => {
      return (await walk.sh("host2", "docker network ls -q --filter name=test-net")) === "";
    });
  });
});

describe("5. two containers on the default bridge", () => {
  let walk: Walk;
  before(async () => {
    walk = await Walk.in("walk0c", "10.75.2.0/24", ["alone"], ["basic"]);
  });
  after(() => walk?.[Symbol.asyncDispose]());

  test("step 1: bridge, host and none are there", async () => {
    const list = rows(await walk.sh("alone", "docker network ls")).map((row) => row.slice(1).join(" "));
    assert.deepEqual(list.sort(), ["bridge bridge local", "host host local", "none null local"]);
  });

  test("step 2: two containers run ash", async () => {
    for (const name of ["alpine1", "alpine2"]) {
      assert.match(await walk.sh("alone", `docker run -dit --name ${name} alpine ash`), /^[0-9a-f]{64}$/);
    }
    const list = rows(await walk.sh("alone", "docker container ls"));
    assert.deepEqual(list.map((row) => [row[1], row[2], row.at(-1)]).sort(), [
      ["alpine", '"ash"', "alpine1"],
      ["alpine", '"ash"', "alpine2"],
    ]);
    for (const row of list) assert.match(row[4] ?? "", /^Up /);
  });

  test("step 3: network inspect bridge has the document's shape", async () => {
    const [network] = JSON.parse(await walk.sh("alone", "docker network inspect bridge"));
    assert.equal(network.Name, "bridge");
    assert.match(network.Id, /^[0-9a-f]{64}$/);
    assert.equal(network.Scope, "local");
    assert.equal(network.EnableIPv6, false);
    assert.deepEqual(network.IPAM, {
      Driver: "default",
      Options: null,
      Config: [{ Subnet: "172.17.0.0/16", Gateway: "172.17.0.1" }],
    });
    assert.equal(network.Internal, false);
    assert.equal(network.Attachable, false);
    assert.deepEqual(network.Options, {
      "com.docker.network.bridge.default_bridge": "true",
      "com.docker.network.bridge.enable_icc": "true",
      "com.docker.network.bridge.enable_ip_masquerade": "true",
      "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
      "com.docker.network.bridge.name": "docker0",
      "com.docker.network.driver.mtu": "1500",
    });
    assert.deepEqual(network.Labels, {});
    const containers = Object.entries<Record<string, string>>(network.Containers);
    assert.deepEqual(containers.map(([, one]) => [one.Name, one.MacAddress, one.IPv4Address]).sort(), [
      ["alpine1", "02:42:ac:11:00:02", "172.17.0.2/16"],
      ["alpine2", "02:42:ac:11:00:03", "172.17.0.3/16"],
    ]);
    for (const [id, one] of containers) {
      assert.match(id, /^[0-9a-f]{64}$/);
      assert.match(one.EndpointID ?? "", /^[0-9a-f]{64}$/);
      assert.equal(one.IPv6Address, "");
    }
  });

  test("step 4-7: attached to alpine1: its addresses, the way out, alpine2 by address and not by name", async () => {
    await using terminal = walk.terminal("alone", "docker attach alpine1");
    terminal.type("\n");
    await terminal.see(/# /);
    terminal.type("ip addr show\n");
    const addresses = await terminal.see(/inet 172\.17\.\d+\.\d+\/16[^\n]*\n/);
    assert.match(addresses, /1: lo: <LOOPBACK,UP,LOWER_UP>/);
    assert.match(addresses, /eth0@if\d+: <BROADCAST,MULTICAST,UP,LOWER_UP/);
    assert.match(addresses, /link\/ether 02:42:ac:11:00:02/);
    assert.match(addresses, /inet 172\.17\.0\.2\/16/);
    terminal.type("ping -c 2 10.75.2.1\n");
    await terminal.see(/2 packets transmitted, 2 packets received/);
    terminal.type("ping -c 2 172.17.0.3\n");
    await terminal.see(/2 packets transmitted, 2 packets received/);
    terminal.type("ping -c 2 alpine2\n");
    await terminal.see(/ping: bad address 'alpine2'/);
    terminal.type(ctrlP);
    terminal.type(ctrlQ);
    await terminal.ended();
    assert.equal(await walk.sh("alone", "docker inspect -f '{{.State.Running}}' alpine1"), "true");
  });

  test("step 8: stopped and removed", async () => {
    await walk.sh("alone", "docker container stop -t 1 alpine1 alpine2");
    await walk.sh("alone", "docker container rm alpine1 alpine2");
    assert.equal(await walk.sh("alone", "docker ps -aq"), "");
  });
});

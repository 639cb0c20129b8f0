/**
 * "Swarm mode networking": network basics, bridge networks, overlay networks, discovery, the routing mesh, and the
 * article about how it all works inside. Host names are the document's.
 *
 * Written otherwise: the UCP web pages of a product that is gone are shown with curl; `--opt encrypted` of the article is
 * refused by Skein until it is real, so its net1 is made without; IPVS and iptables chains do not exist in Skein (nft
 * maps do their work, docs/architecture.md): the walk shows those instead. Not run: ping to names on the internet.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { collections } from "../../src/lab/image/library.ts";
import { run } from "../../src/lab/process.ts";
import { eventually } from "../support/lab.ts";
import { rows, Walk } from "../support/walk.ts";

describe("sections 1 and 2: network basics and bridge networks", () => {
  let walk: Walk;
  before(async () => {
    walk = await Walk.in("walk3", "10.75.7.0/24", ["manager1", "worker1"]);
  });
  after(() => walk?.[Symbol.asyncDispose]());

  test("1.1 docker network lists its commands", async () => {
    const { stdout, stderr } = await walk.try("manager1", "docker network");
    for (const command of ["connect", "create", "disconnect", "inspect", "ls", "prune", "rm"]) {
      assert.match(stdout + stderr, new RegExp(`^  ${command} `, "m"));
    }
  });

  test("1.4 docker info names the network drivers that this kernel has", async () => {
    const drivers = /^ {2}Network: (.*)$/m.exec(await walk.sh("manager1", "docker info"))?.[1]?.split(" ") ?? [];
    for (const driver of ["bridge", "host", "macvlan", "null", "overlay"])
      assert.ok(drivers.includes(driver), drivers.join());
  });

  test("2.1 filtering by driver", async () => {
    await walk.sh("manager1", "docker swarm init --advertise-addr eth0");
    const list = rows(await walk.sh("manager1", "docker network ls --filter driver=bridge")).map((row) => row[1]);
    assert.deepEqual(list.sort(), ["bridge", "docker_gwbridge"]);
    await walk.sh("manager1", "docker swarm leave --force");
  });

  test("2.2 a bridge network and a container on it", async () => {
    assert.match(await walk.sh("manager1", "docker network create -d bridge br"), /^[0-9a-f]{64}$/);
    assert.equal(await walk.sh("worker1", "docker network ls -q --filter name=^br$"), "");
    await walk.sh("manager1", "docker container run -itd --net br --name c1 alpine sh");
    const [network] = JSON.parse(await walk.sh("manager1", "docker network inspect br"));
    const [container] = Object.values<Record<string, string>>(network.Containers);
    assert.equal(container?.Name, "c1");
    assert.match(container?.MacAddress ?? "", /^02:42:ac:/);
    assert.match(container?.IPv4Address ?? "", /^172\.\d+\.0\.2\/16$/);
  });

  test("2.3 host to container, container to container by address and by name; not from the other host", async () => {
    const format = `--format "{{ .NetworkSettings.Networks.br.IPAddress }}"`;
    const address = await walk.sh("manager1", `docker container inspect c1 ${format}`);
    assert.equal(await walk.sh("manager1", `docker inspect ${format} c1`), address);
    assert.match(await walk.sh("manager1", `ping -c 3 -i 0.2 ${address}`), /3 received/);
    await using terminal = walk.terminal("manager1", "docker exec -it c1 sh");
    await terminal.see(/# /);
    terminal.type("ip addr show | grep inet\n");
    const seen = await terminal.see(/scope global eth/);
    assert.match(seen, /inet 127\.0\.0\.1\/8 scope host lo/);
    terminal.type("ping -c 3 10.75.7.1\n");
    await terminal.see(/3 packets received/);
    terminal.type("exit\n");
    await terminal.ended();
    await walk.sh("manager1", "docker container run -itd --net br --name c2 alpine sh");
    assert.match(await walk.sh("manager1", `docker container exec c2 ping -c 2 ${address}`), /2 packets received/);
    const byName = await walk.sh("manager1", "docker container exec c2 ping -c 2 c1");
    assert.match(byName, new RegExp(`PING c1 \\(${address.replaceAll(".", "\\.")}\\)`));
    assert.match(await walk.fails("worker1", `ping -c 2 -W 2 ${address}`), /100% packet loss/);
    await walk.sh("manager1", "docker rm -f c1");
    await walk.sh("manager1", "docker rm -f c2");
    await walk.sh("manager1", "docker network rm br");
  });

  test("2.4 port 8000 of the host leads to port 80 of the container", async () => {
    await walk.sh("manager1", "docker container run --name web1 -d -p 8000:80 nginx:alpine");
    const [row] = rows(await walk.sh("manager1", "docker container ls --filter name=web1"));
    assert.match(row?.join(" ") ?? "", /0\.0\.0\.0:8000->80\/tcp/);
    await eventually("the page from outside", async () => {
      return (await run(["curl", "-s", "-m", "3", "http://10.75.7.11:8000/"])).stdout.includes("Welcome to nginx!");
    });
    await walk.sh("manager1", "docker rm -f web1");
  });
});

describe("section 3: overlay networks", () => {
  let walk: Walk;
  const hosts = ["manager1", "worker1", "worker2", "worker3"];
  before(async () => {
    walk = await Walk.in("walk3b", "10.75.8.0/24", hosts, collections);
    await walk.sh("manager1", "docker swarm init --advertise-addr eth0");
    const token = await walk.sh("manager1", "docker swarm join-token -q worker");
    for (const host of hosts.slice(1)) await walk.sh(host, `docker swarm join --token ${token} 10.75.8.11:2377`);
  });
  after(() => walk?.[Symbol.asyncDispose]());

  test("3.1-3.2 four nodes; overnet exists on the manager only, until it is needed", async () => {
    assert.equal(rows(await walk.sh("manager1", "docker node ls")).length, 4);
    assert.match(await walk.sh("manager1", "docker network create -d overlay overnet"), /^[0-9a-z]{25}$/);
    const [row] = rows(await walk.sh("manager1", "docker network ls --filter name=overnet"));
    assert.deepEqual(row?.slice(1), ["overnet", "overlay", "swarm"]);
    const list = rows(await walk.sh("worker1", "docker network ls --filter driver=overlay")).map((one) => one[1]);
    assert.deepEqual(list, ["ingress"]);
    const [network] = JSON.parse(await walk.sh("manager1", "docker network inspect overnet"));
    assert.equal(network.Scope, "swarm");
    assert.equal(network.Containers, null);
    assert.match(network.Options["com.docker.network.driver.overlay.vxlanid_list"], /^409\d$/);
  });

  test("3.3 six replicas spread over every node, which now has the network", async () => {
    await walk.sh(
      "manager1",
      `docker service create --name ubuntu --detach \\
--network overnet \\
--replicas 6 \\
sixeyed/ubuntu-with-utils sleep infinity`,
    );
    await eventually("6/6", async () =>
      / 6\/6 /.test(await walk.sh("manager1", "docker service ls --filter name=ubuntu")),
    );
    const nodes = rows(await walk.sh("manager1", "docker service ps ubuntu")).map((row) => row[3]);
    assert.deepEqual([...new Set(nodes)].sort(), hosts);
    for (const host of hosts) {
      const list = rows(await walk.sh(host, "docker network ls --filter driver=overlay")).map((one) => one[1]);
      assert.deepEqual(list.sort(), ["ingress", "overnet"]);
    }
    const [network] = JSON.parse(await walk.sh("worker2", "docker network inspect overnet"));
    assert.match(network.IPAM.Config[0].Subnet, /^10\.0\.\d+\.0\/24$/);
    assert.match(network.IPAM.Config[0].Gateway, /^10\.0\.\d+\.1$/);
  });

  test("3.4 a task on worker3 reaches one on worker2 by its address", async () => {
    const [network] = JSON.parse(await walk.sh("worker2", "docker network inspect overnet"));
    const tasks = Object.values<Record<string, string>>(network.Containers).filter((one) =>
      one.Name?.startsWith("ubuntu."),
    );
    const address = tasks[0]?.IPv4Address?.split("/")[0];
    assert.ok(address);
    const ping = `id=$(docker container ls --last 1 --format "{{ .ID }}")\ndocker container exec $id ping -c 2 ${address}`;
    assert.match(await walk.sh("worker3", ping), /2 packets received|2 received/);
  });

  test("3.5 the resolver, and the service's name, which is its VIP on every node", async () => {
    const id = `id=$(docker container ls --last 1 --format "{{ .ID }}")`;
    const resolv = await walk.sh("worker2", `${id}\ndocker container exec $id cat /etc/resolv.conf`);
    assert.match(resolv, /^nameserver 127\.0\.0\.11$/m);
    assert.match(resolv, /ndots:0/);
    const [service] = JSON.parse(await walk.sh("manager1", "docker service inspect ubuntu"));
    const vip = service.Endpoint.VirtualIPs[0].Addr.split("/")[0];
    assert.equal(service.Spec.TaskTemplate.ContainerSpec.StopGracePeriod, 10_000_000_000);
    assert.deepEqual(service.Spec.EndpointSpec, { Mode: "vip" });
    for (const host of ["worker2", "manager1"]) {
      const ping = await walk.sh(host, `${id}\ndocker container exec $id ping -c 2 ubuntu`);
      assert.match(ping, new RegExp(`PING ubuntu \\(${vip.replaceAll(".", "\\.")}\\)`));
      assert.match(ping, /2 packets received|2 received/);
    }
  });

  test("3.6 the routing mesh: one replica, then ten, through any node", async () => {
    await walk.sh("manager1", "docker service create -p 5000:5000 -d --name pets --replicas=1 nicolaka/pets_web:1.0");
    for (const host of hosts) {
      await eventually(`port 5000 of ${host}`, async () => {
        return (await walk.try(host, "curl -s -m 3 localhost:5000")).stdout.includes("Hello from");
      });
    }
    await walk.sh("manager1", "docker service scale --detach pets=10");
    await eventually(
      "10/10",
      async () => / 10\/10 /.test(await walk.sh("manager1", "docker service ls --filter name=pets")),
      30_000,
    );
    const seen = new Set<string>();
    await eventually(
      "all ten containers answer in turn",
      async () => {
        const { stdout } = await run(["curl", "-s", "-m", "3", "http://10.75.8.14:5000/"]);
        const host = /Hello from (\S+)/.exec(stdout)?.[1];
        if (host) seen.add(host);
        return seen.size === 10;
      },
      30_000,
    );
  });

  test("clean up", async () => {
    await walk.sh("manager1", "docker service rm pets");
    await walk.sh("manager1", "docker service rm ubuntu");
    await eventually(
      "overnet can go",
      async () => {
        return (await walk.try("manager1", "docker network rm overnet")).code === 0;
      },
      30_000,
    );
  });
});

describe("how it works inside", () => {
  let walk: Walk;
  before(async () => {
    walk = await Walk.in("walk3c", "10.75.9.0/24", ["node1", "node2"], collections);
    await walk.sh("node1", "docker swarm init --advertise-addr eth0");
    const token = await walk.sh("node1", "docker swarm join-token -q worker");
    await walk.sh("node2", `docker swarm join --token ${token} 10.75.9.11:2377`);
  });
  after(() => walk?.[Symbol.asyncDispose]());

  test("three tiers on net1: nginx reaches node, node reaches redis, from outside on port 1080", async () => {
    assert.match(
      await walk.fails("node1", "docker network create --opt encrypted --subnet 100.0.0.0/24 -d overlay net1"),
      /encrypted/,
    );
    await walk.sh("node1", "docker network create --subnet 100.0.0.0/24 -d overlay net1");
    await walk.sh("node1", "docker service create --quiet --name redis --network net1 redis");
    await walk.sh("node1", "docker service create --quiet --name node --network net1 nvbeta/node");
    await walk.sh("node1", "docker service create --quiet --name nginx --network net1 -p 1080:80 nvbeta/swarm_nginx");
    for (const address of ["10.75.9.11", "10.75.9.12"]) {
      await eventually(`the counter through ${address}`, async () => {
        return /viewed \d+ times/.test((await run(["curl", "-s", "-m", "5", `http://${address}:1080/`])).stdout);
      });
    }
  });

  test("the namespaces: one per overlay network, one per container, the ingress sandbox", async () => {
    await walk.sh("node1", "cd /var/run\nln -s /var/run/docker/netns netns");
    const names = (await walk.sh("node1", "ip netns")).split("\n").map((line) => line.split(" ")[0] ?? "");
    const net1 = await walk.sh("node1", "docker network ls --no-trunc --filter name=net1 --format '{{.ID}}'");
    const ingress = await walk.sh("node1", "docker network ls --no-trunc --filter name=ingress --format '{{.ID}}'");
    for (const id of [net1, ingress]) {
      assert.ok(
        names.some((name) => new RegExp(`^\\d+-${id.slice(0, 10)}$`).test(name)),
        `${id} in ${names.join()}`,
      );
    }
    assert.ok(names.includes("ingress_sbox"), names.join());
  });

  test("a container has eth0 on net1 and its last interface on docker_gwbridge; the network's namespace has br0, vxlan0 and the veth pairs' other ends", async () => {
    const id = await walk.sh("node1", "docker ps -q --filter network=net1 | head -1");
    const inside = await walk.sh("node1", `docker exec ${id} ip link`);
    assert.match(inside, /eth0.* mtu 1450 /);
    assert.match(inside, /eth1.* mtu 1[45]\d0 /);
    const net1 = await walk.sh("node1", "docker network ls --no-trunc --filter name=net1 --format '{{.ID}}'");
    const space = await walk.sh("node1", `cd /var/run/docker/netns && ls -d *-${net1.slice(0, 10)}`);
    const links = await walk.sh("node1", `nsenter --net=/var/run/docker/netns/${space} ip -d link`);
    assert.match(links, /br0: .* mtu 1450 /);
    assert.match(links, /vxlan0.* master br0 /);
    assert.match(links, /vxlan id 409\d .*dstport 4789/);
    assert.match(links, /veth0.* master br0 /);
  });

  test("docker_gwbridge holds a veth of every container, and of ingress-sbox", async () => {
    const bridges = await walk.sh("node1", "ip -br link show master docker_gwbridge");
    assert.ok(bridges.split("\n").length >= 2, bridges);
    const [network] = JSON.parse(await walk.sh("node1", "docker network inspect docker_gwbridge"));
    assert.equal(network.Containers["ingress-sbox"].Name, "gateway_ingress-sbox");
    const [ingress] = JSON.parse(await walk.sh("node1", "docker network inspect ingress"));
    assert.equal(ingress.Containers["ingress-sbox"].Name, "ingress-endpoint");
    assert.match(ingress.Containers["ingress-sbox"].IPv4Address, /^10\.0\.0\.\d+\/24$/);
    const addresses = await walk.sh("node1", "nsenter --net=/var/run/docker/netns/ingress_sbox ip addr");
    assert.ok(addresses.includes(ingress.Containers["ingress-sbox"].IPv4Address), addresses);
    assert.ok(addresses.includes(network.Containers["ingress-sbox"].IPv4Address), addresses);
    assert.ok(addresses.includes(ingress.Containers["ingress-sbox"].MacAddress), addresses);
  });

  test("where Docker shows iptables chains and IPVS, nft maps name port 1080 and the task behind it", async () => {
    const host = await walk.sh("node1", "nft list ruleset");
    assert.match(host, /1080/);
    const sandbox = await walk.sh("node1", "nsenter --net=/var/run/docker/netns/ingress_sbox nft list ruleset");
    const task = await walk.sh("node1", "docker service ps -q --no-trunc nginx");
    const addresses = await walk.sh("node1", `docker inspect ${task} --format '{{json .NetworksAttachments}}'`);
    const behind = JSON.parse(addresses)
      .flatMap((attachment: { Addresses: string[] }) => attachment.Addresses)
      .map((address: string) => address.split("/")[0])
      .find((address: string) => address.startsWith("10.0.0."));
    assert.ok(behind, addresses);
    assert.match(sandbox, /1080/);
    assert.ok(sandbox.includes(behind), `${behind} in\n${sandbox}`);
  });
});

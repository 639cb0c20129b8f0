/**
 * "Docker networks: overlay mode". The document makes its two machines with docker-machine and VirtualBox; here they are
 * two hosts of a lab, `master` and `node01`, whose interface is `eth0` where the document says `eth1`.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { eventually } from "../support/lab.ts";
import { rows, Walk } from "../support/walk.ts";

let walk: Walk;
before(async () => {
  walk = await Walk.in("walk1", "10.75.3.0/24", ["master", "node01"]);
});
after(() => walk?.[Symbol.asyncDispose]());

const names = async (host: string) =>
  rows(await walk.sh(host, "docker network ls"))
    .map((row) => row[1])
    .sort();

test("before init there is neither ingress nor docker_gwbridge, after it there are both", async () => {
  assert.deepEqual(await names("master"), ["bridge", "host", "none"]);
  await walk.sh("master", "docker swarm init  --advertise-addr eth0");
  assert.deepEqual(await names("master"), ["bridge", "docker_gwbridge", "host", "ingress", "none"]);
});

test("node ls on the master; the token's command joins node01; its networks appear", async () => {
  assert.equal(rows(await walk.sh("master", "docker node ls")).length, 1);
  const text = await walk.sh("master", "docker swarm join-token worker");
  assert.match(text, /To add a worker to this swarm, run the following command:/);
  const command = /docker swarm join --token SWMTKN-1-\S+ \S+:2377/.exec(text)?.[0];
  assert.ok(command, text);
  assert.match(command, / 10\.75\.3\.11:2377$/);
  assert.match(await walk.sh("master", "docker swarm join-token manager"), /To add a manager to this swarm/);
  assert.equal(await walk.sh("node01", command), "This node joined a swarm as a worker.");
  assert.deepEqual(await names("node01"), ["bridge", "docker_gwbridge", "host", "ingress", "none"]);
  assert.equal(rows(await walk.sh("master", "docker node ls")).length, 2);
});

test("network inspect ingress tells the peers", async () => {
  const peers = await eventually("two peers", async () => {
    const text = await walk.sh("master", `docker network inspect ingress -f "{{.Peers}}"`);
    return text.includes("10.75.3.12") ? text : undefined;
  });
  assert.match(peers, /^\[\{[0-9a-f]{12} 10\.75\.3\.1\d\} \{[0-9a-f]{12} 10\.75\.3\.1\d\}\]$/);
  assert.match(peers, /10\.75\.3\.11/);
});

test("a service of two replicas behind localhost:8080 answers from both nodes", async () => {
  await walk.sh(
    "master",
    "docker service create --mode replicated --replicas 2  --name helloworld -p 8080:8080 --endpoint-mode vip huyinghuan/helloworld:latest",
  );
  const seen = new Set<string>();
  for (let i = 0; i < 40 && seen.size < 2; i++) {
    const answer = await walk.sh("master", `curl -s -m 5 -w "\\n" localhost:8080`);
    const host = /Hello from (\S+)/.exec(answer)?.[1];
    assert.ok(host, answer);
    seen.add(host);
  }
  assert.equal(seen.size, 2);
});

test("own overlay networks; a subnet may be given with host bits", async () => {
  await walk.sh("master", "docker network create -d overlay helloNet");
  await walk.sh("master", "docker network create -d overlay --subnet 172.19.0.1/24 --gateway 172.19.0.1 helloNew");
  const [network] = JSON.parse(await walk.sh("master", "docker network inspect helloNew"));
  assert.match(network.IPAM.Config[0].Subnet, /^172\.19\.0\.[01]\/24$/);
  assert.equal(network.IPAM.Config[0].Gateway, "172.19.0.1");
  await walk.sh("master", "docker service update --quiet --network-add helloNew helloworld");
  const id = await walk.sh("master", "docker ps -q --filter name=helloworld");
  assert.match(await walk.sh("master", `docker exec ${id} ip addr`), /inet 172\.19\.0\.\d+\/24/);
});

/** Published ports in a mixed swarm, what each engine shows of the swarm's own networks, and what is refused. */
import assert from "node:assert/strict";
import { it } from "node:test";
import { meshBackends, tasksOf } from "../../support/consistency.ts";
import { eventually, HOSTS, type Host, type MixedLab } from "./mixed.ts";
import { QUICK } from "./mixed-overlay.ts";

/** Which task answered, and whom it took for its client. */
interface Greeting {
  readonly task: string;
  readonly client: string;
}

export function meshTests(lab: () => MixedLab): void {
  const balancing = () => HOSTS.filter((host) => lab().balances(host));
  const isOurs = (host: Host) => lab().engineOf(host) === "skeind";
  const create = (...args: string[]) => lab().manage("service", "create", ...QUICK, ...args);

  async function greeting(host: Host, port: number): Promise<Greeting | undefined> {
    const url = `http://${lab().host(host).address}:${port}/cgi-bin/index.cgi`;
    const text = await fetch(url, { signal: AbortSignal.timeout(2_000), headers: { connection: "close" } })
      .then((response) => response.text())
      .catch(() => "");
    const [, task = "", client = ""] = /^Hello from (\S+)\nclient (?:\[::ffff:)?([\d.]+)/.exec(text) ?? [];
    return task ? { task, client } : undefined;
  }

  const hostOf = (task: string): Host => {
    const host = HOSTS.find((one) => task.endsWith(`-${one}`));
    return host ?? assert.fail(`${task} is on no host`);
  };

  it("a published port leads to the tasks on all hosts; ours see the client by our hosts, otherwise the entry host's address", async () => {
    await create(
      ...["--name", "pub", "--mode", "global", "--publish", "8080:80", "--hostname", "pub-{{.Node.Hostname}}"],
      "skein/hello",
    );
    await lab().running("pub", 3);
    const backends = await tasksOf(lab(), "pub", "ingress");
    for (const host of balancing()) {
      if (isOurs(host)) {
        await eventually("its backends", async () => (await meshBackends(lab(), host)).join() === backends.join());
      }
      const seen = new Map<Host, string>();
      await eventually(`all tasks answer through ${host}`, async () => {
        const answer = await greeting(host, 8080);
        if (answer) seen.set(hostOf(answer.task), answer.client);
        return seen.size === HOSTS.length;
      });
      const door = await doorOf(host);
      for (const [at, client] of seen) {
        const expected = isOurs(host) && isOurs(at) ? lab().lab.spec.gateway : door;
        assert.equal(client, expected, `through ${host} to ${at}`);
      }
    }
  });

  /** The address of a host's balancer on ingress, by its own words. */
  async function doorOf(host: Host): Promise<string> {
    const format = "{{range .Containers}}{{.Name}} {{.IPv4Address}}\n{{end}}";
    const text = await lab().ok(host, "network", "inspect", "--format", format, "ingress");
    return /^ingress-endpoint (\S+)\/\d+$/m.exec(text)?.[1] ?? assert.fail(`no balancer on ${host}: ${text}`);
  }

  it("a task that goes is no backend any more, wherever it was", async () => {
    await lab().manage("service", "update", "--detach", "--quiet", "--constraint-add", "node.hostname!=docker", "pub");
    await eventually("two are left", async () => (await tasksOf(lab(), "pub", "ingress")).length === 2);
    const backends = await tasksOf(lab(), "pub", "ingress");
    for (const host of HOSTS.filter(isOurs)) {
      await eventually("two are left", async () => (await meshBackends(lab(), host)).join() === backends.join());
    }
    for (const host of balancing()) {
      await eventually(`both answer through ${host}, nobody else`, async () => {
        const answers = [];
        for (let i = 0; i < 6; i++) answers.push(await greeting(host, 8080));
        return answers.every((answer) => answer && hostOf(answer.task) !== "docker");
      });
    }
    await lab().manage("service", "rm", "pub");
    for (const host of balancing()) {
      await eventually("the port is shut", async () => (await greeting(host, 8080)) === undefined);
    }
  });

  it("a port published on the host leads to that host's task", async () => {
    await create(
      ...["--name", "here", "--mode", "global", "--publish", "mode=host,published=8090,target=80"],
      ...["--hostname", "here-{{.Node.Hostname}}", "skein/hello"],
    );
    await lab().running("here", 3);
    for (const host of HOSTS) {
      const answer = await eventually(`${host} answers`, () => greeting(host, 8090));
      assert.deepEqual(answer, { task: `here-${host}`, client: lab().lab.spec.gateway });
      const ports = await lab().manage(
        ...["service", "ps", "--filter", `node=${host}`, "--filter", "desired-state=running"],
        ...["--format", "{{.Ports}}", "here"],
      );
      assert.match(ports, /^\*:8090->80\/tcp(,\*:8090->80\/tcp)?$/, host);
    }
    await lab().manage("service", "rm", "here");
  });

  it("the swarm's own networks look the same on every host", async () => {
    const inspect = async (host: Host, network: string) => {
      const [shown] = JSON.parse(await lab().ok(host, "network", "inspect", network)) as Record<string, unknown>[];
      return shown ?? {};
    };
    for (const network of ["ingress", "docker_gwbridge", "side"]) {
      const [first, ...others] = await Promise.all(HOSTS.map((host) => inspect(host, network)));
      for (const [at, other] of others.entries()) {
        assert.deepEqual(comparable(other), comparable(first ?? {}), `${network} on ${HOSTS[at + 1]} and ${HOSTS[0]}`);
      }
      const endpoints = { ingress: "ingress-sbox", docker_gwbridge: "ingress-sbox", side: "lb-side" } as const;
      for (const [at, shown] of [first, ...others].entries()) {
        const containers = shown?.Containers as Record<string, Record<string, unknown>>;
        const own = containers[endpoints[network as keyof typeof endpoints]];
        assert.ok(own, `${network} on ${HOSTS[at]} has ${Object.keys(containers)}`);
        const names = { ingress: "ingress-endpoint", docker_gwbridge: "gateway_ingress-sbox", side: "side-endpoint" };
        assert.equal(own.Name, names[network as keyof typeof names]);
        assert.deepEqual(Object.keys(own).sort(), ["EndpointID", "IPv4Address", "IPv6Address", "MacAddress", "Name"]);
      }
    }
  });

  it("an encrypted network is refused on our hosts, by name, and nothing of it is made there", async () => {
    const create_ = () =>
      lab().try("manager", "network", "create", "-d", "overlay", "--attachable", "--opt", "encrypted", "sealed");
    const made = await create_();
    if (lab().managedBy === "skeind") {
      assert.match(made.stderr, /encrypted overlay networks \(--opt encrypted\)/);
      return;
    }
    assert.equal(made.code, 0, made.stderr);
    const id = made.stdout.trim();
    await create("--name", "sealed", "--network", "sealed", "--constraint", "node.hostname==skein", "skein/hello");
    await eventually("the task tells why", async () =>
      (await lab().tasks("sealed")).some((task) =>
        / skein Rejected .*encrypted overlay networks \(--opt encrypted\)/.test(task),
      ),
    );
    const { code, stderr } = await lab().try("skein", "run", "--rm", "--network", "sealed", "skein/box", "true");
    assert.notEqual(code, 0);
    assert.match(stderr, /encrypted overlay networks \(--opt encrypted\)/);
    await lab().manage("service", "rm", "sealed");
    const { stdout } = await lab().in("skein", "ls", "/run/docker/netns");
    assert.ok(!stdout.includes(id.slice(0, 10)), stdout);
    assert.ok(!(await lab().ok("skein", "network", "ls", "--format", "{{.Name}}")).split("\n").includes("sealed"));
    await eventually(
      "it can be removed",
      async () => (await lab().try("manager", "network", "rm", "sealed")).code === 0,
    );
  });
}

/** An inspection without what is each host's own, and without what 20.10 does not know. */
function comparable(shown: Record<string, unknown>): unknown {
  const { Containers: _own, Created: _when, EnableIPv4: _newer, Id, Peers, Scope, IPAM, ...rest } = shown;
  const peers = (Peers as { IP: string }[] | undefined)?.map(({ IP }) => IP).sort();
  return { ...rest, Scope, IPAM, ...(Scope === "swarm" && { Id }), peers };
}

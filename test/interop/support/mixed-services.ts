/** Services, jobs, secrets, updates on hosts of both kinds under either kind of manager. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { it } from "node:test";
import { eventually, type Host, type MixedLab } from "./mixed.ts";
import { QUICK } from "./mixed-overlay.ts";

const workers = ["docker", "skein"] as const satisfies Host[];
const ON_BOTH = ["--constraint", "node.labels.zone==mixed"];

export function serviceTests(lab: () => MixedLab): void {
  const create = (...args: string[]) => lab().manage("service", "create", ...QUICK, ...args);
  const update = (service: string, ...args: string[]) =>
    lab().manage("service", "update", "--detach", "--quiet", "--no-resolve-image", ...args, service);
  const remove = (...services: string[]) => lab().manage("service", "rm", ...services);
  const envOf = async (host: Host, service: string) => {
    const filter = `label=com.docker.swarm.service.name=${service}`;
    const ids = (await lab().ok(host, "ps", "--quiet", "--filter", filter)).split("\n").filter(Boolean);
    return Promise.all(ids.map((id) => lab().ok(host, "inspect", "--format", "{{json .Config.Env}}", id)));
  };
  const fileWith = (name: string, text: string) => {
    const file = `${lab().host("manager").runDir}/${name}`;
    writeFileSync(file, text);
    return file;
  };

  it("every node tells what it is", async () => {
    for (const host of workers) {
      const [node] = JSON.parse(await lab().manage("node", "inspect", host)) as {
        Status: { State: string; Addr: string };
        Description: {
          Hostname: string;
          Platform: { Architecture: string; OS: string };
          Resources: { NanoCPUs: number; MemoryBytes: number };
          Engine: { EngineVersion: string; Plugins: { Type: string; Name: string }[] };
          TLSInfo: { TrustRoot: string };
        };
      }[];
      assert.ok(node);
      assert.equal(node.Status.State, "ready");
      assert.equal(node.Status.Addr, lab().host(host).address);
      assert.equal(node.Description.Hostname, host);
      assert.deepEqual(node.Description.Platform, { Architecture: "x86_64", OS: "linux" });
      assert.ok(node.Description.Resources.NanoCPUs >= 1e9 && node.Description.Resources.MemoryBytes > 1e8);
      assert.match(node.Description.Engine.EngineVersion, /^\d+\.\d+/);
      const plugins = node.Description.Engine.Plugins.map(({ Type, Name }) => `${Type} ${Name}`);
      for (const plugin of ["Network overlay", "Volume local", "Log json-file"]) assert.ok(plugins.includes(plugin));
      assert.match(node.Description.TLSInfo.TrustRoot, /BEGIN CERTIFICATE/);
      await lab().manage("node", "update", "--label-add", "zone=mixed", "--label-add", `kind=${host}`, host);
    }
  });

  it("secrets, configs and templates come to both alike, and both send their logs", async () => {
    await lab().manage("secret", "create", "pass", fileWith("pass", "hush\n"));
    const text = `{{ env "KIND" }} of {{ .Service.Name }}, {{ secret "pass" }}`;
    await lab().manage("config", "create", "--template-driver", "golang", "page", fileWith("page", text));
    await create(
      ...["--name", "told", "--mode", "global", ...ON_BOTH, "--user", "65534:65534"],
      ...["--secret", "source=pass,target=pass,mode=0400,uid=65534,gid=65534"],
      ...["--config", "source=page,target=/page,mode=0444"],
      ...[
        "--env",
        'KIND={{index .Service.Labels "kind"}}',
        "--label",
        "kind=sort",
        "--hostname",
        "{{.Node.Hostname}}-x",
      ],
      ...["--mount", "type=tmpfs,target=/scratch,tmpfs-size=65536", "--read-only", "--container-label", "tier=one"],
      ...["alpine:latest", "sh", "-c"],
      'echo "$(hostname)|$(cat /run/secrets/pass)|$(cat /page)|$(stat -c %a:%u /run/secrets/pass)|$(id -u)"; ' +
        "df -k /scratch | tail -1 | tr -s ' ' | cut -d' ' -f2; touch /no 2>/dev/null || echo read-only; exec sleep 1000000",
    );
    const tasks = await lab().running("told", 2);
    const logs = await eventually("both have spoken", async () => {
      const out = await lab().manage("service", "logs", "--raw", "told");
      return out.split("\n").length === 6 && out;
    });
    for (const host of workers) {
      const line = `${host}-x|hush|sort of told, hush|400:65534|65534`;
      assert.ok(logs.split("\n").includes(line), `${line} is in\n${logs}`);
    }
    assert.equal(logs.match(/^64$/gm)?.length, 2, logs);
    assert.equal(logs.match(/^read-only$/gm)?.length, 2, logs);
    // One task's, with what the command line makes of where it runs.
    for (const host of workers) {
      assert.ok(tasks.some((task) => task.includes(` ${host} `)));
      const id = await lab().manage("service", "ps", "--quiet", "--filter", `node=${host}`, "told");
      const own = await lab().manage("service", "logs", "--tail", "1", id);
      assert.match(own, new RegExp(`^told\\.\\S+@${host} +\\| read-only$`));
    }
    await remove("told");
  });

  it("an update that is unhealthy on both is rolled back; one that is healthy goes through, and back", async () => {
    await create(
      ...["--name", "upd", "--replicas", "2", ...ON_BOTH, "--placement-pref", "spread=node.labels.kind"],
      ...["--env", "OK=1", "--health-cmd", 'test "$OK" = 1', "--health-interval", "300ms", "--health-retries", "2"],
      ...["--update-failure-action", "rollback", "--update-monitor", "2s", "--rollback-monitor", "100ms"],
      ...["--update-parallelism", "1", "--restart-delay", "100ms", "alpine:latest", "sleep", "1000000"],
    );
    const first = await lab().running("upd", 2);
    for (const host of workers)
      assert.ok(
        first.some((task) => task.includes(` ${host} `)),
        first.join("\n"),
      );
    for (const host of workers) {
      const running = () => lab().ok(host, "ps", "-q", "--filter", "label=com.docker.swarm.service.name=upd");
      const killed = await running();
      await lab().ok(host, "kill", killed);
      await eventually(`${host} has another`, async () => ![killed, ""].includes(await running()));
      assert.ok((await lab().tasks("upd", `node=${host}`)).some((task) => /task: non-zero exit \(137\)/.test(task)));
    }
    await lab().running("upd", 2);
    const state = () =>
      lab().manage("service", "inspect", "--format", "{{with .UpdateStatus}}{{.State}}{{end}}", "upd");
    await update("upd", "--env-add", "OK=0");
    await eventually("it is rolled back", async () => (await state()) === "rollback_completed");
    await lab().running("upd", 2);
    await update("upd", "--env-add", "NEW=1", "--update-parallelism", "2", "--update-monitor", "100ms");
    await eventually("it is updated", async () => (await state()) === "completed");
    await lab().running("upd", 2);
    for (const host of workers) assert.match((await envOf(host, "upd")).join(), /"NEW=1"/);
    await lab().manage("service", "rollback", "--detach", "--quiet", "upd");
    await eventually("it is rolled back", async () => (await state()) === "rollback_completed");
    await lab().running("upd", 2);
    for (const host of workers) assert.doesNotMatch((await envOf(host, "upd")).join(), /"NEW=1"/);
  });

  it("drained and paused nodes of either kind give their tasks up, or get no more", async () => {
    for (const [host, other] of [workers, [...workers].reverse()] as [Host, Host][]) {
      await lab().manage("node", "update", "--availability", "drain", host);
      await eventually(`all on ${other}`, async () => {
        const tasks = await lab().tasks("upd", "desired-state=running");
        return tasks.length === 2 && tasks.every((task) => task.includes(` ${other} Running `));
      });
      await eventually("none is left", async () => (await envOf(host, "upd")).length === 0);
      await lab().manage("node", "update", "--availability", "active", host);
    }
    await lab().manage("node", "update", "--availability", "pause", "docker");
    await lab().manage("node", "update", "--availability", "drain", "skein");
    await lab().manage("service", "update", "--detach", "--quiet", "--no-resolve-image", "--force", "upd");
    await eventually("there is no place for them", async () =>
      (await lab().tasks("upd", "desired-state=running")).some((task) => / Pending .*no suitable node \(/.test(task)),
    );
    await lab().manage("node", "update", "--availability", "active", "skein");
    await lab().manage("service", "scale", "--detach", "upd=4");
    const tasks = await lab().running("upd", 4);
    for (const slot of [3, 4]) {
      assert.ok(
        tasks.some((task) => task.startsWith(`upd.${slot} skein `)),
        tasks.join("\n"),
      );
    }
    await lab().manage("node", "update", "--availability", "active", "docker");
    await remove("upd");
  });

  it("jobs complete on both, and exit codes are told", async () => {
    const job = ["--no-resolve-image", "--detach", ...ON_BOTH, "--restart-condition", "none"];
    await lab().manage("service", "create", "--name", "gjob", "--mode", "global-job", ...job, "alpine:latest", "true");
    await lab().manage(
      ...["service", "create", "--name", "rjob", "--mode", "replicated-job", "--replicas", "4"],
      ...["--max-concurrent", "2", ...job, "alpine:latest", "sh", "-c", "exit 0"],
    );
    await lab().manage(
      "service",
      "create",
      "--name",
      "bad",
      "--mode",
      "global",
      ...job,
      "alpine:latest",
      "sh",
      "-c",
      "exit 7",
    );
    for (const [name, count] of [
      ["gjob", 2],
      ["rjob", 4],
    ] as const) {
      await eventually(`${name} is complete`, async () => {
        const tasks = await lab().tasks(name);
        return tasks.length === count && tasks.every((task) => / Complete /.test(task));
      });
    }
    for (const host of workers) {
      for (const name of ["gjob", "rjob"])
        assert.ok((await lab().tasks(name, `node=${host}`)).length > 0, `${name} ${host}`);
      await eventually("the exit code is told", async () =>
        (await lab().tasks("bad", `node=${host}`)).some((task) => / Failed .*task: non-zero exit \(7\)/.test(task)),
      );
    }
    assert.match(
      await lab().manage("service", "ls", "--format", "{{.Name}} {{.Replicas}}"),
      /^gjob \S+ \(2\/2 completed\)/m,
    );
    await remove("gjob", "rjob", "bad");
  });
}

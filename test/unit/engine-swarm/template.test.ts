import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { TaskSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { ContainerSpecSchema } from "#proto/docker/swarmkit/specs_pb.js";
import { NodeDescriptionSchema } from "#proto/docker/swarmkit/types_pb.js";
import { payloadFiles } from "../../../src/engine/swarm/payload.ts";
import { expandContainerSpec, taskContainerName, templateContext } from "../../../src/swarm/expand.ts";

const task = create(TaskSchema, {
  id: "t1",
  serviceId: "s1",
  slot: 2n,
  nodeId: "n1",
  serviceAnnotations: { name: "web", labels: { tier: "front" } },
});
const node = create(NodeDescriptionSchema, { hostname: "host-a", platform: { architecture: "x86_64", os: "linux" } });
const context = templateContext(task, node);

test("a container's spec is expanded where SwarmKit expands it", () => {
  const spec = create(ContainerSpecSchema, {
    image: "{{not expanded}}",
    hostname: "{{.Service.Name}}-{{.Task.Slot}}",
    env: ["N={{.Node.Hostname}}/{{.Node.Platform.OS}}", "{{K}}=v", "BARE"],
    mounts: [
      {
        source: "v-{{.Task.ID}}",
        target: "/{{.Node.ID}}",
        volumeOptions: {
          labels: { a: "{{.Task.Name}}" },
          driverConfig: { options: { o: "{{.Service.Labels.tier}}" } },
        },
      },
    ],
  });
  const out = expandContainerSpec(spec, context);
  assert.equal(out.hostname, "web-2");
  assert.deepEqual(out.env, ["N=host-a/linux", "{{K}}=v", "BARE"]);
  const [mount] = out.mounts;
  assert.deepEqual([mount?.source, mount?.target], ["v-t1", "/n1"]);
  assert.equal(mount?.volumeOptions?.labels.a, "web.2.t1");
  assert.equal(mount?.volumeOptions?.driverConfig?.options.o, "front");
  assert.equal(out.image, "{{not expanded}}");
  assert.equal(spec.hostname, "{{.Service.Name}}-{{.Task.Slot}}", "the task's own spec stays");
  assert.throws(() => expandContainerSpec(create(ContainerSpecSchema, { env: ["A={{.Task.Nope}}"] }), context), {
    message:
      'expanding env failed: expanding env "A={{.Task.Nope}}": template: expansion:1:7: executing "expansion" at ' +
      "<.Task.Nope>: can't evaluate field Nope in type struct { ID string; Name string; Slot string }",
  });
});

test("tasks without a slot are named by their node", () => {
  assert.equal(taskContainerName(task), "web.2.t1");
  assert.equal(taskContainerName(create(TaskSchema, { ...task, slot: 0n })), "web.n1.t1");
  assert.equal(taskContainerName(create(TaskSchema, { annotations: { name: "mine" } })), "mine");
});

test("secrets and configs become files", () => {
  const spec = create(ContainerSpecSchema, {
    env: ["WHO=world"],
    secrets: [
      {
        secretId: "a",
        secretName: "sec",
        target: { case: "file", value: { name: "sec", uid: "5", gid: "6", mode: 0o440 } },
      },
    ],
    configs: [
      {
        configId: "b",
        configName: "conf",
        target: { case: "file", value: { name: "/etc/conf", uid: "", gid: "", mode: 0o444 } },
      },
      { configId: "c", configName: "rt", target: { case: "runtime", value: {} } },
    ],
  });
  const dependencies = {
    secret: (id: string) => (id === "a" ? ({ spec: { data: Buffer.from("hush") } } as never) : undefined),
    config: (id: string) =>
      id === "b"
        ? ({
            spec: {
              data: Buffer.from(
                '{{with env "WHO"}}{{.}} {{end}}{{secret "sec"}} {{if eq .Service.Name "web"}}web{{end}}',
              ),
              templating: { name: "golang" },
            },
          } as never)
        : undefined,
  };
  const files = payloadFiles(task, spec, dependencies, context).map((file) => ({
    ...file,
    data: Buffer.from(file.data).toString(),
  }));
  assert.deepEqual(files, [
    { target: "/run/secrets/sec", data: "hush", uid: 5, gid: 6, mode: 0o440 },
    { target: "/etc/conf", data: "world hush web", uid: 0, gid: 0, mode: 0o444 },
  ]);
  const broken = {
    ...dependencies,
    config: (id: string) => ({ id, spec: { data: Buffer.from("{{.Nope}}"), templating: { name: "golang" } } }) as never,
  };
  assert.throws(() => payloadFiles(task, spec, broken, context), {
    message:
      "unable to get config from config store: failed to expand templated config b: template: expansion:1:2: " +
      `executing "expansion" at <.Nope>: can't evaluate field Nope in type *template.PayloadContext`,
  });
  const none = { secret: () => undefined, config: () => undefined };
  assert.throws(
    () => payloadFiles(task, spec, none, context),
    /unable to get secret from secret store: secret a not found/,
  );
});

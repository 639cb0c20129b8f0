import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create } from "@bufbuild/protobuf";
import {
  type LogBroker,
  LogStream,
  LogSubscriptionOptionsSchema,
  type SubscriptionMessage,
  SubscriptionMessageSchema,
} from "#proto/docker/swarmkit/logbroker_pb.js";
import { AsyncQueue, Emitter } from "../../../src/base/async.ts";
import type { Client } from "../../../src/base/grpc.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { selects, serveLogSubscriptions } from "../../../src/swarm/agent/log-publisher.ts";
import type { TaskRunner } from "../../../src/swarm/agent/task-runner.ts";
import type { Worker } from "../../../src/swarm/agent/worker.ts";
import { task } from "./support.ts";

const turn = () => new Promise((resolve) => setTimeout(resolve, 5));

/** A task of which only the logs matter. */
function runner(id: string, serviceId: string, lines: string[]): TaskRunner {
  const controller = {
    async *logs() {
      for (const line of lines) yield { stream: LogStream.STDOUT, data: Buffer.from(line) };
    },
  };
  return { task: task(id, { serviceId }), controller } as unknown as TaskRunner;
}

function serve(runners: TaskRunner[]) {
  const subscriptions = new AsyncQueue<SubscriptionMessage>();
  const published: string[] = [];
  const broker = {
    listenSubscriptions: () => subscriptions,
    publishLogs: () => ({
      async write(message: {
        subscriptionId: string;
        close?: boolean;
        messages?: { context: { taskId: string; serviceId: string; nodeId: string }; data: Uint8Array }[];
      }) {
        const lines = (message.messages ?? []).map(
          ({ context, data }) => `${context.serviceId}/${context.taskId}@${context.nodeId} ${Buffer.from(data)}`,
        );
        published.push(...lines, ...(message.close ? [`${message.subscriptionId} closed`] : []));
      },
      end: () => published.push("ended"),
      response: Promise.resolve({}),
    }),
  } as unknown as Client<typeof LogBroker>;
  const worker = { runners: () => runners, started: new Emitter<TaskRunner>() };
  const abort = new AbortController();
  const served = serveLogSubscriptions({
    broker,
    worker: worker as unknown as Worker,
    nodeId: "n1",
    log: nullLogger,
    signal: abort.signal,
  });
  const subscribe = (id: string, options: { follow?: boolean; close?: boolean } = {}) =>
    subscriptions.push(
      create(SubscriptionMessageSchema, {
        id,
        selector: { serviceIds: ["s1"] },
        options: create(LogSubscriptionOptionsSchema, { follow: options.follow ?? false }),
        close: options.close ?? false,
      }),
    );
  return { abort, published, served, subscribe, subscriptions, worker };
}

describe("service logs of this node", () => {
  it("are what its tasks of the service have, then closed", async () => {
    const { published, served, subscribe, subscriptions } = serve([
      runner("t1", "s1", ["a", "b"]),
      runner("t2", "other", ["x"]),
    ]);
    subscribe("sub");
    await turn();
    assert.deepEqual(published, ["s1/t1@n1 a", "s1/t1@n1 b", "sub closed", "ended"]);
    subscriptions.end();
    await assert.rejects(served, /ended the stream of log subscriptions/);
  });

  it("go on with new tasks while followed, until the subscription is closed", async () => {
    const { published, subscribe, subscriptions, served, worker } = serve([runner("t1", "s1", ["a"])]);
    subscribe("sub", { follow: true });
    await turn();
    worker.started.emit(runner("t2", "s1", ["b"]));
    worker.started.emit(runner("t3", "other", ["x"]));
    await turn();
    assert.deepEqual(published, ["s1/t1@n1 a", "s1/t2@n1 b"]);
    subscribe("sub", { close: true });
    await turn();
    assert.deepEqual(published.slice(2), ["sub closed", "ended"]);
    subscriptions.end();
    await assert.rejects(served);
  });

  it("are selected by service, node or task, never of mere attachments", () => {
    const t = task("t1", { serviceId: "s1" });
    const by = (selector: { serviceIds?: string[]; nodeIds?: string[]; taskIds?: string[] }) =>
      create(SubscriptionMessageSchema, { selector });
    assert.ok(selects(by({ serviceIds: ["s1"] }), t, "n1"));
    assert.ok(selects(by({ nodeIds: ["n1"] }), t, "n1"));
    assert.ok(selects(by({ taskIds: ["t1"] }), t, "n1"));
    assert.ok(!selects(by({ serviceIds: ["s2"], nodeIds: ["n2"], taskIds: ["t2"] }), t, "n1"));
    const attachment = task("a1", { spec: { runtime: { case: "attachment", value: {} } } });
    assert.ok(!selects(by({ nodeIds: ["n1"] }), attachment, "n1"));
  });
});

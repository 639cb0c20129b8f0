/**
 * A lab as a whole: up, down, what is there. `up` is idempotent: a lab that is whole is left as it is (a host or a
 * daemon that died is started again), one that is half-made is taken down and made anew.
 */
import { existsSync, readdirSync, rmdirSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { sleep, systemClock } from "../base/clock.ts";
import { errnoOf, SkeinError } from "../base/errors.ts";
import { leftoverCgroups, removeCgroup } from "./cgroup.ts";
import { type HostState, startDaemon, startHost, stopHost } from "./host.ts";
import { killAllIn } from "./kill.ts";
import { checkDisk, checkHosts, checkMachine } from "./machine.ts";
import { isAlive, isStopped, type ProcessRef } from "./process.ts";
import { type HostSpec, hostNames, type LabSpec, labSpec } from "./spec.ts";
import { type EngineKind, forgetState, type LabState, loadState, saveState } from "./state.ts";
import { createSwitch, hasNamespace, isPlugged, plugIn, plugOut, removeSwitch } from "./switch.ts";

export interface UpOptions {
  readonly name?: string;
  readonly subnet?: string;
  readonly hosts?: number;
  readonly managers?: number;
  /** Names of the hosts, in place of the two above. */
  readonly names?: readonly string[];
  /** Base URL of a registry that every engine asks before Docker Hub. */
  readonly mirror?: string;
  /** Hosts that are to run the real Docker Engine. */
  readonly dockerd?: readonly string[];
  readonly onStep?: (step: string) => void;
}

export interface Lab {
  readonly spec: LabSpec;
  readonly state: LabState;
}

/** The lab of that name, if there is one. */
function findLab(name = "lab"): Lab | undefined {
  const state = loadState(name);
  if (!state) return undefined;
  const spec = state.hosts.length
    ? labSpec({ name, subnet: state.subnet, hosts: state.hosts, mirror: state.mirror })
    : labSpec({ name });
  return { spec, state };
}

/** What a user types next. */
const hintOf = (verb: "up" | "down", name: string): string =>
  name === "lab" && verb === "up" ? "npm start" : `bin/skein lab ${verb}${name === "lab" ? "" : ` --name ${name}`}`;

/** As `findLab`, or an error that says what to do. */
export function requireLab(name = "lab"): Lab {
  const lab = findLab(name);
  if (!lab?.state.complete) {
    throw new SkeinError("notFound", `there is no lab ${JSON.stringify(name)}`, {
      hint: `bring one up: ${hintOf("up", name)}`,
    });
  }
  return lab;
}

export function hostOf(lab: Lab, name: string): { host: HostSpec; state: HostState } {
  const host = lab.spec.hosts.find((candidate) => candidate.name === name);
  const state = lab.state.running[name];
  if (!host || !state) {
    throw new SkeinError("notFound", `the lab has no host ${JSON.stringify(name)}`, {
      hint: `its hosts: ${lab.spec.hosts.map((one) => one.name).join(", ")}`,
    });
  }
  return { host, state: { ...state, daemon: state.daemon } };
}

/** A lab that is up is not made into another one: throws where something else is asked for than it has. */
function refuseOther({ spec, state }: Lab, wanted: LabSpec, { subnet, dockerd = [] }: UpOptions): void {
  const others = Object.keys(state.engines).filter((host) => state.engines[host] === "dockerd");
  const has =
    subnet !== undefined && wanted.subnet !== spec.subnet
      ? `has subnet ${spec.subnet}`
      : wanted.mirror && wanted.mirror !== spec.mirror
        ? `asks ${spec.mirror || "no mirror"}`
        : dockerd.length > 0 && dockerd.toSorted().join() !== others.toSorted().join()
          ? `runs dockerd on ${others.join(", ") || "no host"}`
          : undefined;
  if (has === undefined) return;
  throw new SkeinError("conflict", `the lab ${JSON.stringify(spec.name)} that is up ${has}`, {
    hint: `take it down first: ${hintOf("down", spec.name)}`,
  });
}

/** Brings a lab up. On failure what was made is taken down again. */
export async function up(options: UpOptions = {}): Promise<Lab> {
  checkMachine();
  const name = options.name ?? "lab";
  const existing = findLab(name);
  const dockerd = options.dockerd ?? [];
  const wanted = labSpec({
    name,
    hosts: options.names ?? hostNames(options.hosts ?? 3, options.managers ?? 1),
    ...(options.mirror ? { mirror: options.mirror } : {}),
    ...(options.subnet === undefined ? {} : { subnet: options.subnet }),
  });
  for (const host of dockerd) {
    if (!wanted.hosts.some((one) => one.name === host)) {
      throw new SkeinError("notFound", `the lab has no host ${JSON.stringify(host)} to run dockerd on`);
    }
  }
  if (existing?.state.complete) {
    if (existing.spec.hosts.map((host) => host.name).join() !== wanted.hosts.map((host) => host.name).join()) {
      throw new SkeinError("conflict", `a lab ${JSON.stringify(name)} with other hosts is up`, {
        hint: `take it down first: ${hintOf("down", name)}`,
      });
    }
    refuseOther(existing, wanted, options);
    return repair(existing, options.onStep);
  }
  if (existing || existsSync(wanted.runDir)) {
    options.onStep?.("a half-made lab was found: taking it down");
    await down(name);
  }
  return create(wanted, dockerd, options.onStep);
}

async function create(spec: LabSpec, dockerd: readonly string[], onStep?: (step: string) => void): Promise<Lab> {
  checkHosts();
  checkDisk(spec.stateDir);
  const state: LabState = {
    name: spec.name,
    subnet: spec.subnet,
    hosts: spec.hosts.map((host) => host.name),
    engines: Object.fromEntries(dockerd.map((name) => [name, "dockerd"])),
    mirror: spec.mirror,
    complete: false,
    running: {},
  };
  saveState(state);
  try {
    createSwitch(spec);
    for (const host of spec.hosts) plugIn(spec, host);
    onStep?.(`switch ${spec.bridge} (${spec.subnet}) and ${spec.hosts.length} hosts plugged in`);
    await Promise.all(
      spec.hosts.map(async (host) => {
        const namespaces = await startHost(host);
        state.running[host.name] = namespaces;
        saveState(state);
        state.running[host.name] = await startDaemon(host, namespaces, state.engines[host.name]);
      }),
    );
    state.complete = true;
    saveState(state);
    onStep?.("every engine answers");
    return { spec, state };
  } catch (error) {
    await down(spec.name, { keepLogs: true });
    throw error;
  }
}

/** Starts again what died in a lab that is otherwise whole. */
async function repair(lab: Lab, onStep?: (step: string) => void): Promise<Lab> {
  for (const host of lab.spec.hosts) {
    let state = lab.state.running[host.name];
    if (!state || !isAlive(state.init) || !hasNamespace(host)) {
      onStep?.(`host ${host.name} is gone: starting it again`);
      if (state) await stopHost({ ...state, daemon: state.daemon });
      await plugOut(host);
      rmSync(`${host.runDir}/ready`, { force: true });
      plugIn(lab.spec, host);
      state = await startHost(host);
    }
    if (!isAlive(state.daemon)) {
      onStep?.(`starting ${lab.state.engines[host.name] ?? "skeind"} on ${host.name}`);
      state = await startDaemon(host, { ...state, daemon: undefined }, lab.state.engines[host.name]);
    }
    lab.state.running[host.name] = state;
    saveState(lab.state);
  }
  return lab;
}

/** Takes a lab down, whole or half-made. Nothing of it stays. */
export async function down(name = "lab", options: { keepLogs?: boolean } = {}): Promise<boolean> {
  checkMachine();
  const lab = findLab(name);
  const spec = lab?.spec ?? labSpec({ name });
  const found = lab !== undefined || existsSync(spec.runDir) || existsSync(spec.stateDir);
  for (const state of Object.values(lab?.state.running ?? {})) await stopHost({ ...state, daemon: state.daemon });
  for (const host of spec.hosts) {
    await killAllIn(host.netnsPath);
    await plugOut(host);
  }
  await removeSwitch(spec);
  await sweepCgroups(spec.cgroup);
  rmSync(spec.stateDir, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  forgetState(name);
  if (!options.keepLogs) rmSync(spec.runDir, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  for (const dir of [spec.runDir, dirname(spec.runDir), dirname(spec.stateDir)]) removeIfEmpty(dir);
  return found;
}

async function sweepCgroups(name: string): Promise<void> {
  for (let i = 0; i < 50; i++) {
    removeCgroup(name);
    if (leftoverCgroups(name).length === 0) return;
    await sleep(systemClock, 20);
  }
}

function removeIfEmpty(dir: string): void {
  if (!existsSync(dir) || readdirSync(dir).length > 0) return;
  try {
    rmdirSync(dir);
  } catch (error) {
    // A disk of its own may be mounted there.
    if (errnoOf(error) !== "EBUSY") throw error;
  }
}

export interface HostReport {
  readonly name: string;
  readonly address: string;
  readonly engine: EngineKind;
  readonly state: "running" | "paused" | "no engine" | "gone";
  readonly cable: "plugged" | "unplugged";
  readonly socket: string;
}

function stateOf(daemon: ProcessRef | undefined): HostReport["state"] {
  if (!daemon || !isAlive(daemon)) return "no engine";
  return isStopped(daemon) ? "paused" : "running";
}

/** What `lab ls` tells. */
export function report(lab: Lab): HostReport[] {
  return lab.spec.hosts.map((host) => {
    const state = lab.state.running[host.name];
    return {
      name: host.name,
      address: host.address,
      engine: lab.state.engines[host.name] ?? "skeind",
      state: !state || !isAlive(state.init) ? "gone" : stateOf(state.daemon),
      cable: isPlugged(host) ? "plugged" : "unplugged",
      socket: host.socket,
    };
  });
}

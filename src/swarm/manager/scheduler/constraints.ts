/** Placement constraints: `node.labels.zone==east`. */
import { isIP } from "node:net";
import type { Node } from "#proto/docker/swarmkit/objects_pb.js";
import type { TaskSpec } from "#proto/docker/swarmkit/specs_pb.js";
import { NodeRole } from "#proto/docker/swarmkit/types_pb.js";
import { invalid } from "../../../base/errors.ts";

export interface Constraint {
  readonly key: string;
  readonly equal: boolean;
  readonly value: string;
}

const KEY = /^[a-z_][a-z0-9\-_.]+$/i;
const VALUE = /^[a-z0-9:\-_\s.*()?+[\]\\^$|/]+$/i;
const NODE_LABEL = "node.labels.";
const ENGINE_LABEL = "engine.labels.";

/** Parses expressions; throws `invalid` with SwarmKit's words. */
export function parseConstraints(expressions: readonly string[]): Constraint[] {
  return expressions.map((expression) => {
    const operator = ["==", "!="].find((candidate) => expression.includes(candidate));
    if (operator === undefined) throw invalid("constraint expected one operator from ==, !=");
    const at = expression.indexOf(operator);
    const key = expression.slice(0, at).trim();
    const value = expression.slice(at + 2).trim();
    if (!KEY.test(key)) throw invalid(`key '${key}' is invalid`);
    if (!VALUE.test(value)) throw invalid(`value '${value}' is invalid`);
    return { key, equal: operator === "==", value };
  });
}

/** Those of a task's spec; undefined when there is one that nobody can read. */
export function constraintsOf(spec: TaskSpec | undefined): Constraint[] | undefined {
  try {
    return parseConstraints(spec?.placement?.constraints ?? []);
  } catch {
    return undefined;
  }
}

const same = (a: string, b: string) => a.toLowerCase() === b.toLowerCase();

/** What the node has under this key; undefined = no node has such a thing. */
function attribute(node: Node, key: string): string | undefined {
  const lower = key.toLowerCase();
  const platform = node.description?.platform;
  if (lower.startsWith(NODE_LABEL)) return node.spec?.annotations?.labels[key.slice(NODE_LABEL.length)] ?? "";
  if (lower.startsWith(ENGINE_LABEL)) return node.description?.engine?.labels[key.slice(ENGINE_LABEL.length)] ?? "";
  switch (lower) {
    case "node.id":
      return node.id;
    case "node.hostname":
      return node.description?.hostname ?? "";
    case "node.role":
      return node.role === NodeRole.MANAGER ? "manager" : "worker";
    case "node.platform.os":
      return platform?.os ?? "";
    case "node.platform.arch":
      return platform?.architecture ?? "";
    default:
      return undefined;
  }
}

function matchesIp(value: string, addr: string): boolean | undefined {
  if (isIP(value) !== 0) return value === addr;
  const [network, bits] = value.split("/");
  const number = (ip: string) => ip.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
  if (isIP(network ?? "") !== 4 || isIP(addr) !== 4 || !bits?.match(/^\d{1,2}$/)) return undefined;
  const size = 2 ** (32 - Number(bits));
  return Math.floor(number(network ?? "") / size) === Math.floor(number(addr) / size);
}

/** True when the node meets all constraints. */
export function meets(node: Node, constraints: readonly Constraint[]): boolean {
  return constraints.every(({ key, equal, value }) => {
    if (same(key, "node.ip")) {
      const match = matchesIp(value, node.status?.addr ?? "");
      return match !== undefined && match === equal;
    }
    const has = attribute(node, key);
    return has !== undefined && same(has, value) === equal;
  });
}

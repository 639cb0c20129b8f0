/**
 * What keys a JSON document of the API has and of which types, to hold ours against those of the real engine. Names that
 * users choose, or the kernel, stand as "*"; entries of a list as "[]".
 */

/** From a path like ".State.Pid" to the types seen there, "list obj null" and so on, in order. */
export type Shape = Record<string, string>;

/** Objects whose keys are data. */
const dictionaries =
  /\.(Labels|ExposedPorts|PortBindings|Ports|Networks|networks|Containers|Volumes|Options|Runtimes|IndexConfigs|Tmpfs|Sysctls|Services|LogConfig\.Config|memory_stats\.stats|GraphDriver\.Data)$/;

export function shapeOf(document: unknown): Shape {
  const found = new Map<string, Set<string>>();
  const note = (path: string, type: string) => {
    const types = found.get(path) ?? new Set();
    found.set(path, types.add(type));
  };
  const walk = (path: string, value: unknown): void => {
    if (value === null || value === undefined) note(path, "null");
    else if (Array.isArray(value)) {
      note(path, "list");
      for (const each of value) walk(`${path}[]`, each);
    } else if (typeof value === "object") {
      note(path, "obj");
      for (const [key, each] of Object.entries(value)) {
        walk(`${path}.${dictionaries.test(path) ? "*" : key}`, each);
      }
    } else note(path, typeof value);
  };
  walk("", document);
  return Object.fromEntries(
    [...found].sort(([a], [b]) => (a < b ? -1 : 1)).map(([path, types]) => [path || ".", [...types].sort().join(" ")]),
  );
}

/** Go has null for what is empty, or not, as the struct happens to be filled: that is no difference. */
const empty = new Set(["null", "list", "obj"]);

function fits(a: string, b: string): boolean {
  const ours = new Set(b.split(" "));
  const all = a.split(" ");
  return (
    all.some((type) => ours.has(type)) || (all.every((type) => empty.has(type)) && [...ours].every((t) => empty.has(t)))
  );
}

/** Differences as lines: "- path" is missing in ours, "+ path" is ours only, "~ path: a, ours b" of another type. */
export function differences(theirs: Shape, ours: Shape): string[] {
  const out: string[] = [];
  // Below what is missing, or empty, nothing can be.
  const hidden = (shape: Shape, path: string): boolean => {
    for (let at = path; ; ) {
      const cut = Math.max(at.lastIndexOf("."), at.endsWith("[]") ? at.length - 2 : -1);
      if (cut <= 0) return false;
      at = at.slice(0, cut);
      const types = shape[at];
      if (types === undefined || !/list|obj/.test(types)) return true;
      if (
        !Object.keys(shape).some(
          (other) => other !== at && other.startsWith(at) && /^(\.|\[)/.test(other.slice(at.length)),
        )
      )
        return true;
    }
  };
  for (const [path, types] of Object.entries(theirs)) {
    const other = ours[path];
    if (other === undefined) {
      if (!hidden(ours, path)) out.push(`- ${path}`);
    } else if (!fits(types, other)) out.push(`~ ${path}: ${types}, ours ${other}`);
  }
  for (const path of Object.keys(ours)) if (theirs[path] === undefined && !hidden(theirs, path)) out.push(`+ ${path}`);
  return out.sort();
}

/** WWW-Authenticate, as registries use it (RFC 7235). Pure. */
export interface Challenge {
  readonly scheme: string;
  readonly parameters: Record<string, string>;
}

/** The first challenge of a header; registries send one. */
export function parseChallenge(header: string): Challenge | undefined {
  const match = /^\s*([A-Za-z]+)\s*(.*)$/s.exec(header);
  if (!match) return undefined;
  const [, scheme = "", rest = ""] = match;
  const parameters: Record<string, string> = {};
  for (const [, name = "", quoted, plain] of rest.matchAll(/([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))/g)) {
    parameters[name.toLowerCase()] = quoted?.replace(/\\(.)/g, "$1") ?? plain ?? "";
  }
  return { scheme: scheme.toLowerCase(), parameters };
}

/** Scopes of addresses and routes. */
const SCOPES = { global: 0, site: 200, link: 253, host: 254, nowhere: 255 } as const;
export type Scope = keyof typeof SCOPES;

export function scopeName(value: number): Scope {
  for (const [name, number] of Object.entries(SCOPES)) if (number === value) return name as Scope;
  return "global";
}

export function scopeNumber(scope: Scope): number {
  return SCOPES[scope];
}

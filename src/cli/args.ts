import { InvalidArgumentError } from "commander";

/** A positive whole number out of an argument. */
export function parseCount(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError("expected a positive whole number");
  return value;
}

/**
 * Regular expressions that others send us. JavaScript's engine tries all ways to match, and a short pattern can take it
 * longer than anybody lives, with everything else waiting; Go's, for which the patterns are meant, reads the text once.
 * V8 has such an engine too: what it cannot do (look-around, references back), Go's cannot either.
 */
import { setFlagsFromString } from "node:v8";

setFlagsFromString("--enable-experimental-regexp-engine");

/** Throws SyntaxError for what is no such expression. */
export const linearPattern = (source: string): RegExp => new RegExp(source, "l");

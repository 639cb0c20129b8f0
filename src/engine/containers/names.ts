/** Names of containers: the rule for chosen ones, and invented ones ("adjective_scientist"). */
import { randomInt } from "node:crypto";
import { invalid } from "../../base/errors.ts";

const VALID = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

/** Strips the leading slash of older clients and checks the rest. */
export function checkName(name: string): string {
  const plain = name.replace(/^\//, "");
  if (!VALID.test(plain)) {
    throw invalid(`Invalid container name (${name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`);
  }
  return plain;
}

const adjectives = (
  "able agile amber apt bold brave bright brisk calm candid clear clever cosy crisp daring deft eager earnest easy fair " +
  "fleet fond frank free fresh gentle glad golden grand green happy hardy honest humble jolly keen kind lively loyal lucid " +
  "mellow merry mild modest neat nimble noble patient placid plucky polite proud quick quiet rapid ready robust rosy sage " +
  "serene sharp shiny silver simple sincere sleek smart smooth snug solid steady still stout sunny sure swift tidy tender " +
  "tranquil trim trusty upbeat valiant vivid warm wise witty zesty"
).split(" ");

const surnames = (
  "abel agnesi archimedes babbage banach bell bernoulli bohr boole born bose brahe cantor carson cauchy cerf chandra curie " +
  "dalton darwin davies dijkstra dirac edison einstein engelbart erdos euclid euler faraday fermat fermi feynman fourier " +
  "franklin galileo galois gauss germain godel haber hahn hamming hawking heisenberg hertz hilbert hopper hubble huygens " +
  "jacobi joule kalman karp kepler kernighan khayyam knuth kovalevskaya lagrange lamarr lamport laplace leibniz liskov " +
  "lovelace maxwell meitner mendel meyer minsky napier nash newton noether ohm pascal pauli peano perlman planck poincare " +
  "postel ramanujan rham riemann ritchie rubin sagan shannon stallman tarjan tesla thompson turing volta wiles wirth yalow yonath"
).split(" ");

/** A name that `taken` does not know. */
export function randomName(taken: (name: string) => boolean): string {
  const pick = (words: string[]) => words[randomInt(words.length)] ?? "x";
  for (let attempt = 0; ; attempt++) {
    const name = `${pick(adjectives)}_${pick(surnames)}${attempt < 6 ? "" : randomInt(1, 10 ** Math.min(9, attempt - 5))}`;
    if (!taken(name)) return name;
  }
}

/**
 * `npm run bench [-- <name>...]`: measures beside a peer in the same run and prints one JSON object on each line,
 * `{bench, subject, metric, value, unit, peer, ratio}`; without names all benches but delta. `ratio` is the subject's value divided by the peer's:
 * absolute figures belong to a machine and are never asserted, ratios can be compared.
 *
 *     startup   from spawn to the first 200: the sidecar's bundle, a bundle of its libraries only, and a bare Node server
 *     memory    the same three, idle, and the first two after 300 HTTPS requests that they made and 50 scrapes that they served
 *     delta     deltas beside those of other tools; what follows the name are the corpora, see delta.ts
 */
import process from "node:process";
import { delta } from "./delta.ts";
import { memory } from "./memory.ts";
import { startup } from "./startup.ts";
import type { Measurement } from "./subjects.ts";

const BENCHES: Readonly<Record<string, () => AsyncIterable<Measurement>>> = { startup, memory };

const [first, ...rest] = process.argv.slice(2);
const names = first === undefined ? [] : [first, ...rest];
const unknown = names.filter((name) => !Object.hasOwn(BENCHES, name));
if (first === "delta") {
  for await (const line of delta(rest))
    process.stdout.write(`${JSON.stringify({ bench: "delta", ...line })}\n`);
} else if (unknown.length > 0) {
  const known = [...Object.keys(BENCHES), "delta"].join(", ");
  process.stderr.write(`bench: ${unknown.join(", ")} is not known; there are ${known}\n`);
  process.exitCode = 64;
} else {
  for (const [bench, run] of Object.entries(BENCHES)) {
    if (names.length > 0 && !names.includes(bench)) continue;
    for await (const measurement of run())
      process.stdout.write(`${JSON.stringify({ bench, ...measurement })}\n`);
  }
}

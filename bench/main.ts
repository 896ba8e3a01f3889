/**
 * `npm run bench [-- <name>...]`: measures beside a peer in the same run and prints one JSON object on each line,
 * `{bench, subject, metric, value, unit, peer, ratio}`; without names all benches. `ratio` is the subject's value divided by the peer's:
 * absolute figures belong to a machine and are never asserted, ratios can be compared.
 *
 *     startup   from spawn to the first 200: the sidecar's bundle, a bundle of its libraries only, and a bare Node server
 *     memory    the same three, idle, and the first two after 300 HTTPS requests that they made and 50 scrapes that they served
 *     idle      an hour of a site at rest, compressed into seconds: memory, processor time and bytes, beside its libraries
 *     apply     1 GiB installed, updated and recovered in a memory cgroup of 96 MiB, beside a copy of the files; takes some minutes
 *     swap      for how long an application is away when a release is swapped, beside a restart for no reason
 *     resume    bytes on the wire for 100 MB when the link, or the process, ends twenty times on the way
 *     delta     deltas beside those of other tools, only when it is named; what follows the name are the corpora, see delta.ts
 *     fleet     100,000 sites at one repository, idle and through a roll-out: requests and bytes for each, peaks, shares
 *     publish   a release added, of many small files and of some large ones, beside tar and zstd at the same level
 *     admission latency, throughput and memory of the webhook for pods of 4 KiB, 40 KiB and 1.5 MiB, beside a bare server,
 *               and requests that failed while its certificate was replaced
 *     trust     a delegated role of 10,000 targets verified, and one of 2,000 beside tuf-js
 *     secrets   500 agents at one Vault: requests in a day, in outages of every kind and when they are over, beside targets
 */
import process from "node:process";
import { admission } from "./admission.ts";
import { apply } from "./apply.ts";
import { delta } from "./delta.ts";
import { fleet } from "./fleet.ts";
import { idle } from "./idle.ts";
import { memory } from "./memory.ts";
import { publish } from "./publish.ts";
import { resume } from "./resume.ts";
import { secrets } from "./secrets.ts";
import { startup } from "./startup.ts";
import type { Measurement } from "./subjects.ts";
import { swap } from "./swap.ts";
import { trust } from "./trust.ts";

const BENCHES: Readonly<Record<string, () => AsyncIterable<Measurement>>> = {
  startup,
  memory,
  idle,
  apply,
  swap,
  resume,
  fleet,
  publish,
  admission,
  trust,
  secrets,
};

const names = process.argv.slice(2);
const unknown = names.filter((name) => !Object.hasOwn(BENCHES, name));
if (names[0] === "delta") {
  for await (const line of delta(names.slice(1)))
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

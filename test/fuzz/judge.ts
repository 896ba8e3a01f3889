/** What a decoder may do with a delta that nobody signed: make something of the declared size, or refuse it. Nothing else. */
import { createHash } from "node:crypto";
import { containerDecoder } from "#core/delta/container.ts";
import { codeOf } from "#core/errors.ts";
import { chanceFrom } from "../../bench/delta/generated.ts";
import { collect, inMemory, inPieces, never } from "../support/delta.ts";
import { packStreams, writeHeader, writeSegment } from "#core/delta/container-writer.ts";
import { buildDelta, mutateBytes, mutateStreams } from "./mutate.ts";
import { mutateSegments } from "./segments.ts";
import { decoders, makeSamples } from "./samples.ts";
import type { Sample } from "./samples.ts";

/** `same`: the change did not matter. `different`: a file of the right size, whose digest is not the signed one. */
export const OUTCOMES = ["same", "different", "refused"] as const;
export type Outcome = (typeof OUTCOMES)[number];

/** Milliseconds that one delta may take, on a machine that does other things too. The largest takes 20. */
export const RUN_LIMIT_MS = 20_000;

/** Old files that are put together for a delta of several segments. Bytes. */
const SMALL = 100_000;

const decoder = containerDecoder("fuzz", decoders);

export interface Fuzzer {
  /** One change of one sample, both chosen by the two numbers. @throws Error when a decoder does what it must not */
  run(seed: number, number: number): Promise<Outcome>;
}

interface Subject extends Sample {
  readonly sha256: string;
  /** What it makes. */
  readonly made: Buffer;
  /** As a publisher would send it, compressed. */
  readonly delta: Buffer;
}

/** @throws Error when a sample is not valid to begin with */
export async function openFuzzer(): Promise<Fuzzer> {
  const subjects: Subject[] = [];
  for (const sample of await makeSamples()) {
    const { old, size, streams } = sample;
    const intact = buildDelta(
      sample,
      streams.map((bytes) => ({ bytes, method: 0 })),
      { size, oldOffset: 0, oldSize: old.length },
    );
    const made = await collect(decoder.apply(inMemory(old), inPieces(intact, 4096), size, never));
    subjects.push({ ...sample, made, sha256: digestOf(made), delta: await compressed(sample) });
  }
  const small = subjects.filter(({ old }) => old.length < SMALL);
  return {
    async run(seed, number) {
      const chance = chanceFrom(
        (Math.imul(seed, 0x9e37_79b1) ^ Math.imul(number, 0x85eb_ca6b)) >>> 0,
      );
      const subject = subjects[Math.floor(chance.uniform() * subjects.length)];
      if (subject === undefined) throw new Error("there are no samples");
      const depth = chance.uniform();
      const name = `${subject.decoder.name}: seed ${seed}, run ${number}`;
      const begun = performance.now();
      let outcome: Outcome;
      if (depth < 0.2) {
        const { old, size, intact, delta } = mutateSegments(chance, small);
        outcome = await outcomeOf({ old, size, sha256: digestOf(intact) }, delta, name);
      } else if (depth < 0.3) {
        // The old file is not what it was: nobody looks before the new one has come out wrong.
        const { length } = subject.old;
        const mutated = mutateBytes(chance, subject.old);
        const old = Buffer.concat([mutated, subject.old.subarray(mutated.length)]).subarray(
          0,
          length,
        );
        outcome = await outcomeOf({ ...subject, old }, subject.delta, name);
      } else {
        const delta =
          depth < 0.8 ? mutateStreams(chance, subject) : mutateBytes(chance, subject.delta);
        outcome = await outcomeOf(subject, delta, name);
      }
      const ms = performance.now() - begun;
      if (ms > RUN_LIMIT_MS) throw new Error(`${name} took ${Math.round(ms)} ms`);
      return outcome;
    },
  };
}

interface Judged {
  readonly old: Buffer;
  /** Bytes that it should make, and their digest. */
  readonly size: number;
  readonly sha256: string;
}

function digestOf(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}

async function outcomeOf(subject: Judged, delta: Buffer, name: string): Promise<Outcome> {
  try {
    const { sha256 } = await decode(subject, delta);
    return sha256 === subject.sha256 ? "same" : "different";
  } catch (error) {
    if (codeOf(error) === "DELTA_INVALID") return "refused";
    throw new Error(name, { cause: error });
  }
}

async function decode(
  { old, size }: Pick<Judged, "old" | "size">,
  delta: Buffer,
): Promise<{ readonly sha256: string }> {
  const hash = createHash("sha256");
  let made = 0;
  for await (const piece of decoder.apply(inMemory(old), inPieces(delta, 4096), size, never)) {
    made += piece.length;
    if (made > size) throw new Error(`${made} bytes where ${size} are declared`);
    hash.update(piece);
  }
  if (made !== size) throw new Error(`${made} bytes where ${size} are declared`);
  return { sha256: hash.digest("hex") };
}

async function compressed({ decoder: codec, old, size, streams }: Sample): Promise<Buffer> {
  const contents = streams.map((bytes, index) => ({
    bytes,
    codings: index % 2 === 0 ? (["brotli"] as const) : (["huffman"] as const),
  }));
  const packed = await packStreams(contents, (work) => work());
  const range = { offset: 0, size: old.length };
  const segment = { codec: codec.name, old: range, size, streams: contents };
  const parts = await writeSegment(segment, packed, codec, inMemory(old), () => undefined, never);
  return Buffer.concat([writeHeader(old.length, size), ...parts]);
}

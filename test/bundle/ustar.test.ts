import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import type { RandomAccess } from "#core/delta/decoder.ts";
import { codeOf } from "#core/errors.ts";
import { END_OF_ARCHIVE, tarEntries, tarHeader, tarPadding } from "#core/ustar.ts";
import type { TarEntry } from "#core/ustar.ts";
import { temporaryFolder } from "../support/temporary.ts";

const never = new AbortController().signal;
const INVALID = { code: "BUNDLE_INVALID" };

type Files = readonly (readonly [name: string, content: Buffer])[];

function pack(files: Files): Buffer {
  const parts = files.flatMap(([name, content]) => [
    tarHeader({ name, size: content.length }),
    content,
    tarPadding(content.length),
  ]);
  return Buffer.concat([...parts, END_OF_ARCHIVE]);
}

function access(bytes: Buffer): RandomAccess {
  return {
    size: bytes.length,
    readInto(into, position) {
      into.set(bytes.subarray(position, position + into.length));
      return Promise.resolve();
    },
  };
}

async function entriesOf(bytes: Buffer): Promise<readonly TarEntry[]> {
  return await Array.fromAsync(tarEntries(access(bytes), never));
}

async function unpack(bytes: Buffer): Promise<Files> {
  const entries = await entriesOf(bytes);
  return entries.map(({ name, size, offset }) => [name, bytes.subarray(offset, offset + size)]);
}

const segment = fc.string({
  unit: fc.constantFrom("a", "b", "Z", "0", "9", ".", "_", "-", "+", "é", "日"),
  minLength: 1,
  maxLength: 120,
});
const names = fc.array(segment, { minLength: 1, maxLength: 5 }).map((parts) => parts.join("/"));
const files = fc.uniqueArray(fc.tuple(names, fc.uint8Array({ maxLength: 1500 })), {
  selector: ([name]) => name,
  maxLength: 8,
});

describe("an archive", () => {
  test("gives back what was put in, whatever the names and sizes", async () => {
    await fc.assert(
      fc.asyncProperty(files, async (input) => {
        const wanted = input.map(([name, bytes]) => [name, Buffer.from(bytes)] as const);
        assert.deepEqual(await unpack(pack(wanted)), wanted);
      }),
      { numRuns: 200 },
    );
  });

  test("says sizes beyond what eleven octal digits hold", async () => {
    const size = 10 * 1024 ** 3;
    const header = tarHeader({ name: "blobs/sha256/large", size });
    const archive: RandomAccess = {
      size: header.length + size + END_OF_ARCHIVE.length,
      readInto(into, position) {
        into.fill(0);
        into.set(header.subarray(position, position + into.length));
        return Promise.resolve();
      },
    };
    const [entry] = await Array.fromAsync(tarEntries(archive, never));
    assert.deepEqual(entry, { name: "blobs/sha256/large", size, offset: header.length });
  });

  test("is unpacked by the system's tar, and one that it packed is read", async () => {
    await using folder = await temporaryFolder();
    const long = `targets/${"a".repeat(120)}/${"b".repeat(90)}/é${"c".repeat(140)}.json`;
    const wanted: Files = [
      ["metadata/timestamp.json", Buffer.from("{}\n")],
      [long, Buffer.alloc(70_000, 7)],
      ["empty", Buffer.alloc(0)],
    ];
    const file = join(folder.path, "a.tar");
    await writeFile(file, pack(wanted));
    const out = join(folder.path, "out");
    await mkdir(out);
    execFileSync("tar", ["xf", file, "-C", out]);
    for (const [name, content] of wanted)
      assert.deepEqual(await readFile(join(out, name)), content);
    execFileSync("tar", ["--format=posix", "-cf", join(folder.path, "b.tar"), "-C", out, "."]);
    const again = new Map(await unpack(await readFile(join(folder.path, "b.tar"))));
    assert.equal(again.size, wanted.length);
    for (const [name, content] of wanted) assert.deepEqual(again.get(`./${name}`), content);
  });
});

describe("an archive that is not good", () => {
  const good = pack([
    ["metadata/timestamp.json", Buffer.from("{}")],
    [`targets/${"x".repeat(150)}/${"y".repeat(120)}`, Buffer.from("content")],
  ]);

  test("is refused when it ends early, wherever that is", async () => {
    for (let size = 0; size < good.length - 1023; size += 97)
      await assert.rejects(entriesOf(good.subarray(0, size)), INVALID);
  });

  test("is read or refused, and nothing else, whatever its bytes are", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(good.length - 1), fc.integer({ min: 0, max: 255 })), {
          minLength: 1,
          maxLength: 12,
        }),
        async (changes) => {
          const bytes = Buffer.from(good);
          for (const [at, byte] of changes) bytes[at] = byte;
          try {
            for (const { offset, size } of await entriesOf(bytes))
              assert.ok(offset >= 0 && offset + size <= bytes.length);
          } catch (error) {
            assert.equal(codeOf(error), "BUNDLE_INVALID");
          }
        },
      ),
      { numRuns: 2000 },
    );
  });

  test("is refused for a link in it", async () => {
    const header = Buffer.from(tarHeader({ name: "metadata/timestamp.json", size: 0 }));
    header.write("2", 156);
    // The checksum again, with the new kind.
    const sum = header.reduce((total, byte, at) => total + (at >= 148 && at < 156 ? 32 : byte), 0);
    header.write(sum.toString(8).padStart(6, "0"), 148);
    await assert.rejects(entriesOf(Buffer.concat([header, END_OF_ARCHIVE])), INVALID);
  });
});

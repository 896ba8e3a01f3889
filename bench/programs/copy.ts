/** `copy FROM TO`: writes a file once more and hashes it on the way, in pieces of 256 KiB. Without arguments it only starts. */
import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import process from "node:process";

const [from, to] = process.argv.slice(2);
if (from !== undefined && to !== undefined) {
  const hash = createHash("sha256");
  const piece = Buffer.allocUnsafeSlow(256 * 1024);
  await using source = await open(from);
  await using out = await open(to, "w");
  for (;;) {
    const { bytesRead } = await source.read(piece, 0, piece.length);
    if (bytesRead === 0) break;
    const bytes = piece.subarray(0, bytesRead);
    hash.update(bytes);
    await out.writeFile(bytes);
  }
  process.stdout.write(`${hash.digest("hex")}\n`);
}

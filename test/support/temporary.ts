import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A folder that is gone at the end of the scope: `await using folder = await temporaryFolder()`. */
export async function temporaryFolder(
  parent: string = tmpdir(),
): Promise<{ readonly path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(parent, "edgesync-test-"));
  return {
    path,
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  };
}

/** How much of the system test is done: `npm run test:system` takes a seeded sample, `npm run test:system -- --full` every case. */
import process from "node:process";

export const FULL: boolean = process.env["EDGESYNC_TEST_FULL"] === "1";

/** Whether this is the system test at all: some sentences of `npm test` are tried there more often. */
export const SYSTEM: boolean = process.env["EDGESYNC_TEST_FULL"] !== undefined;

/** Of the samples; a run with the same seed takes the same cases. */
export const SEED: string = process.env["EDGESYNC_TEST_SEED"] ?? "edgesync";

/** Failures after which the rest is not tried. */
const ENOUGH = 10;

/** Does something with every item, a few at a time. An error says which ones it was. */
export async function forEach<T>(
  items: readonly T[],
  nameOf: (item: T) => string,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const rest = items.values();
  const failed: Error[] = [];
  const worker = async (): Promise<void> => {
    for (const item of rest) {
      if (failed.length >= ENOUGH) return;
      try {
        await work(item);
      } catch (cause) {
        failed.push(new Error(nameOf(item), { cause }));
      }
    }
  };
  await Promise.all([worker(), worker(), worker()]);
  const [first] = failed;
  if (first !== undefined) throw new Error(failed.map(String).join("; "), { cause: first.cause });
}

/** How much of the system test is done: `npm run test:system` takes a seeded sample, `npm run test:system -- --full` every case. */
import process from "node:process";

export const FULL: boolean = process.env["EDGESYNC_TEST_FULL"] === "1";

/** Of the samples; a run with the same seed takes the same cases. */
export const SEED: string = process.env["EDGESYNC_TEST_SEED"] ?? "edgesync";

/** Does something with every item, a few at a time. An error says which one it was. */
export async function forEach<T>(
  items: readonly T[],
  nameOf: (item: T) => string,
  work: (item: T, index: number) => Promise<void>,
): Promise<void> {
  const rest = items.entries();
  const failed: Error[] = [];
  const worker = async (): Promise<void> => {
    for (const [index, item] of rest) {
      if (failed.length > 0) return;
      try {
        await work(item, index);
      } catch (cause) {
        failed.push(new Error(nameOf(item), { cause }));
      }
    }
  };
  await Promise.all([worker(), worker(), worker()]);
  if (failed[0] !== undefined) throw failed[0];
}

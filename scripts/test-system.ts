/**
 * `npm run test:system`: what needs root or programs of the system. A seeded sample and a short soak in twenty minutes; with `--full` every case,
 * which takes hours.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import process from "node:process";

const args = process.argv.slice(2);
const full = args.includes("--full");
const files = args.filter((arg) => arg !== "--full");
const child = spawn(
  process.execPath,
  [
    "--test",
    "--test-concurrency=1",
    "--test-reporter=spec",
    ...(files.length > 0
      ? files
      : [
          "test/system/**/*.test.ts",
          "test/update/crash.test.ts",
          "test/trust/differential.test.ts",
        ]),
  ],
  {
    stdio: "inherit",
    env: {
      ...process.env,
      EDGESYNC_TEST_FULL: full ? "1" : "0",
      NODE_COMPILE_CACHE: `${process.cwd()}/node_modules/.cache/compiled`,
    },
  },
);
const [code] = (await once(child, "exit")) as [number | null];
process.exitCode = code ?? 1;

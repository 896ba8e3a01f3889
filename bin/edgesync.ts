#!/usr/bin/env node
/** The one command. It only dispatches, and loads nothing of the programs that are not asked for. */
import process from "node:process";

const [command, ...rest] = process.argv.slice(2);
if (command === "agent") {
  const { main } = await import("../sidecar/main.ts");
  process.exitCode = await main(rest);
} else if (command === "status" || command === "update") {
  const { control } = await import("../sidecar/main.ts");
  process.exitCode = await control([command, ...rest]);
} else if (command === "webhook") {
  const { main } = await import("../webhook/main.ts");
  process.exitCode = await main(rest);
} else if (command === "inject" || command === "explain") {
  const { offline } = await import("../webhook/main.ts");
  process.exitCode = await offline(command, rest);
} else if (command === "tuf-client") {
  // For the public conformance suite, and so in no help.
  const { tufClient } = await import("../sidecar/main.ts");
  process.exitCode = await tufClient(rest);
} else {
  const { main } = await import("../publisher/main.ts");
  process.exitCode = await main(process.argv.slice(2));
}

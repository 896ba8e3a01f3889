/** Commands for a repository as a whole. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ERRORS, EdgeSyncError } from "#core/errors.ts";
import { integer } from "#core/values.ts";
import type { Command } from "../command.ts";
import { readIfExists } from "../files.ts";
import { refusePrivateKeys } from "../private-keys.ts";
import { serve } from "../serve.ts";
import { verifyRepository } from "../verify.ts";
import { REPOSITORY_OPTION, countOf, placeOf, unfit, usage } from "./shared.ts";

const serveCommand: Command = {
  name: "serve",
  summary:
    "Serves a repository for trying out; any static web server or object store does in earnest.",
  example: "edgesync serve ./repository --port 8443 --tls-cert server.crt --tls-key server.key",
  positionals: ["[<repository>]"],
  options: {
    ...REPOSITORY_OPTION,
    host: "address to listen on; 127.0.0.1 when not given",
    port: "port to listen on, 0 for any; 8080 when not given",
    "tls-cert": "PEM certificate chain; with --tls-key, serves HTTPS",
    "tls-key": "PEM private key, outside the repository",
  },
  async run(args, shell, signal) {
    const root = placeOf(args);
    await refusePrivateKeys(root, signal).catch((error: unknown) => {
      throw notAFolder(error, root);
    });
    const number = integer(0, 65_535);
    const port = number.parse(args.optional("port") ?? "8080");
    if (port === undefined) throw unfit("port", args.optional("port"), number.allowed);
    const [cert, key] = [args.optional("tls-cert"), args.optional("tls-key")];
    if ((cert === undefined) !== (key === undefined))
      throw usage("--tls-cert and --tls-key are given together or not at all");
    const tls =
      cert === undefined || key === undefined
        ? undefined
        : { cert: await readOption("tls-cert", cert), key: await readOption("tls-key", key) };
    await using serving = await serve({
      root,
      host: args.optional("host") ?? "127.0.0.1",
      port,
      tls,
    });
    shell.announce({
      lines: [`serving ${root} at ${serving.url}`],
      json: { repository: root, url: serving.url },
    });
    if (!signal.aborted)
      await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    return undefined;
  },
};

function notAFolder(error: unknown, path: string): unknown {
  if (error instanceof EdgeSyncError || !(error instanceof Error)) return error;
  return new EdgeSyncError("REPOSITORY_INVALID", `${path} cannot be read as a folder`, {
    cause: error,
  });
}

async function readOption(option: string, path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new EdgeSyncError("CONFIG_INVALID", `--${option}: ${path} cannot be read`, { cause });
  }
}

async function readExisting(path: string): Promise<Buffer> {
  const bytes = await readIfExists(path);
  if (bytes === undefined) throw new EdgeSyncError("REPOSITORY_INVALID", `there is no ${path}`);
  return bytes;
}

const verify: Command = {
  name: "verify",
  summary: "Walks a repository as a client would, and checks every channel, manifest and blob.",
  example: "edgesync verify ./repository --root ./root.json",
  positionals: ["[<repository>]"],
  options: {
    ...REPOSITORY_OPTION,
    root: "trust root that sites have; the repository's first one when not given",
  },
  async run(args, shell, signal) {
    const path = placeOf(args);
    const given = args.optional("root");
    const rootFile = given ?? join(path, "metadata", "1.root.json");
    // One that is given may come out of a pipe.
    const reading = given === undefined ? readExisting(rootFile) : readFile(rootFile);
    const root = await reading.catch((cause: unknown) => {
      throw new EdgeSyncError("REPOSITORY_INVALID", `the trust root ${rootFile} cannot be read`, {
        cause,
      });
    });
    const { problems, expires, ...counts } = await verifyRepository(
      path,
      root,
      shell.now(),
      signal,
    );
    const [first] = problems;
    const until = expires === undefined ? null : new Date(expires).toISOString();
    const summary = `${countOf(counts.channels, "channel")}, ${countOf(counts.releases, "release")}, ${countOf(counts.blobs, "blob")} (${countOf(counts.bytes, "byte")})`;
    return {
      lines: [
        ...problems.map(({ code, message }) => `${code}: ${message}`),
        first === undefined
          ? `good: ${summary}; the first signature expires at ${until}`
          : `${countOf(problems.length, "problem")} in ${summary}`,
      ],
      json: { good: first === undefined, ...counts, expires: until, problems },
      ...(first !== undefined && { exit: ERRORS[first.code].exit }),
    };
  },
};

export const repositoryCommands: readonly Command[] = [serveCommand, verify];

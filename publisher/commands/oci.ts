/** Bringing a repository into an OCI registry. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseOci } from "#core/addresses.ts";
import type { OciAddress } from "#core/addresses.ts";
import { loginIn } from "#core/docker-config.ts";
import { EdgeSyncError } from "#core/errors.ts";
import type { Arguments, Command, Result, Shell } from "../command.ts";
import { readIfExists } from "../files.ts";
import { pushRepository } from "../oci.ts";
import { openRegistry } from "../registry.ts";
import type { Credential } from "../registry.ts";
import { REPOSITORY_OPTION, WAIT, openLocked, usage } from "./shared.ts";

export const REGISTRY_OPTIONS = {
  "docker-config":
    "file with the logins of docker; else EDGESYNC_REGISTRY_USERNAME and EDGESYNC_REGISTRY_PASSWORD, EDGESYNC_REGISTRY_TOKEN, or docker's own",
  ca: "PEM file of the authorities that the registry's certificate must chain to",
};

/** @throws EdgeSyncError USAGE and as `pushRepository` */
export async function pushTo(
  destination: string,
  args: Arguments,
  shell: Shell,
  signal: AbortSignal,
): Promise<Result> {
  const address = parseOci(destination);
  if (address === undefined)
    throw usage(`${destination} is no address in a registry; expected oci://<registry>/<name>`);
  const caFile = args.optional("ca");
  const ca = caFile === undefined ? undefined : await readOption("ca", caFile);
  const credential = await findCredential(address, args, shell);
  const { environment } = shell;
  await using repository = await openLocked(args, shell, signal);
  using registry = await openRegistry(address, { credential, ca, environment });
  const { pushed, pushedBytes, same } = await pushRepository(
    repository,
    address,
    registry,
    shell.progress,
    signal,
  );
  return {
    lines: [`pushed ${pushed} blobs and tags, ${pushedBytes} bytes; ${same} were there`],
    json: { destination, pushed, pushedBytes, same },
  };
}

async function findCredential(
  { registry, name }: OciAddress,
  args: Arguments,
  { environment }: Shell,
): Promise<Credential | undefined> {
  const place = `${registry}/${name}`;
  const given = args.optional("docker-config");
  if (given !== undefined) {
    const text = await readOption("docker-config", given);
    return login(loginIn(text.toString(), place, given));
  }
  const token = environment["EDGESYNC_REGISTRY_TOKEN"];
  if (token) return { kind: "bearer", token };
  const username = environment["EDGESYNC_REGISTRY_USERNAME"];
  const password = environment["EDGESYNC_REGISTRY_PASSWORD"];
  if (username && password !== undefined) return { kind: "basic", username, password };
  const home = environment["HOME"];
  const folder = environment["DOCKER_CONFIG"] || (home && join(home, ".docker"));
  if (!folder) return undefined;
  const file = join(folder, "config.json");
  const text = await readIfExists(file);
  return text === undefined ? undefined : login(loginIn(text.toString(), place, file));
}

function login(found: ReturnType<typeof loginIn>): Credential | undefined {
  return found === undefined ? undefined : { kind: "basic", ...found };
}

async function readOption(option: string, path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new EdgeSyncError("CONFIG_INVALID", `--${option}: ${path} cannot be read`, { cause });
  }
}

const push: Command = {
  name: "push",
  summary: "Brings what is published into an OCI registry, from which sites read it as oci://….",
  notes:
    "Only what is not there yet is pushed: blobs first, then the artifacts that keep them, then metadata, and the timestamp last; a push that was interrupted goes on where it ended. `edgesync sync` with such an address is the same.",
  example: "edgesync push oci://registry.example/team/payloads --repository ./repository",
  positionals: ["<address>"],
  options: { ...REPOSITORY_OPTION, ...WAIT, ...REGISTRY_OPTIONS },
  async run(args, shell, signal) {
    const [destination = ""] = args.positionals;
    return await pushTo(destination, args, shell, signal);
  },
};

export const ociCommands: readonly Command[] = [push];

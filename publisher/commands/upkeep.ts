/** Commands that keep a repository in order: by a timer, or when somebody looks after it. */
import { isOci } from "#core/addresses.ts";
import { ERRORS } from "#core/errors.ts";
import { formatDuration, oneOf } from "#core/values.ts";
import type { Arguments, Command, Result } from "../command.ts";
import { findGarbage, removeGarbage } from "../gc.ts";
import { DAY_MS } from "../metadata.ts";
import { STEPS } from "../reach.ts";
import { refreshRepository } from "../refresh.ts";
import type { Expiry, Refreshed } from "../refresh.ts";
import { openRepository } from "../repository.ts";
import { orderedFiles, syncRepository } from "../sync.ts";
import { REGISTRY_OPTIONS, pushTo } from "./oci.ts";
import {
  REPOSITORY_OPTION,
  WAIT,
  WRITES,
  countOf,
  durationOf,
  openKeys,
  openLocked,
  openToRead,
  placeOf,
  usage,
  waitOf,
} from "./shared.ts";

/** A site on a link of 64 kbit/s fetches 4 GB in it. */
const GRACE = "7d";

const refresh: Command = {
  name: "refresh",
  summary:
    "Signs timestamp and snapshot anew, and whatever else is in the last third of its life and has its keys here.",
  notes: `For a daily timer. It says what it signed and what expires next; the exit status is ${ERRORS.METADATA_EXPIRED.exit} when something that it could not sign is about to expire: in the last third of its life, and at most 30 days before.`,
  example: "edgesync refresh ./repository --keys ./keys --wait 10m",
  positionals: ["[<repository>]"],
  options: {
    ...WRITES,
    within: "how long before an expiry to complain, such as 14d, instead",
  },
  async run(args, shell, signal) {
    const path = placeOf(args);
    const within = args.optional("within");
    const withinMs = within === undefined ? undefined : durationOf("within", within);
    const keyring = await openKeys(args, path, shell);
    await using repository = await openRepository(path, shell.now(), waitOf(args, signal));
    const now = shell.now();
    return resultOf(await refreshRepository(repository, keyring, now, withinMs), now);
  },
};

function resultOf({ signed, expiries, waiting }: Refreshed, now: number): Result {
  const json = (list: readonly Expiry[]): readonly object[] =>
    list.map(({ role, expires }) => ({ role, expires: new Date(expires).toISOString() }));
  const [next] = expiries;
  return {
    lines: [
      `signed anew: ${signed.join(", ")}`,
      ...(next === undefined ? [] : [`next expiry: ${textOf(next, now)}`]),
      ...waiting.map(
        (expiry) => `ABOUT TO EXPIRE, and its keys are not here: ${textOf(expiry, now)}`,
      ),
    ],
    json: {
      signed,
      next: json(expiries)[0] ?? null,
      expiries: json(expiries),
      waiting: json(waiting),
    },
    ...(waiting.length > 0 && { exit: ERRORS.METADATA_EXPIRED.exit }),
  };
}

function textOf({ role, expires }: Expiry, now: number): string {
  const left = expires - now;
  const while_ = left > 2 * DAY_MS ? `${Math.floor(left / DAY_MS)} days` : formatHours(left);
  return `${role}, ${left > 0 ? `in ${while_}` : "EXPIRED"} (${new Date(expires).toISOString()})`;
}

function formatHours(ms: number): string {
  return formatDuration(Math.max(0, Math.floor(ms / 60_000) * 60_000));
}

const gc: Command = {
  name: "gc",
  summary: "Removes files that nothing published leads to any more.",
  notes:
    "What is listed stays, with every root. What a snapshot led to stays for a while after it was replaced (--grace), because sites may be on their way through it.",
  example: "edgesync gc ./repository --dry-run",
  examples: ["edgesync gc ./repository --grace 30d"],
  positionals: ["[<repository>]"],
  options: { ...REPOSITORY_OPTION, ...WAIT, grace: `how long; ${GRACE} when not given` },
  flags: { "dry-run": "say what would be removed, and remove nothing" },
  async run(args, shell, signal) {
    const path = placeOf(args);
    const graceMs = durationOf("grace", args.optional("grace") ?? GRACE);
    const dryRun = args.flag("dry-run");
    await using repository = await openRepository(path, shell.now(), waitOf(args, signal));
    const { files, bytes, kept, snapshots, others } = await findGarbage(
      repository,
      shell.now(),
      graceMs,
      signal,
    );
    if (!dryRun) await removeGarbage(path, files, signal);
    return {
      lines: [
        ...files.map((file) => `${dryRun ? "would remove" : "removed"} ${file.path}`),
        `${dryRun ? "would remove" : "removed"} ${countOf(files.length, "file")}, ${countOf(bytes, "byte")}; kept ${countOf(kept.files, "file")}, ${countOf(kept.bytes, "byte")}`,
        ...(snapshots.length === 0
          ? []
          : [`kept for readers for now: ${countOf(snapshots.length, "replaced snapshot")}`]),
        ...(others.length === 0
          ? []
          : [`not of a repository, left alone: ${others.slice(0, 10).join(", ")}`]),
      ],
      json: { dryRun, removed: files, bytes, kept, snapshots, others },
    };
  },
};

const sync: Command = {
  name: "sync",
  summary: "Copies what is published to another folder, in the order that keeps its readers safe.",
  notes:
    "Only what is not there yet is copied, and never a key or an unfinished file. Blobs come first, then targets, then metadata, and the timestamp last, so that a reader finds a good repository at every moment. With --list nothing is copied: the files are printed in that order, for tools that copy themselves; those that copy several files at a time are run once for each --step.",
  example: "edgesync sync /srv/www/edgesync --repository ./repository",
  examples: [
    "edgesync sync /mnt/bucket --delete --grace 7d",
    "edgesync sync --list --step blobs | rclone copy --files-from-raw - ./repository remote:bucket",
  ],
  positionals: ["[<folder>]"],
  options: {
    ...REPOSITORY_OPTION,
    ...WAIT,
    ...REGISTRY_OPTIONS,
    step: `with --list, only the files of one step: ${STEPS.join(", ")}`,
    grace: `with --delete, how long a file must have been missing; ${GRACE} when not given`,
  },
  flags: {
    list: "print the files in the safe order, and copy nothing",
    delete: "remove what is not in the repository any more, last and after a while",
  },
  async run(args, shell, signal) {
    const [folder] = args.positionals;
    if (args.flag("list")) {
      if (folder !== undefined) throw usage("sync --list copies nothing; expected no folder");
      return await list(args, signal);
    }
    if (folder === undefined) throw usage("sync needs the folder to copy to, or --list");
    if (args.optional("step") !== undefined) throw usage("--step is for --list");
    if (isOci(folder)) {
      if (args.flag("delete")) throw usage("--delete is for a folder; a registry collects itself");
      return await pushTo(folder, args, shell, signal);
    }
    if (args.optional("grace") !== undefined && !args.flag("delete"))
      throw usage("--grace is for --delete");
    const graceMs = durationOf("grace", args.optional("grace") ?? GRACE);
    const deletion = args.flag("delete") ? { now: shell.now(), graceMs } : undefined;
    await using repository = await openLocked(args, shell, signal);
    const synced = await syncRepository(repository, folder, deletion, signal);
    const { copied, copiedBytes, same, deleted, doomed } = synced;
    return {
      lines: [
        `copied ${countOf(copied, "file")}, ${countOf(copiedBytes, "byte")}; ${same} were there`,
        ...(deletion === undefined
          ? []
          : [
              `deleted ${countOf(deleted.length, "file")}${doomed === 0 ? "" : `; ${doomed} more when they have been missing for long enough`}`,
            ]),
      ],
      json: { folder, copied, copiedBytes, same, deleted, doomed },
    };
  },
};

async function list(args: Arguments, signal: AbortSignal): Promise<Result> {
  const known = oneOf(...STEPS);
  const input = args.optional("step");
  const step = input === undefined ? undefined : known.parse(input);
  if (input !== undefined && step === undefined)
    throw usage(`--step must be ${known.allowed}, not ${JSON.stringify(input)}`);
  const repository = await openToRead(args);
  const all = await orderedFiles(repository, undefined, signal);
  const files = all.filter((file) => step === undefined || file.step === step);
  return { lines: files.map(({ path }) => path), json: { files } };
}

export const upkeepCommands: readonly Command[] = [refresh, gc, sync];

/** Commands for channels. */
import type { ChannelDocument, Releases } from "#core/channel-document.ts";
import { isSalt, isTime, ROLLOUT_DURATION_LIMIT } from "#core/channel-document.ts";
import { channelRef } from "#core/values.ts";
import type { ChannelRef } from "#core/values.ts";
import {
  downgrade,
  pause,
  pointTo,
  promoted,
  releasesOf,
  reschedule,
  resume,
  rollOut,
} from "../channel-change.ts";
import type { Before, Minimum, Schedule } from "../channel-change.ts";
import { changeChannel, lookAt } from "../channel.ts";
import type { Look } from "../channel.ts";
import { findChannel, listChannels, refuseUnknown } from "../catalog.ts";
import type { ListedChannel } from "../catalog.ts";
import type { Arguments, Command, Result, Shell } from "../command.ts";
import type { View } from "../repository.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { describe, jsonOf, rolloutState, textOf } from "./channel-text.ts";
import {
  REPOSITORY_OPTION,
  WRITES,
  appOf,
  milliseconds,
  openKeys,
  openLocked,
  openToRead,
  pathOf,
  platformOf,
  usage,
  versionOf,
} from "./shared.ts";

const PLATFORM = {
  platform: "only this platform; the others stay where they are",
};
const MINIMUM = {
  minimum: "version that sites with an older one install first; none for no such version",
};
const URGENT = {
  urgent:
    "sites shall not wait for their windows, budgets and spacing; holds, rates and the application still count. The next change takes it back",
};
const SCHEDULE = {
  start:
    "when it begins: now, a time such as 2026-03-01T06:00:00Z, or a while such as +2h; now when not given",
  duration: "how long the share grows, such as 7d or 12h; 0s, all at once, when not given",
  percent: "share of the sites at its end, such as 5 or 0.5; 100 when not given",
  salt: "gives each site its number; the sequence number when not given",
};
const SITES = "Sites follow when they next look.";

function reference(input: string | undefined): ChannelRef {
  const value = channelRef.parse(input ?? "");
  if (value === undefined)
    throw usage(`${JSON.stringify(input ?? "")} is not a channel; expected ${channelRef.allowed}`);
  return value;
}

function minimumOf(args: Arguments): Minimum {
  const input = args.optional("minimum");
  if (input === undefined) return {};
  return { minimum: input === "none" ? null : versionOf(input, "--minimum") };
}

function scheduleOf(args: Arguments, now: number): Schedule {
  const [start, duration, percent, salt] = ["start", "duration", "percent", "salt"].map((name) =>
    args.optional(name),
  );
  return {
    ...(start !== undefined && { start: startOf(start, now) }),
    ...(duration !== undefined && { duration: secondsOf(duration) }),
    ...(percent !== undefined && { percent: percentOf(percent) }),
    ...(salt !== undefined && { salt: saltOf(salt) }),
  };
}

function startOf(input: string, now: number): number {
  if (input === "now") return now;
  const later = input.startsWith("+") ? milliseconds(input.slice(1)) : undefined;
  if (later !== undefined) return now + later;
  if (!isTime(input))
    throw usage(
      `--start must be now, a time in UTC such as 2026-03-01T06:00:00Z, or a while such as +2h, not ${JSON.stringify(input)}`,
    );
  return Date.parse(input);
}

function secondsOf(input: string): number {
  const ms = milliseconds(input);
  if (ms === undefined || ms % 1000 !== 0 || ms > ROLLOUT_DURATION_LIMIT * 1000)
    throw usage(
      `--duration must be whole seconds up to ten years, such as 7d, 12h or 90m, not ${JSON.stringify(input)}`,
    );
  return ms / 1000;
}

function percentOf(input: string): number {
  const value = /^\d{1,3}(\.\d{1,6})?$/.test(input) ? Number(input) : Number.NaN;
  if (!(value >= 0 && value <= 100))
    throw usage(`--percent must be a number from 0 to 100, not ${JSON.stringify(input)}`);
  return value;
}

function saltOf(input: string): string {
  if (!isSalt(input))
    throw usage("--salt must be 1 to 64 printable ASCII characters without spaces");
  return input;
}

function isStaged(schedule: Schedule): boolean {
  return Object.keys(schedule).length > 0;
}

/** Makes a change, and says what came of it. */
async function change(
  args: Arguments,
  shell: Shell,
  signal: AbortSignal,
  channel: ChannelRef,
  decide: (before: Look, repository: View) => Promise<(before: Look) => ChannelDocument>,
): Promise<Result> {
  const keyring = await openKeys(args, pathOf(args), shell);
  await using repository = await openLocked(args, shell, signal);
  const before = await lookAt(repository, channel);
  const decided = await decide(before, repository);
  const urgent = args.flag("urgent");
  const wanted = (before: Look): ChannelDocument =>
    urgent ? { ...decided(before), urgency: "urgent" } : decided(before);
  const document = await changeChannel(repository, keyring, channel, wanted, shell.now());
  return {
    lines: describe(document, shell.now(), before.document),
    json: jsonOf(document, shell.now()),
  };
}

const set: Command = {
  name: "channel set",
  summary: `Points a channel at a version, for every platform that has it and every site at once. ${SITES}`,
  notes:
    "A platform that lacks the version stays where it is. An older version is refused: going back is said with channel downgrade. A roll-out that is under way ends.",
  example: "edgesync channel set web/stable 1.4.0 --repository ./repository --keys ./keys",
  examples: [
    "edgesync channel set web/stable 1.4.0 --platform linux-arm64 --minimum 1.2.0",
    "edgesync channel set web/stable 1.4.1 --urgent",
  ],
  positionals: ["<app>/<channel>", "<version>"],
  options: { ...WRITES, ...MINIMUM },
  flags: URGENT,
  lists: PLATFORM,
  async run(args, shell, signal) {
    const [name, input = ""] = args.positionals;
    const channel = reference(name);
    const target = {
      version: versionOf(input),
      platforms: args.all("platform").map((input) => platformOf(input)),
    };
    const minimum = minimumOf(args);
    return await change(args, shell, signal, channel, () =>
      Promise.resolve((before) => pointTo(before, releasesOf(before, target), minimum)),
    );
  },
};

const promote: Command = {
  name: "channel promote",
  summary: "Points a channel at what another channel of the same app points to.",
  notes:
    "With --start, --duration or --percent it is rolled out. A channel that is paused is not promoted.",
  example: "edgesync channel promote web/edge web/stable",
  examples: ["edgesync channel promote web/edge web/stable --duration 7d"],
  positionals: ["<app>/<from>", "<app>/<to>"],
  options: { ...WRITES, ...MINIMUM, ...SCHEDULE },
  flags: URGENT,
  async run(args, shell, signal) {
    const [from, to] = args.positionals;
    const [source, channel] = [reference(from), reference(to)];
    if (source.app === channel.app && source.channel === channel.channel)
      throw usage(`${from} cannot be promoted to itself; expected two channels`);
    const [minimum, schedule] = [minimumOf(args), scheduleOf(args, shell.now())];
    return await change(args, shell, signal, channel, async (_, repository) => {
      const other = await lookAt(repository, source);
      return (before) => forward(before, promoted(other, before), minimum, schedule, shell.now());
    });
  },
};

function forward(
  before: Before,
  wanted: Releases,
  minimum: Minimum,
  schedule: Schedule,
  now: number,
): ChannelDocument {
  if (!isStaged(schedule)) return pointTo(before, wanted, minimum);
  return rollOut(before, wanted, minimum, schedule, now);
}

const rollout: Command = {
  name: "channel rollout",
  summary:
    "Points a channel at a version for a share of its sites that grows, or changes the schedule of a roll-out that is under way.",
  notes:
    "Each site has a number that nobody chose; it installs when the share has reached it. Without a version, or with the one that is being rolled out, the schedule changes and every site keeps its number. Sites that have nothing install what was there before until their turn comes.",
  example: "edgesync channel rollout web/stable 1.4.0 --duration 7d",
  examples: [
    "edgesync channel rollout web/stable 1.4.0 --start 2026-03-01T06:00:00Z --duration 48h --percent 10",
    "edgesync channel rollout web/stable --percent 100",
  ],
  positionals: ["<app>/<channel>", "[<version>]"],
  options: { ...WRITES, ...MINIMUM, ...SCHEDULE },
  flags: URGENT,
  lists: PLATFORM,
  async run(args, shell, signal) {
    const [name, input] = args.positionals;
    const channel = reference(name);
    const version = input === undefined ? undefined : versionOf(input);
    const platforms = args.all("platform").map((input) => platformOf(input));
    const [minimum, schedule] = [minimumOf(args), scheduleOf(args, shell.now())];
    return await change(args, shell, signal, channel, () =>
      Promise.resolve((before) => {
        const wanted =
          version === undefined ? undefined : releasesOf(before, { version, platforms });
        if (wanted !== undefined && !isUnderWay(before, wanted))
          return rollOut(before, wanted, minimum, schedule, shell.now());
        if (!isStaged(schedule))
          throw usage("a schedule changes with --start, --duration or --percent; given was none");
        return reschedule(before, minimum, schedule);
      }),
    );
  },
};

function isUnderWay({ document }: Before, wanted: Releases): boolean {
  return (
    document?.rollout !== undefined &&
    wanted.every(({ platform, version }) =>
      document.releases.some((item) => item.platform === platform && item.version === version),
    )
  );
}

const pauseCommand: Command = {
  name: "channel pause",
  summary:
    "Stops a roll-out: no site begins, and who has begun but not yet swapped keeps what it has.",
  example: "edgesync channel pause web/stable",
  examples: ["edgesync channel pause web/stable --from 1.3.0"],
  positionals: ["<app>/<channel>"],
  options: {
    ...WRITES,
    from: "version that sites with nothing install meanwhile; for a channel that was set without a roll-out",
  },
  async run(args, shell, signal) {
    const channel = reference(args.positionals[0]);
    const input = args.optional("from");
    const version = input === undefined ? undefined : versionOf(input, "--from");
    return await change(args, shell, signal, channel, () =>
      Promise.resolve((before) => {
        const from =
          version === undefined ? undefined : releasesOf(before, { version, platforms: [] });
        return pause(before, from, shell.now());
      }),
    );
  },
};

const resumeCommand: Command = {
  name: "channel resume",
  summary: "Lets a paused roll-out go on from where it was.",
  example: "edgesync channel resume web/stable",
  positionals: ["<app>/<channel>"],
  options: WRITES,
  async run(args, shell, signal) {
    return await change(args, shell, signal, reference(args.positionals[0]), () =>
      Promise.resolve((before) => resume(before, before.pausedAt, shell.now())),
    );
  },
};

const downgradeCommand: Command = {
  name: "channel downgrade",
  summary: `Takes every site of a channel back to an older version, also those that have the newer one. ${SITES}`,
  example: "edgesync channel downgrade web/stable 1.3.0",
  positionals: ["<app>/<channel>", "<version>"],
  options: WRITES,
  flags: URGENT,
  lists: PLATFORM,
  async run(args, shell, signal) {
    const [name, input = ""] = args.positionals;
    const target = {
      version: versionOf(input),
      platforms: args.all("platform").map((input) => platformOf(input)),
    };
    return await change(args, shell, signal, reference(name), () =>
      Promise.resolve((before) => downgrade(before, releasesOf(before, target))),
    );
  },
};

const list: Command = {
  name: "channel list",
  summary: "Lists the channels, and what each points to.",
  example: "edgesync channel list web",
  positionals: ["[<app>]"],
  options: REPOSITORY_OPTION,
  async run(args, shell) {
    const [name] = args.positionals;
    const app = name === undefined ? undefined : appOf(name);
    const repository = await openToRead(args);
    if (app !== undefined) refuseUnknown(repository, app);
    const channels = await listChannels(repository, app);
    const rows = channels.map(({ reference: channel, document }) => ({
      name: channelRef.format(channel),
      text: [
        textOf(document.releases),
        ...(document.rollout === undefined ? [] : [rolloutState(document, shell.now())]),
      ].join("; "),
    }));
    const width = Math.max(0, ...rows.map(({ name }) => name.length));
    return {
      lines:
        rows.length === 0
          ? ["no channels"]
          : rows.map(({ name, text }) => `${name.padEnd(width)}  ${text}`),
      json: { channels: channels.map(({ document }) => jsonOf(document, shell.now())) },
    };
  },
};

const show: Command = {
  name: "channel show",
  summary: "Shows what a channel says: versions, roll-out, minimum.",
  example: "edgesync channel show web/stable",
  positionals: ["<app>/<channel>"],
  options: REPOSITORY_OPTION,
  async run(args, shell) {
    const channel = reference(args.positionals[0]);
    const repository = await openToRead(args);
    const found: ListedChannel | undefined = await findChannel(repository, channel);
    if (found === undefined) {
      const known = (await listChannels(repository)).map((item) =>
        channelRef.format(item.reference),
      );
      throw new EdgeSyncError(
        "RELEASE_NOT_FOUND",
        `the repository has no channel ${channelRef.format(channel)}; expected ${known.length === 0 ? "one that `edgesync channel set` has made" : `one of ${known.join(", ")}`}`,
      );
    }
    return {
      lines: describe(found.document, shell.now()),
      json: jsonOf(found.document, shell.now()),
    };
  },
};

export const channelCommands: readonly Command[] = [
  set,
  promote,
  rollout,
  pauseCommand,
  resumeCommand,
  downgradeCommand,
  list,
  show,
];

/** What a channel says, in words and as JSON. */
import type { ChannelDocument, Releases } from "#core/channel-document.ts";
import { shareAt } from "#core/rollout.ts";
import { channelRef } from "#core/values.ts";
import { isComplete } from "../channel-change.ts";
import type { Result } from "../command.ts";

/** What a document says, for people. @param before what it said, to tell what stays */
export function describe(
  document: ChannelDocument,
  now: number,
  before?: ChannelDocument,
): readonly string[] {
  const name = channelRef.format(document);
  const { releases, rollout, minimum } = document;
  const lines = [...Map.groupBy(releases, (item) => item.version)].map(
    ([version, items]) =>
      `${name} points to ${version} (sequence ${document.sequence}) for ${items.map((item) => item.platform).join(", ")}`,
  );
  if (rollout !== undefined) {
    const { start, duration, percent, paused, from } = rollout;
    const share = Number((shareAt(rollout, now) * 100).toFixed(2));
    const end = new Date(Date.parse(start) + duration * 1000).toISOString().replace(".000Z", "Z");
    const schedule = duration === 0 ? `from ${start}` : `from ${start} to ${end}`;
    lines.push(
      `  roll-out ${paused ? "PAUSED" : isComplete(rollout, now) ? "complete" : "under way"}: ${percent} % of the sites ${schedule}, now ${share} %`,
      `  before it: ${textOf(from)}`,
    );
  }
  if (minimum !== undefined) lines.push(`  minimum: ${minimum}, which older sites install first`);
  if (document.urgency === "urgent")
    lines.push("  urgent: sites wait for no window, no budget and no spacing");
  if (document.downgrade === true) lines.push("  sites that have a newer release go back");
  for (const { platform, version } of before?.releases ?? [])
    if (
      releases.some((item) => item.platform === platform && item.version === version) &&
      releases.some((item) => item.version !== version)
    )
      lines.push(`  ${platform} stays at ${version}`);
  return lines;
}

export function textOf(releases: Releases): string {
  if (releases.length === 0) return "nothing";
  return releases.map(({ platform, version }) => `${version} for ${platform}`).join(", ");
}

/** The document as it is signed, and with a roll-out the share of the sites whose turn has come. */
export function jsonOf(document: ChannelDocument, now: number): Result["json"] {
  const { rollout } = document;
  if (rollout === undefined) return { ...document };
  return { ...document, share: shareAt(rollout, now), complete: isComplete(rollout, now) };
}

/** In a few words. */
export function rolloutState({ rollout: schedule }: ChannelDocument, now: number): string {
  if (schedule === undefined) return "";
  if (schedule.paused) return "paused";
  if (isComplete(schedule, now)) return "rolled out";
  return `rolling out, ${Number((shareAt(schedule, now) * 100).toFixed(2))} %`;
}

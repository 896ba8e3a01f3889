/** Whether pages of a file system in memory can get to a disk, from what Linux says of itself in /proc (proc(5)). */

/** A mount as far as it matters here. */
export interface Mount {
  /** Its root as this process sees it. */
  readonly point: string;
  readonly type: string;
  /** Of the file system, not of this one mount of it. */
  readonly options: readonly string[];
}

/** The areas of /proc/swaps, by the names there; none where it only has its heading. */
export function swapAreas(swaps: string): readonly string[] {
  return lines(swaps)
    .slice(1)
    .flatMap((line) => line.split(/\s/, 1))
    .map(unescaped);
}

/** The block device of a compressed swap in memory, such as `zram0`; `undefined` for any other area. */
export function zramOf(area: string): string | undefined {
  return /^\/dev\/(zram\d+)$/.exec(area)?.[1];
}

/** The mount of /proc/self/mountinfo that `folder` is in; of several at one place the last, which covers the others. */
export function mountOf(mountinfo: string, folder: string): Mount | undefined {
  let found: Mount | undefined;
  for (const line of lines(mountinfo)) {
    // Fields of any number come before the dash.
    const [before = "", after = ""] = split(line, " - ");
    const point = unescaped(before.split(" ")[4] ?? "");
    const [type = "", , options = ""] = after.split(" ");
    if (!isBelow(folder, point) || type === "") continue;
    if (found === undefined || point.length >= found.point.length)
      found = { point, type, options: options.split(",") };
  }
  return found;
}

/** Whether what is in it may be written to a swap area, were there one: ramfs never is, and tmpfs not with `noswap` (Linux 6.4). */
export function isSwappable({ type, options }: Mount): boolean {
  return type !== "ramfs" && !options.includes("noswap");
}

function lines(text: string): readonly string[] {
  return text.split("\n").filter((line) => line !== "");
}

function split(text: string, at: string): readonly [string, string] | readonly [] {
  const index = text.indexOf(at);
  return index === -1 ? [] : [text.slice(0, index), text.slice(index + at.length)];
}

function isBelow(folder: string, point: string): boolean {
  if (point === "/" || folder === point) return true;
  return point !== "" && folder.startsWith(`${point}/`);
}

/** Space, tab, line break and backslash are written in octal. */
function unescaped(name: string): string {
  return name.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCodePoint(Number.parseInt(octal, 8)),
  );
}

/** Platforms as sites name theirs: Node's words for the system and the architecture. What no site calls itself would be published for nobody. */

const SYSTEMS = ["linux", "aix", "android", "darwin", "freebsd", "openbsd", "sunos", "win32"];
const ARCHITECTURES = "x64 arm64 arm ia32 loong64 mips mipsel ppc64 riscv64 s390x".split(" ");

/** What others call them. */
const OTHERWISE: Readonly<Record<string, string>> = {
  macos: "darwin",
  windows: "win32",
  amd64: "x64",
  x86_64: "x64",
  "x86-64": "x64",
  aarch64: "arm64",
  arm64v8: "arm64",
  armv6: "arm",
  armv7: "arm",
  armv7l: "arm",
  armhf: "arm",
  i386: "ia32",
  i686: "ia32",
  x86: "ia32",
  loongarch64: "loong64",
  ppc64le: "ppc64",
};

/** What a site calls the platform that is meant; `undefined` when none is. */
export function platformMeant(input: string): string | undefined {
  const [, first = "", rest] = /^([a-z0-9]+)[-/_](.+)$/.exec(input.toLowerCase()) ?? [];
  const system = rest === undefined ? "linux" : known(first, SYSTEMS);
  // Of linux/arm/v7 the variant is none of Node's.
  const architecture = known((rest ?? input.toLowerCase()).replace(/\/v\d$/, ""), ARCHITECTURES);
  return system === undefined || architecture === undefined
    ? undefined
    : `${system}-${architecture}`;
}

function known(word: string, words: readonly string[]): string | undefined {
  const meant = Object.hasOwn(OTHERWISE, word) ? OTHERWISE[word] : word;
  return words.find((one) => one === meant);
}

/** For messages. */
export const PLATFORM_FORM = `<os>-<arch> in Node's words: mostly linux-x64 or linux-arm64, else one of ${ARCHITECTURES.slice(2).join(", ")} behind linux-`;

/**
 * Completion for shells, made from the table of commands: what it offers cannot differ from what is taken. An option's value and a
 * positional are completed as file names, but for a positional that lists its words, such as `<bash|zsh|fish>`.
 */
import { optionRows } from "./command.ts";
import type { Described } from "./command.ts";

export const SHELLS = ["bash", "zsh", "fish"] as const;
export type ShellName = (typeof SHELLS)[number];

/** @returns a script that the shell loads */
export function completionFor(shell: ShellName, commands: readonly Described[]): string {
  return SCRIPTS[shell](commands);
}

const SCRIPTS: Readonly<Record<ShellName, (commands: readonly Described[]) => string>> = {
  bash,
  zsh,
  fish,
};

interface Word {
  readonly word: string;
  readonly help: string;
}

/** First words, in the order of the table; a group is told by the commands in it. */
function firstWords(commands: readonly Described[]): readonly Word[] {
  const groups = Map.groupBy(commands, ({ name }) => name.split(" ")[0] ?? "");
  return [...groups].map(([word, members]) => ({
    word,
    help: isGroup(members)
      ? secondWords(members)
          .map((member) => member.word)
          .join(", ")
      : (members[0]?.summary ?? ""),
  }));
}

function groupsOf(
  commands: readonly Described[],
): readonly { readonly word: string; readonly members: readonly Described[] }[] {
  const groups = Map.groupBy(commands, ({ name }) => name.split(" ")[0] ?? "");
  return [...groups]
    .filter(([, members]) => isGroup(members))
    .map(([word, members]) => ({ word, members }));
}

function isGroup(members: readonly Described[]): boolean {
  return members.some(({ name }) => name.includes(" "));
}

function secondWords(members: readonly Described[]): readonly Word[] {
  return members.map(({ name, summary }) => ({ word: name.split(" ")[1] ?? "", help: summary }));
}

/** The words that the first positional of a command may be; none when it is free. */
function choicesOf({ positionals }: Described): readonly string[] {
  const inner = positionals[0]?.replaceAll(/[[\]<>]/g, "") ?? "";
  return inner.includes("|") ? inner.split("|") : [];
}

function valued(command: Described): readonly string[] {
  return optionRows(command).flatMap((row) => (row.takesValue ? [`--${row.name}`] : []));
}

function options(command: Described): readonly string[] {
  return optionRows(command).map((row) => `--${row.name}`);
}

function bash(commands: readonly Described[]): string {
  const groups = groupsOf(commands);
  const list = (words: readonly Word[]): string => words.map(({ word }) => word).join(" ");
  return `# edgesync completion for bash; load it with: source <(edgesync completion bash)
_edgesync() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]}
  local command=\${COMP_WORDS[1]} choices="" options="" valued=""
  COMPREPLY=()
  if (( COMP_CWORD == 1 )); then
    COMPREPLY=( $(compgen -W "${list(firstWords(commands))} --help --version" -- "$cur") )
    return
  fi
  case "$command" in
    ${groups.map(({ word }) => word).join("|")}) command="$command \${COMP_WORDS[2]}" ;;
  esac
  if (( COMP_CWORD == 2 )); then
    case "\${COMP_WORDS[1]}" in
${groups.map(({ word, members }) => `      ${word}) COMPREPLY=( $(compgen -W "${list(secondWords(members))} --help" -- "$cur") ); return ;;`).join("\n")}
    esac
  fi
  case "$command" in
${commands
  .map(
    (command) =>
      `    "${command.name}") choices="${choicesOf(command).join(" ")}" options="${options(command).join(" ")}" valued=" ${valued(command).join(" ")} " ;;`,
  )
  .join("\n")}
    *) return ;;
  esac
  if [[ $cur == -* ]]; then
    COMPREPLY=( $(compgen -W "$options" -- "$cur") )
  elif [[ -n $choices && $valued != *" $prev "* ]]; then
    COMPREPLY=( $(compgen -W "$choices" -- "$cur") )
  else
    compopt -o default
  fi
}
complete -F _edgesync edgesync
`;
}

/** Text within single quotes, of zsh and fish. */
function quote(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "'\\''")}'`;
}

/** What `_arguments` and `_describe` take as their own is escaped. */
function zshText(text: string): string {
  return text.replaceAll(/[:[\]]/g, "\\$&");
}

function zsh(commands: readonly Described[]): string {
  const describe = (what: string, words: readonly Word[]): string =>
    `offered=(${words.map(({ word, help }) => quote(`${zshText(word)}:${help}`)).join(" ")}); _describe ${quote(what)} offered`;
  const specs = (command: Described): string =>
    [
      ...optionRows(command).map(({ name, help, takesValue, repeated }) =>
        quote(
          `${repeated ? "*" : ""}--${name}[${zshText(help)}]${takesValue ? ":value:_files" : ""}`,
        ),
      ),
      ...(choicesOf(command).length > 0
        ? [quote(`1:${command.positionals[0] ?? ""}:(${choicesOf(command).join(" ")})`)]
        : command.positionals.length > 0
          ? [quote("*:file:_files")]
          : []),
    ].join(" ");
  return `#compdef edgesync
# edgesync completion for zsh; load it with: source <(edgesync completion zsh)
_edgesync() {
  local -a offered
  local command=$words[2]
  if (( CURRENT == 2 )); then
    ${describe("command", firstWords(commands))}
    return
  fi
  case $command in
${groupsOf(commands)
  .map(
    ({ word, members }) => `    ${word})
      if (( CURRENT == 3 )); then
        ${describe(`${word} command`, secondWords(members))}
        return
      fi
      command="$command $words[3]"
      shift words; (( CURRENT-- )) ;;`,
  )
  .join("\n")}
  esac
  shift words; (( CURRENT-- ))
  case $command in
${commands.map((command) => `    ${quote(command.name)}) _arguments ${specs(command)} ;;`).join("\n")}
  esac
}
compdef _edgesync edgesync
`;
}

function fish(commands: readonly Described[]): string {
  const lines = [
    "# edgesync completion for fish; load it with: edgesync completion fish | source",
    "# Whether the words given so far begin with these, and whether there are no others yet.",
    "function __edgesync_at",
    "    set -l given (commandline -opc)",
    "    string match -q -- \"$argv *\" (string join ' ' $given[2..-1])' '",
    "end",
    "function __edgesync_after",
    "    set -l given (commandline -opc)",
    "    set -l joined (string join ' ' $given[2..-1])",
    '    test "$joined" = "$argv"',
    "end",
    "complete -c edgesync -n 'test (count (commandline -opc)) -eq 1' -f",
  ];
  const offer = (condition: string, { word, help }: Word): string =>
    `complete -c edgesync -n ${quote(condition)} -f -a ${quote(word)} -d ${quote(help)}`;
  for (const word of firstWords(commands))
    lines.push(offer("test (count (commandline -opc)) -eq 1", word));
  for (const { word, members } of groupsOf(commands))
    for (const second of secondWords(members))
      lines.push(offer(`__edgesync_after ${word}`, second));
  for (const command of commands) {
    const at = `__edgesync_at ${command.name}`;
    for (const word of choicesOf(command))
      lines.push(offer(`__edgesync_after ${command.name}`, { word, help: "" }));
    for (const { name, help, takesValue } of optionRows(command))
      lines.push(
        `complete -c edgesync -n ${quote(at)} -l ${name} -d ${quote(help)}${takesValue ? " -r" : ""}`,
      );
  }
  return `${lines.join("\n")}\n`;
}

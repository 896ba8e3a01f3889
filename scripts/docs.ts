/**
 * Writes the reference pages from the tables that the programs themselves use: `npm run docs`. A test compares the pages with
 * what this makes, so a change of a table without its page fails.
 */
import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { format } from "prettier";
import {
  ANNOTATIONS,
  NAMESPACE_LABEL,
  POD_LABEL,
  PREFIX,
  SECRET_ANNOTATIONS,
} from "#core/annotations.ts";
import type { Row } from "#core/annotations.ts";
import { CONTROL_COMMANDS, CONTROL_STATUSES } from "#core/control.ts";
import { ERRORS } from "#core/errors.ts";
import {
  DELIVERY_REASONS,
  EVENT_REASONS,
  GATE_REASONS,
  ROLLBACK_REASONS,
  SKIP_REASONS,
  WAIT_REASONS,
  WHOLE_REASONS,
} from "#core/reasons.ts";
import { OFFLINE_COMMANDS, OFFLINE_OPTIONS } from "#core/inject/commands.ts";
import { DEFAULTS_NAME, defaultKeys } from "#core/inject/defaults.ts";
import { daemonRows } from "#core/daemon-config.ts";
import { payloadRows, settingRows, variableOf } from "#core/settings.ts";
import { SIDECAR_METRICS, WEBHOOK_METRICS } from "#core/metrics.ts";
import type { Metric } from "#core/metrics.ts";
import { labelNames } from "#core/telemetry.ts";
import { FUNCTIONS, REFUSED } from "#core/template/functions.ts";
import {
  MAX_FOLLOWED,
  MAX_NESTING,
  MAX_STEPS,
  MAX_TEMPLATE,
  MAX_TEXT,
} from "#core/template/limits.ts";
import { optionRows, synopsisOf } from "../publisher/command.ts";
import type { Command } from "../publisher/command.ts";
import { COMMANDS } from "../publisher/commands.ts";
import { PEERS } from "../test/secrets/peers/all.ts";
import type { PeerRow } from "../test/secrets/peers/row.ts";
import { WEBHOOK_SETTINGS } from "../webhook/config.ts";

const NOTICE = "<!-- Made by `npm run docs` from the tables in src/. Change those. -->";

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.map(escape).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

/** A bare `<app>` would be taken for HTML and vanish. */
function escape(cell: string): string {
  const piped = cell.replaceAll("|", "\\|");
  return piped.startsWith("`") ? piped : piped.replaceAll("<", "\\<");
}

function annotationRow(key: string, row: Row<unknown>): readonly string[] {
  const otherwise = row.default === undefined ? (row.otherwise ?? "") : `\`${row.default}\``;
  return [`\`${PREFIX}${key}\``, row.help, row.value.allowed, otherwise];
}

function annotations(): string {
  const rows: readonly (readonly [string, Row<unknown>])[] = [
    ...Object.entries(ANNOTATIONS),
    ...Object.entries(SECRET_ANNOTATIONS).map(
      ([family, row]) => [`${family}.<name>`, row] as const,
    ),
  ];
  const sections = [...new Set(rows.map(([, row]) => row.section))].map((section) => {
    const mine = rows.filter(([, row]) => row.section === section);
    const body = mine.map(([key, row]) => annotationRow(key, row));
    return `## ${section}\n\n${table(["Annotation", "Meaning", "Allowed", "When absent"], body)}`;
  });
  return [
    "# Annotations",
    NOTICE,
    `A pod is injected when its namespace is labelled \`${NAMESPACE_LABEL}: enabled\` and it carries at least one of these annotations, or when the pod itself is labelled \`${POD_LABEL}: "true"\`. The pod label \`${POD_LABEL}: "false"\` always wins.`,
    `Those of a namespace, or of the cluster, may be stated once, in a ConfigMap \`${DEFAULTS_NAME}\` ([defaults](injection.md#defaults)): ${defaultKeys()
      .map((key) => `\`${key}\``)
      .join(", ")}.`,
    "An unknown annotation under the prefix, or a value that is not allowed, denies the pod with a message that names every such annotation and says what is allowed.",
    ...sections,
  ].join("\n\n");
}

function settings(): string {
  const rows = settingRows().map(([key, row]) => [
    `\`${variableOf(key)}\``,
    row.help,
    row.value.allowed,
    row.default === undefined ? "" : `\`${row.default === "" ? " " : row.default}\``,
  ]);
  const keys = [
    ...daemonRows().map(
      ([key, row]) =>
        [
          key,
          row.help,
          row.value.allowed,
          row.default,
          row.payload !== "pod" && isOfUpdates(key),
        ] as const,
    ),
    ...Object.entries(SECRET_ANNOTATIONS).map(
      ([family, row]: readonly [string, Row<unknown>]) =>
        [`${family}.<name>`, row.help, row.value.allowed, row.default, false] as const,
    ),
  ].map(([key, help, allowed, otherwise, own]) => [
    `\`${key}\``,
    help,
    allowed,
    otherwise === undefined ? "" : `\`${otherwise}\``,
    own ? "yes" : "",
  ]);
  return [
    "# Settings of the sidecar",
    NOTICE,
    'In a pod the webhook writes these variables. Each secret travels as `EDGESYNC_SECRET_<NAME>`, and payloads beside `main` as one JSON object in `EDGESYNC_PAYLOADS`: by name, the keys in which they differ, such as `{"models":{"channel":"detector/models"}}`.',
    table(["Variable", "Meaning", "Allowed", "When absent"], rows),
    "## The configuration of a daemon",
    "`edgesync agent --config <file>` reads a flat JSON object with these keys instead; `--check` reads it and does no more. Values are texts, or numbers. Where the last column says so, a payload beside `main` may state its own by its name, as in `channel.models`; what belongs to a repository is taken from `main` only with the repository, and `channel`, `payload-dir` and the sizes are each payload's own. An unknown key, a key that is there twice and a value that is not allowed are refused, all at once, with exit status 78. Nobody but root and the agent's own user may be able to write the file, and, where it names programs, the folders above it.",
    table(["Key", "Meaning", "Allowed", "When absent", "By payload"], keys),
  ].join("\n\n");
}

function isOfUpdates(key: string): boolean {
  return payloadRows().some(([own]) => own === key);
}

function webhook(): string {
  const rows = Object.entries(WEBHOOK_SETTINGS).map(([key, row]) => [
    `\`${variableOf(key)}\``,
    row.help,
    row.value.allowed,
    "otherwise" in row ? row.otherwise : "default" in row ? `\`${row.default}\`` : "an error",
  ]);
  return [
    "# Settings of the webhook",
    NOTICE,
    "`edgesync webhook` reads these variables once, when it starts; in the cluster they are in the ConfigMap `edgesync-webhook`. An empty variable counts as absent.",
    table(["Variable", "Meaning", "Allowed", "When absent"], rows),
  ].join("\n\n");
}

function errors(): string {
  const rows = Object.entries(ERRORS).map(([code, { means, remedy, exit }]) => [
    `\`${code}\``,
    means,
    remedy,
    String(exit),
  ]);
  const reasons = (title: string, of: Readonly<Record<string, string>>): string =>
    `## ${title}\n\n${table(
      ["Reason", "Meaning"],
      Object.entries(of).map(([reason, text]) => [`\`${reason}\``, text]),
    )}`;
  return [
    "# Errors and reasons",
    NOTICE,
    "A code or reason is the same word in a log line, in a metric's label, in `/status` and in a denial.",
    "## Error codes",
    table(["Code", "Meaning", "What to do", "Exit status"], rows),
    reasons("Why a pod is not injected", SKIP_REASONS),
    reasons("Events on the owner of a pod", EVENT_REASONS),
    reasons("Why a pod may not start, or is not ready", GATE_REASONS),
    reasons("Why a release was rolled back", ROLLBACK_REASONS),
    reasons("Why a site does not yet install what its channel points to", WAIT_REASONS),
    reasons("Why the application has not got what was swapped in", DELIVERY_REASONS),
    reasons("Why a file comes whole", WHOLE_REASONS),
  ].join("\n\n");
}

function metrics(): string {
  const section = (title: string, of: Readonly<Record<string, Metric>>): string => {
    const rows = Object.entries(of).map(([name, metric]) => [
      `\`${name}\``,
      metric.type,
      labelNames(metric)
        .map((label) => `\`${label}\``)
        .join(", "),
      metric.help,
    ]);
    return `## ${title}\n\n${table(["Metric", "Type", "Labels", "Meaning"], rows)}`;
  };
  return [
    "# Metrics",
    NOTICE,
    "The label `payload` tells the payloads of a pod apart; it is `main` for the one whose annotations have no suffix.",
    section("Sidecar", SIDECAR_METRICS),
    section("Webhook", WEBHOOK_METRICS),
  ].join("\n\n");
}

function commands(): string {
  const row = ({ name, summary }: Command): readonly string[] => [
    `[\`${name}\`](#edgesync-${name.replaceAll(" ", "-")})`,
    summary,
  ];
  const section = (command: Command): string => {
    const { name, summary, notes, example, examples = [] } = command;
    const options = optionRows(command)
      .filter((option) => option.name !== "json" && option.name !== "help")
      .map(({ name, help, takesValue, repeated }) => [
        `\`--${name}${takesValue ? " …" : ""}\``,
        `${help}${repeated ? "; may be given more than once" : ""}`,
      ]);
    return [
      `## edgesync ${name}`,
      `\`\`\`text\n${synopsisOf(command)} [options]\n\`\`\``,
      plain(summary),
      ...(notes === undefined ? [] : [plain(notes)]),
      ...(options.length === 0 ? [] : [table(["Option", "Meaning"], options)]),
      `\`\`\`sh\n${[example, ...examples].join("\n")}\n\`\`\``,
    ].join("\n\n");
  };
  return [
    "# Commands",
    NOTICE.replace("src/", "publisher/"),
    "Every command takes `--json`, which prints the result as one JSON object, and `--help`. An error is one line on standard error; its code decides the exit status ([errors.md](errors.md)). Durations are whole numbers with units, such as `30s`, `12h` or `7d`.",
    table(["Command", "What it does"], COMMANDS.map(row)),
    ...COMMANDS.map(section),
    "## What the webhook would do, without a cluster",
    "These take objects as `kubectl apply` does, with pods or templates of pods in them, of any kind. The exit status is 65 when a pod would be denied.",
    table(
      ["Command", "What it does"],
      OFFLINE_COMMANDS.map(({ synopsis, summary }) => [`\`${synopsis}\``, summary]),
    ),
    table(
      ["Option", "Meaning"],
      OFFLINE_OPTIONS.map(([option, help]) => [`\`${option}\``, help]),
    ),
    `\`\`\`sh\n${OFFLINE_COMMANDS.map(({ example }) => example).join("\n")}\n\`\`\``,
    "## In a pod, or beside an agent",
    "These ask the sidecar over its control port, from inside its container, or the agent of the machine. In a pod the port is `edgesync.dev/control-port`; on a machine `--config` names the configuration of the agent that is meant, or `--port` its `control-port`, and neither means 9903.",
    table(
      ["Command", "What it does"],
      CONTROL_COMMANDS.map(({ synopsis, summary }) => [`\`${synopsis}\``, summary]),
    ),
    `\`\`\`sh\n${CONTROL_COMMANDS.map(({ example }) => example).join("\n")}\n\`\`\``,
    table(
      ["Exit status", "Meaning"],
      CONTROL_STATUSES.map(([status, means]) => [String(status), means]),
    ),
  ].join("\n\n");
}

function templates(): string {
  const rows = Object.entries(FUNCTIONS).toSorted(([a], [b]) => (a < b ? -1 : 1));
  const kib = (bytes: number): string => `${bytes / 1024} KiB`;
  return [
    "# Templates",
    NOTICE,
    "A template makes the text of one file from secrets. It is written as for Vault Agent: the template language of Go with functions of Consul Template, and it gives the same bytes for the same data. What writes files, runs programs or has no bound is not there.",
    '```\n{{- with secret "secret/data/shop" -}}\nurl=postgres://{{ .Data.data.user | urlquery }}:{{ .Data.data.password | urlquery }}@db/shop\n{{ end -}}\n```',
    "## Where it is",
    "In the annotation itself, or in a ConfigMap of the pod's namespace, by name and key; a daemon finds it in a folder of that name in `templates-dir`:",
    "```yaml\nedgesync.dev/template.db: configmap:web-templates/db.conf.tpl\nedgesync.dev/file.db: db.conf\n```",
    "Only the sidecar mounts the ConfigMap. A pod whose ConfigMap or key is missing does not start: the kubelet says so in an Event, and tries again. When the ConfigMap changes, the kubelet shows it within a minute or two, and the file is rendered again without a restart; `on-rotate` says how the application is told. The new text takes over when it has been rendered once. Until then, and when it is no template or cannot be rendered, the one before goes on with whatever Vault gives, also in a sidecar that starts anew: the code is in `/status`, `edgesync_sidecar_template_failing` is 1, and the log has line and column. What a ConfigMap holds is not looked at when a pod is created, so check it before it is applied:",
    "```sh\nedgesync template check db.conf.tpl\nedgesync template check db.conf.tpl --data db.json   # prints the file, from what `vault read -format=json` or `vault kv get -format=json` wrote\n```",
    "## What there is",
    "`if`, `else if`, `else`, `with`, `else with`, `range` over lists, maps (sorted by key) and numbers, `break`, `continue`, `define`, `template`, `block`; variables with `:=` and `=`; pipes and parentheses; comments; `{{-` and `-}}` to trim white space. Numbers and texts are written as in Go; complex numbers are not supported, nor floats in hexadecimal digits, nor addresses (`%p`).",
    '- A number of a secret is a text, as in Vault Agent: `eq .Data.data.port "5432"`, and `.Data.data.port.Int64` for arithmetic. `parseJSON` gives floats.',
    "- A list of a secret is no list of texts: `join` takes what `split` makes.",
    '- A field that does not exist is an error, where Vault Agent writes `<no value>`. `index` gives nothing for it: `index .Data.data "name" | default "none"`.',
    "- A secret that is still missing is no error: the file is made when all are there.",
    `- A template has at most ${kib(MAX_TEMPLATE)}, its text ${kib(MAX_TEXT)}, its blocks and parentheses ${MAX_NESTING} levels; it takes at most ${MAX_STEPS} steps, and a sidecar follows at most ${MAX_FOLLOWED} secrets for it.`,
    "- Errors name line and column, and nothing of what is in a secret.",
    "## Functions",
    "Those of Go are its own, those of Consul Template are what Vault Agent has, and so are those of Sprig; those of edgesync are short names that Vault Agent does not know.",
    table(
      ["Function", "Arguments", "What it gives", "From"],
      rows.map(([name, { form, help, from }]) => [`\`${name}\``, `\`${form}\``, help, from]),
    ),
    "## Functions of Vault Agent that there are not",
    table(
      ["Function", "Why, or what instead"],
      Object.entries(REFUSED).map(([name, why]) => [`\`${name}\``, plain(why)]),
    ),
  ].join("\n\n");
}

function secretsPeers(): string {
  const link = (ref: string): string => {
    const [repository = "", number = ""] = ref.split("#");
    // GitHub leads from an issue's address to the pull request of its number.
    return `[${ref.slice(ref.indexOf("/") + 1)}](https://github.com/${repository}/issues/${number})`;
  };
  const row = ({ peer, refs, theirs, ours, tests, open }: PeerRow): readonly string[] => [
    [peer, ...refs.map(link)].join("<br>"),
    theirs,
    open === undefined ? ours : `${ours} **Not covered:** ${open}`,
    tests.map(({ file, subject, title }) => `[${subject}: ${title}](../${file})`).join("<br>"),
  ];
  const rows = PEERS.flatMap((section) => section.rows);
  const open = rows.filter((one) => one.open !== undefined);
  return [
    "# What goes wrong elsewhere",
    NOTICE.replace("src/", "test/secrets/peers/"),
    `What users of other agents for secrets complain of, and defaults that hurt them, beside what edgesync does and the test that holds it to that. ${rows.length} rows; ${open.length} of them say what is not covered, and why. Some of the issues have been closed since.`,
    "A test fails when one that is named here does not exist, or is not run. [How secrets are handled](secrets.md).",
    ...PEERS.map(({ title, rows }) => {
      const head = ["Where", "What goes wrong, or is asked for", "edgesync", "Tests"];
      return `## ${title}\n\n${table(head, rows.map(row)).replaceAll("\\<br>", "<br>")}`;
    }),
  ].join("\n\n");
}

/** Text in which nothing is taken for HTML. */
function plain(text: string): string {
  return text.replaceAll("<", "\\<");
}

/** Every generated page by its path from the root of the project. */
export async function pages(): Promise<ReadonlyMap<string, string>> {
  const made = {
    annotations: annotations(),
    commands: commands(),
    settings: settings(),
    webhook: webhook(),
    errors: errors(),
    templates: templates(),
    metrics: metrics(),
    "secrets-peers": secretsPeers(),
  };
  const formatted = Object.entries(made).map(
    async ([name, text]) =>
      [`docs/${name}.md`, await format(text, { parser: "markdown", printWidth: 100 })] as const,
  );
  return new Map(await Promise.all(formatted));
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  for (const [path, text] of await pages()) await writeFile(path, text);

/** `edgesync inject` and `edgesync explain`: the webhook's decision without a cluster, on files. */
import { parseArgs } from "node:util";
import { NAMESPACE_LABEL, POD_LABEL, PREFIX } from "#core/annotations.ts";
import { EdgeSyncError } from "#core/errors.ts";
import type { ClusterOptions } from "#core/inject/cluster.ts";
import { OFFLINE_COMMANDS, OFFLINE_OPTIONS } from "#core/inject/commands.ts";
import type { OfflineCommand } from "#core/inject/commands.ts";
import { explanationLines } from "#core/inject/explain-text.ts";
import { explain } from "#core/inject/explain.ts";
import { runsNativeSidecars } from "#core/inject/facts.ts";
import type { Facts } from "#core/inject/facts.ts";
import { inject } from "#core/inject/inject.ts";
import type { Pod } from "#core/inject/pod.ts";
import { hasAnnotations } from "#core/pod-options.ts";
import { SKIP_REASONS } from "#core/reasons.ts";
import { readObjects } from "./objects.ts";
import { readCluster } from "./offline-cluster.ts";
import type { Objects, PodPlace } from "./objects.ts";

export interface OfflineShell {
  /** A file's text; `-` is standard input. @throws EdgeSyncError USAGE */
  read(file: string): Promise<string>;
  out(text: string): void;
  /** For what is said beside the result. */
  note(text: string): void;
  /** Milliseconds since the epoch. */
  now(): number;
  /** Image of the sidecar where nothing says it. */
  readonly image: string;
}

/** Of data that is not valid: the exit status of a denial (BSD's EX_DATAERR). */
const EXIT_DENIED = 65;

/**
 * @returns the exit status: 65 when a pod would be denied
 * @throws EdgeSyncError USAGE, OBJECT_INVALID, CONFIG_INVALID
 */
export async function runOffline(
  command: OfflineCommand,
  args: readonly string[],
  shell: OfflineShell,
): Promise<number> {
  const values = readOptions(command, args);
  if (values.help === true) {
    shell.out(helpOf(command));
    return 0;
  }
  const files = [...(values.filename ?? []), ...values.positionals];
  if (files.length === 0)
    throw new EdgeSyncError(
      "USAGE",
      `${command}: -f is missing; name a file, or - for standard input`,
    );
  const read = async (file: string): Promise<Objects> =>
    readObjects(await shell.read(file), file === "-" ? "standard input" : file);
  const objects: Objects[] = [];
  for (const file of files) objects.push(await read(file));
  const configs: Objects[] = [];
  for (const file of values.config ?? []) configs.push(await read(file));
  const namespace = values.namespace ?? "default";
  const cluster = readCluster([...configs, ...objects], namespace, values.image, shell);
  const kubelet = values.kubelet;
  if (kubelet !== undefined && !/^v?\d+\.\d+\.\d+/.test(kubelet))
    throw new EdgeSyncError("USAGE", `--kubelet is ${kubelet}; expected a version such as v1.28.9`);
  const factsOf = (place: PodPlace): Facts => ({
    nativeSidecars: kubelet === undefined || runsNativeSidecars(kubelet),
    defaults: cluster.defaultsOf(place.namespace ?? namespace),
    now: shell.now(),
  });
  const title = (place: PodPlace): string =>
    `${place.kind} ${place.namespace ?? namespace}/${place.name}`;
  const json = values.json === true;
  const exit =
    command === "explain"
      ? explainAll(objects, cluster.options, factsOf, title, json, shell)
      : injectAll(objects, cluster.options, factsOf, title, shell);
  if (!json)
    hints(objects, (place) => cluster.isEnabled(place.namespace ?? namespace), title, shell);
  return exit;
}

type FactsOf = (place: PodPlace) => Facts;
type Title = (place: PodPlace) => string;

function explainAll(
  objects: readonly Objects[],
  cluster: ClusterOptions,
  factsOf: FactsOf,
  title: Title,
  json: boolean,
  shell: OfflineShell,
): number {
  const told = objects
    .flatMap(({ pods }) => pods)
    .map((place) => ({ place, ...explain(place.pod, cluster, factsOf(place)) }));
  if (json) {
    const pods = told.map(({ place, ...explanation }) => ({
      kind: place.kind,
      ...(place.namespace === undefined ? {} : { namespace: place.namespace }),
      name: place.name,
      ...explanation,
    }));
    shell.out(`${JSON.stringify({ pods })}\n`);
  } else {
    shell.out(
      told.map((one) => `${explanationLines(title(one.place), one).join("\n")}\n`).join("\n"),
    );
  }
  return told.some(({ outcome }) => outcome === "denied") ? EXIT_DENIED : 0;
}

function injectAll(
  objects: readonly Objects[],
  cluster: ClusterOptions,
  factsOf: FactsOf,
  title: Title,
  shell: OfflineShell,
): number {
  let denied = false;
  const texts = objects.map((one) => {
    const changed = new Map<PodPlace, Pod>();
    for (const place of one.pods) {
      const injection = inject(place.pod, cluster, factsOf(place));
      if (injection.kind === "injected") {
        changed.set(place, injection.pod);
        for (const warning of injection.warnings)
          shell.note(`${title(place)}: warning: ${warning}\n`);
      } else if (injection.kind === "skip")
        shell.note(
          `${title(place)}: not injected (${injection.reason}): ${SKIP_REASONS[injection.reason]}\n`,
        );
      else {
        denied = true;
        shell.note(
          `${title(place)}: denied (${injection.code}):\n${injection.problems.map((problem) => `  - ${problem}\n`).join("")}`,
        );
      }
    }
    return one.withPods(changed);
  });
  // Half of what was asked for might be applied by a pipe that does not look.
  if (denied) return EXIT_DENIED;
  shell.out(joined(texts));
  return 0;
}

/** Files as one stream of documents. */
function joined(texts: readonly string[]): string {
  return texts
    .filter((text) => text.trim() !== "")
    .map((text, index) =>
      index === 0 || /^---(\s|$)/.test(text.trimStart()) ? text : `---\n${text}`,
    )
    .map((text) => (text.endsWith("\n") ? text : `${text}\n`))
    .join("");
}

/** The mistakes that look as if nothing had happened. */
function hints(
  objects: readonly Objects[],
  isEnabled: (place: PodPlace) => boolean | undefined,
  title: Title,
  shell: OfflineShell,
): void {
  const pods = objects.flatMap((one) => one.pods);
  if (pods.length === 0) shell.note("no pod and no template of pods in what was given\n");
  for (const place of pods) {
    const labelled = place.pod.metadata?.labels?.[POD_LABEL] !== undefined;
    const asks = hasAnnotations(place.pod.metadata?.annotations ?? {});
    if (asks && !labelled && isEnabled(place) === false)
      shell.note(
        `${title(place)}: its namespace is not labelled ${NAMESPACE_LABEL}=enabled, so the webhook is not asked\n`,
      );
    const key = Object.keys(place.outer).find((name) => name.startsWith(PREFIX));
    if (key !== undefined && !asks)
      shell.note(
        `${title(place)}: ${key} is an annotation of the ${place.kind}; the webhook sees pods, so put it into ${[...place.path, "metadata", "annotations"].join(".")}\n`,
      );
  }
}

interface Values {
  readonly filename?: string[];
  readonly config?: string[];
  readonly namespace?: string;
  readonly image?: string;
  readonly kubelet?: string;
  readonly json?: boolean;
  readonly help?: boolean;
  /** Files too: nothing else could be meant. */
  readonly positionals: readonly string[];
}

/** @throws EdgeSyncError USAGE */
function readOptions(command: OfflineCommand, args: readonly string[]): Values {
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        filename: { type: "string", short: "f", multiple: true },
        config: { type: "string", multiple: true },
        namespace: { type: "string", short: "n" },
        image: { type: "string" },
        kubelet: { type: "string" },
        help: { type: "boolean", short: "h" },
        json: { type: "boolean" },
      },
    });
    if (values.json === true && command === "inject")
      throw new Error("--json is explain's; inject prints the objects themselves");
    return { ...values, positionals };
  } catch (cause) {
    const text = cause instanceof Error ? cause.message.replace(/\.$/, "") : String(cause);
    throw new EdgeSyncError("USAGE", `${command}: ${text}`, { cause });
  }
}

function helpOf(name: OfflineCommand): string {
  const command = OFFLINE_COMMANDS.find((one) => one.name === name);
  const width = Math.max(...OFFLINE_OPTIONS.map(([option]) => option.length));
  const options = OFFLINE_OPTIONS.filter(([option]) => name === "explain" || option !== "--json");
  return [
    command?.synopsis ?? name,
    `  ${command?.summary ?? ""}`,
    "",
    ...options.map(([option, help]) => `  ${option.padEnd(width)}  ${help}`),
    "",
    `  ${command?.example ?? ""}`,
    "",
  ].join("\n");
}

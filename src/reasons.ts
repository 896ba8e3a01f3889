/** Closed sets of reasons: the same word is the log field, the metric label, the status and, with its sentence, the warning. */

/** Why a pod is left as it is. */
export const SKIP_REASONS = {
  opted_out: 'the pod carries the label edgesync.dev/inject: "false"',
  not_requested: 'the pod has no edgesync annotation and no label edgesync.dev/inject: "true"',
  already_injected: "the pod already is as edgesync would make it",
  not_a_creation: "only the creation of a pod concerns edgesync",
  mirror_pod: "a mirror pod only shows what a kubelet runs from a file",
  windows: "the sidecar runs on Linux only",
} as const satisfies Record<string, string>;
export type SkipReason = keyof typeof SKIP_REASONS;

/** Those that surprise somebody who asked for injection: a warning tells of them. The others are as wanted, or concern nobody. */
export const SURPRISING_SKIPS: readonly SkipReason[] = ["mirror_pod", "windows"];

/** Of the Events on the owner of a pod, by what became of the pod; the reason itself begins the Event's message. */
export const EVENT_REASONS = {
  InjectionDenied: "the pod was denied; what must be changed is in the message",
  InjectionSkipped: "the pod asks for injection and was left as it is",
  InjectionWarned: "the pod was injected, and there is something to know about it",
} as const satisfies Record<string, string>;
export type EventReason = keyof typeof EVENT_REASONS;

/** Why the main container may not start yet, or the pod is not ready. */
export const GATE_REASONS = {
  ok: "payload and credentials are in order",
  payload_missing: "no release is installed yet, or the disk has lost the one that was",
  secrets_missing: "not every declared secret has been published yet",
  secrets_expired: "credentials have expired and could not be renewed within ready-grace",
  starting: "the sidecar has not finished its recovery",
  config_invalid: "the settings of the sidecar are not valid",
} as const satisfies Record<string, string>;
export type GateReason = keyof typeof GATE_REASONS;

/** Why a release was rolled back, or not taken at all. */
export const ROLLBACK_REASONS = {
  health_failed: "the health check failed as often as its threshold allows",
  trial_timeout: "the release was not healthy for trial-duration before trial-timeout",
  too_many_starts: "the main container started more often than trial-starts allows",
  interrupted: "the sidecar itself restarted more often during the trial than is allowed",
  hook_refused: "a hook of the application said no",
  not_delivered:
    "nothing of on-update reached the application before trial-timeout, so the release was not tried; it is tried again by itself",
  unknown: "a newer version of edgesync rolled it back, for a reason that this one does not know",
} as const satisfies Record<string, string>;
export type RollbackReason = keyof typeof ROLLBACK_REASONS;

/** Why a site does not yet install what its channel points to. */
export const WAIT_REASONS = {
  rollout_not_yet: "the roll-out goes on, and the site's turn has not come",
  rollout_not_included: "the roll-out's percent, as it stands, does not reach the site's number",
  rollout_paused: "the roll-out is paused: who has not swapped yet stays",
  held: "the operator holds updates with hold, an annotation or a key of the configuration",
  download_window: "no download-window is open",
  swap_window: "no swap-window is open",
  download_budget: "download-budget is spent for today",
  app_lease: "the application holds updates",
  spacing: "the application was restarted for a release less than restart-spacing ago",
  not_started: "the application has not been let start yet, so nothing can be tried with it",
  payload: "another payload is on trial",
  replica: "another replica of the site is being swapped, or may be: this pod's turn comes",
  hook_later: "a hook of the application wants to be asked again later",
  hook_broken:
    "a hook cannot be asked: its program cannot be run, or its address answers that it is none; the release waits until that is mended",
  not_delivered:
    "nothing of on-update reached the application when the release was tried; it is tried again after a quarter of an hour, then two, up to a day",
} as const satisfies Record<string, string>;
export type WaitReason = keyof typeof WAIT_REASONS;

/** Why the application has not got a release yet, or not got the one before back, although it has been swapped in. */
export const DELIVERY_REASONS = {
  restart_pending:
    "the lever is pulled: the kubelet restarts the container when its window is over",
  kubelet_backoff:
    "the kubelet has stopped the container and holds its start back, because it was restarted often in the last ten minutes",
  no_probes:
    "the kubelet has not asked the sidecar since: it is down, or the container waits in its back-off",
  not_taken: "the application, or what tells it, does not take the release; it is tried again",
} as const satisfies Record<string, string>;
export type DeliveryReason = keyof typeof DELIVERY_REASONS;

/** Why the node's clock is suspected. */
export const CLOCK_REASONS = {
  clock_behind: "the clock says a time before one at which metadata was already signed",
  clock_ahead:
    "the clock is more than 400 days past the last signed time, so it does not make anything expire",
} as const satisfies Record<string, string>;
export type ClockReason = keyof typeof CLOCK_REASONS;

/** Why the sealed set of secrets was not used while Vault could not be reached. */
export const OFFLINE_REASONS = {
  absent: "no set has been sealed on this volume yet",
  unreadable: "the set was sealed with another key, or is damaged",
  other_declaration: "the set is another workload's, or of other annotations than those of now",
  too_old: "Vault vouched for the set longer ago than offline-secrets allows",
  secret_ended: "the lease or the certificate of a secret in the set has ended",
  denied: "Vault has refused the login, so the set was removed",
} as const satisfies Record<string, string>;
export type OfflineReason = keyof typeof OFFLINE_REASONS;

/** Why secrets that are written to memory may get to a disk all the same. */
export const STORAGE_REASONS = {
  swap_on: "the node swaps, and the memory volume for secrets is mounted without noswap",
  swap_unknown: "it cannot be seen whether the node swaps",
} as const satisfies Record<string, string>;
export type StorageReason = keyof typeof STORAGE_REASONS;

/** Why a file is fetched whole. */
export const WHOLE_REASONS = {
  no_delta: "no delta, and no chain of deltas, starts from what the site has",
  codec_unknown: "the deltas that would fit are of a codec that this sidecar does not know",
  delta_rejected: "a delta was fetched and did not give the file that it should",
  base_damaged: "the file that a delta starts from is damaged on the payload volume",
  whole_is_smaller: "the file itself takes no more bytes than the deltas to it",
} as const satisfies Record<string, string>;
export type WholeReason = keyof typeof WHOLE_REASONS;

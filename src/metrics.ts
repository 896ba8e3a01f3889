/**
 * Every metric, once: the programs register them from these tables and `docs/metrics.md` is made from them. Base units,
 * `_total` on counters, labels only from closed sets.
 */

export interface Metric {
  readonly type: "counter" | "gauge" | "histogram";
  readonly help: string;
  readonly labels?: readonly string[];
  /** Upper bounds, for histograms. */
  readonly buckets?: readonly number[];
  /** There is one for each payload, told apart by one more label, `payload`. */
  readonly perPayload?: true;
}

export const WEBHOOK_METRICS = {
  edgesync_webhook_reviews_total: {
    type: "counter",
    help: "Admission reviews answered, by outcome (injected, skipped, denied, failed) and reason.",
    labels: ["outcome", "reason"],
  },
  edgesync_webhook_review_duration_seconds: {
    type: "histogram",
    help: "Time from a review's arrival to its answer.",
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1],
  },
  edgesync_webhook_certificate_expiry_timestamp_seconds: {
    type: "gauge",
    help: "When the serving certificate expires.",
  },
  edgesync_webhook_certificate_trusted: {
    type: "gauge",
    help: "1 while the API server trusts the serving certificate by every caBundle, else 0.",
  },
  edgesync_webhook_certificate_rotations_total: {
    type: "counter",
    help: "Serving certificates that this replica, as the leader, has replaced.",
  },
  edgesync_webhook_leader: {
    type: "gauge",
    help: "1 while this replica leads the others, else 0.",
  },
  edgesync_webhook_api_failures_total: {
    type: "counter",
    help: "Rounds of the certificate's keeper that the API server did not let end, by HTTP status; none without an answer.",
    labels: ["status"],
  },
  edgesync_webhook_bodies_held_bytes: {
    type: "gauge",
    help: "Memory that the bodies of reviews in flight hold, or have set aside.",
  },
  edgesync_build_info: {
    type: "gauge",
    help: "Always 1; the labels say what runs.",
    labels: ["version", "node"],
  },
} as const satisfies Record<string, Metric>;

export const SIDECAR_METRICS = {
  edgesync_sidecar_polls_total: {
    type: "counter",
    help: "Looks at the channel, by outcome (unchanged, changed, or an error code).",
    labels: ["outcome"],
    perPayload: true,
  },
  edgesync_sidecar_last_poll_success_timestamp_seconds: {
    type: "gauge",
    help: "When the channel was last read and verified.",
    perPayload: true,
  },
  edgesync_sidecar_metadata_expiry_timestamp_seconds: {
    type: "gauge",
    help: "When the verified metadata of a role expires, or has expired.",
    labels: ["role"],
    perPayload: true,
  },
  edgesync_sidecar_clock_suspect: {
    type: "gauge",
    help: "1 while the node's clock is suspected, by reason (clock_behind, clock_ahead).",
    labels: ["reason"],
    perPayload: true,
  },
  edgesync_sidecar_time_floor_timestamp_seconds: {
    type: "gauge",
    help: "The time that it cannot be before, by the newest signed statement.",
    perPayload: true,
  },
  edgesync_sidecar_download_bytes_total: {
    type: "counter",
    help: "Bytes fetched from the repository, by kind (metadata, delta, full).",
    labels: ["kind"],
    perPayload: true,
  },
  edgesync_sidecar_day_bytes: {
    type: "gauge",
    help: "Bytes fetched on this day, as download-budget counts them: of UTC, by trusted time.",
    perPayload: true,
  },
  edgesync_sidecar_failovers_total: {
    type: "counter",
    help: "Addresses of the repository given up for the next one, by error code.",
    labels: ["code"],
    perPayload: true,
  },
  edgesync_sidecar_slow_retrievals_total: {
    type: "counter",
    help: "Downloads given up because less than the least rate came (64 bytes a second over a minute).",
    perPayload: true,
  },
  edgesync_sidecar_saved_bytes_total: {
    type: "counter",
    help: "Bytes not fetched because of deltas and kept files, against the compressed full files.",
    perPayload: true,
  },
  edgesync_sidecar_update_phase: {
    type: "gauge",
    help: "1 for the phase of the update machine, 0 for the others.",
    labels: ["phase"],
    perPayload: true,
  },
  edgesync_sidecar_release_info: {
    type: "gauge",
    help: "1 for the release that current names.",
    labels: ["app", "channel", "version"],
    perPayload: true,
  },
  edgesync_sidecar_channel_sequence: {
    type: "gauge",
    help: "Highest sequence number seen in the channel.",
    perPayload: true,
  },
  edgesync_sidecar_waiting: {
    type: "gauge",
    help: "1 while the site does not install, fetch or swap what its channel points to, by reason; absent when it waits for nothing.",
    labels: ["reason"],
    perPayload: true,
  },
  edgesync_sidecar_rollout_number: {
    type: "gauge",
    help: "The site's number in the roll-out, from 0 to 1: its turn comes when the share of sites passes it. Absent without a roll-out.",
    perPayload: true,
  },
  edgesync_sidecar_rollout_turn_timestamp_seconds: {
    type: "gauge",
    help: "When the site's turn comes, or came, in the roll-out; absent when it does not come.",
    perPayload: true,
  },
  edgesync_sidecar_commits_total: {
    type: "counter",
    help: "Releases committed.",
    perPayload: true,
  },
  edgesync_sidecar_rollbacks_total: {
    type: "counter",
    help: "Trials that ended in rollback, by reason.",
    labels: ["reason"],
    perPayload: true,
  },
  edgesync_sidecar_update_failures_total: {
    type: "counter",
    help: "Updates given up before their trial, by error code.",
    labels: ["code"],
    perPayload: true,
  },
  edgesync_sidecar_restarts_total: {
    type: "counter",
    help: "Restarts of the main container that were asked for through its liveness probe and seen to happen.",
  },
  edgesync_sidecar_hook_calls_total: {
    type: "counter",
    help: "Hooks called, by hook and answer (go, later, no, silent, broken).",
    labels: ["hook", "answer"],
  },
  edgesync_sidecar_leads: {
    type: "gauge",
    help: "1 while the pod leads its shared payload volume; the others follow what it commits. Absent on a volume of the pod's own.",
  },
  edgesync_sidecar_follows_total: {
    type: "counter",
    help: "Committed releases that the pod followed, by how its workload came out (healthy, unhealthy, unknown).",
    labels: ["outcome"],
  },
  edgesync_sidecar_delivery_waiting_seconds: {
    type: "gauge",
    help: "For how long the application has not got what was swapped in, by reason (restart_pending, kubelet_backoff, no_probes, not_taken); absent when it has.",
    labels: ["reason"],
  },
  edgesync_sidecar_scrub_bytes_total: {
    type: "counter",
    help: "Bytes of the installed release that were read to verify them again.",
    perPayload: true,
  },
  edgesync_sidecar_scrub_damage_total: {
    type: "counter",
    help: "Entries of the installed release that were not as signed, by kind (content, missing, kind, target, mode, extra, manifest; bank, current and journal for its folder and what is around it).",
    labels: ["kind"],
    perPayload: true,
  },
  edgesync_sidecar_scrub_repairs_total: {
    type: "counter",
    help: "Of those, the ones that were made anew or removed.",
    perPayload: true,
  },
  edgesync_sidecar_scrub_damaged: {
    type: "gauge",
    help: "Entries of the installed release that are known to be damaged now.",
    perPayload: true,
  },
  edgesync_sidecar_scrub_last_pass_timestamp_seconds: {
    type: "gauge",
    help: "When all of the installed release was last found to be as signed.",
    perPayload: true,
  },
  edgesync_sidecar_vault_logins_total: {
    type: "counter",
    help: "Logins at Vault, by outcome (ok, or an error code).",
    labels: ["outcome"],
  },
  edgesync_sidecar_vault_failing: {
    type: "gauge",
    help: "1 while nothing that is asked of Vault succeeds, so that it is tried once at a time.",
  },
  edgesync_sidecar_rotation_hooks_total: {
    type: "counter",
    help: "Times that the application was told of new secrets, by outcome (ok, failed, interrupted).",
    labels: ["outcome"],
  },
  edgesync_sidecar_secret_reads_total: {
    type: "counter",
    help: "Secrets read from Vault, by outcome (ok, or an error code).",
    labels: ["outcome"],
  },
  edgesync_sidecar_secret_renewals_total: {
    type: "counter",
    help: "Renewals of the token and of leases, by outcome (ok, or an error code).",
    labels: ["outcome"],
  },
  edgesync_sidecar_template_failing: {
    type: "gauge",
    help: "1 while a template cannot be read or rendered, so that its file stays as it was.",
    labels: ["secret"],
  },
  edgesync_sidecar_rotations_total: {
    type: "counter",
    help: "Sets of secret files published after the first.",
  },
  edgesync_sidecar_lease_expiry_timestamp_seconds: {
    type: "gauge",
    help: "When the credential of a declared secret expires.",
    labels: ["secret"],
  },
  edgesync_sidecar_clock_skew_accepted_total: {
    type: "counter",
    help: "Connections to a server (vault, repository) whose certificate is out of its time by this node's clock, and within tls-clock-skew.",
    labels: ["server"],
  },
  edgesync_sidecar_clock_skew_seconds: {
    type: "gauge",
    help: "Of the last of them: from now to the time at which the certificate is valid; negative when it has expired.",
    labels: ["server"],
  },
  edgesync_sidecar_secrets_swappable: {
    type: "gauge",
    help: "1 while secrets in memory may be swapped to a disk of the node; absent without secrets.",
  },
  edgesync_sidecar_secrets_offline: {
    type: "gauge",
    help: "1 while the application has the sealed set of secrets, because Vault does not answer; absent without offline-secrets.",
  },
  edgesync_sidecar_offline_set_timestamp_seconds: {
    type: "gauge",
    help: "When Vault last vouched for the set of secrets that is sealed on the payload volume.",
  },
  edgesync_sidecar_gate_open: {
    type: "gauge",
    help: "1 when the main container may start, by condition (payload, secrets).",
    labels: ["condition"],
  },
  edgesync_sidecar_ready: {
    type: "gauge",
    help: "1 when the pod is reported ready, 0 with the reason why not.",
    labels: ["reason"],
  },
  edgesync_sidecar_http_requests_total: {
    type: "counter",
    help: "Requests to the sidecar, by route and status.",
    labels: ["route", "status"],
  },
} as const satisfies Record<string, Metric>;

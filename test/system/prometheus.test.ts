import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { promisify } from "node:util";
import { stringify } from "yaml";
import { read } from "../support/kustomize.ts";
import { temporaryFolder } from "../support/temporary.ts";

const run = promisify(execFile);
const RULES = new URL(
  "../../manifests/components/prometheus-rules/prometheus-rules.yaml",
  import.meta.url,
).pathname;

interface Rule {
  readonly alert: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

/** What is seen each minute, in promtool's notation, and when the alert must fire, and when not yet. */
interface Case {
  readonly series: Readonly<Record<string, string>>;
  readonly fires: string;
  readonly quiet: string;
  /** Of the alert, besides those of the rule. */
  readonly labels?: Readonly<Record<string, string>>;
}

const POD = { namespace: "shop", pod: "web-0" };
const ON = 'namespace="shop",pod="web-0"';
/** Time begins at 0 in promtool, so a moment in the far future is far from over. */
const WEEK_S = 604_800;

const CASES: Readonly<Record<string, Case>> = {
  EdgesyncWebhookDown: { series: {}, fires: "6m", quiet: "4m" },
  EdgesyncWebhookUntrusted: {
    series: { 'edgesync_webhook_certificate_trusted{pod="a"}': "1x10 0x60" },
    fires: "20m",
    quiet: "12m",
  },
  EdgesyncWebhookNoLeader: {
    series: {
      'edgesync_webhook_leader{pod="a"}': "0x60",
      'edgesync_webhook_certificate_trusted{pod="a"}': "1x60",
    },
    fires: "35m",
    quiet: "25m",
  },
  EdgesyncWebhookCertificateExpires: {
    series: { edgesync_webhook_certificate_expiry_timestamp_seconds: `${WEEK_S + 600}x100` },
    fires: "80m",
    quiet: "60m",
  },
  EdgesyncAdmissionsFail: {
    series: { 'edgesync_webhook_reviews_total{outcome="failed"}': "0+1x60" },
    fires: "30m",
    quiet: "5m",
  },
  EdgesyncSiteSilent: {
    series: { [`edgesync_sidecar_last_poll_success_timestamp_seconds{${ON}}`]: "0x1600" },
    fires: "1510m",
    quiet: "1400m",
    labels: POD,
  },
  EdgesyncMetadataExpires: {
    series: { [`edgesync_sidecar_metadata_expiry_timestamp_seconds{${ON}}`]: "172800x100" },
    fires: "70m",
    quiet: "30m",
    labels: POD,
  },
  EdgesyncClockSuspect: {
    series: { [`edgesync_sidecar_clock_suspect{${ON},reason="behind"}`]: "1x60" },
    fires: "20m",
    quiet: "10m",
    labels: { ...POD, reason: "behind" },
  },
  EdgesyncClockSkewAccepted: {
    series: { [`edgesync_sidecar_clock_skew_accepted_total{${ON},server="vault"}`]: "0x10 1x60" },
    fires: "15m",
    quiet: "9m",
    labels: POD,
  },
  EdgesyncRolledBack: {
    series: { [`edgesync_sidecar_rollbacks_total{${ON},reason="deadline"}`]: "0x10 1x60" },
    fires: "15m",
    quiet: "9m",
    labels: { ...POD, reason: "deadline" },
  },
  EdgesyncDeliveryWaits: {
    series: { [`edgesync_sidecar_delivery_waiting_seconds{${ON}}`]: "0+60x60" },
    fires: "40m",
    quiet: "29m",
    labels: POD,
  },
  EdgesyncCredentialEnds: {
    series: { [`edgesync_sidecar_lease_expiry_timestamp_seconds{${ON},secret="db"}`]: "1200x60" },
    fires: "17m",
    quiet: "9m",
    labels: { ...POD, secret: "db" },
  },
  EdgesyncSecretsSwappable: {
    series: { [`edgesync_sidecar_secrets_swappable{${ON}}`]: "1x60" },
    fires: "20m",
    quiet: "10m",
    labels: POD,
  },
  EdgesyncSecretsOffline: {
    series: { [`edgesync_sidecar_secrets_offline{${ON}}`]: "0x10 1x100" },
    fires: "80m",
    quiet: "60m",
    labels: POD,
  },
  EdgesyncNotTold: {
    series: { [`edgesync_sidecar_rotation_hooks_total{${ON},outcome="failed"}`]: "0x10 1x60" },
    fires: "15m",
    quiet: "9m",
    labels: { ...POD, outcome: "failed" },
  },
  EdgesyncNoLeadOnClaim: {
    series: { [`edgesync_sidecar_leads{${ON}}`]: "0x60" },
    fires: "15m",
    quiet: "5m",
    labels: { namespace: "shop" },
  },
  EdgesyncFollowsFail: {
    series: { [`edgesync_sidecar_follows_total{${ON},outcome="unhealthy"}`]: "0x10 1x60" },
    fires: "15m",
    quiet: "9m",
    labels: { ...POD, outcome: "unhealthy" },
  },
  EdgesyncSiteForgotten: {
    series: { [`edgesync_sidecar_waiting{${ON},reason="held"}`]: "1x11000" },
    fires: "10200m",
    quiet: "10000m",
    labels: { ...POD, reason: "held" },
  },
  EdgesyncDamaged: {
    series: { [`edgesync_sidecar_scrub_damaged{${ON}}`]: "1x100" },
    fires: "70m",
    quiet: "50m",
    labels: POD,
  },
};

async function hasPromtool(): Promise<boolean> {
  try {
    await run("promtool", ["--version"]);
    return true;
  } catch {
    return false;
  }
}

describe("the rules for Prometheus", () => {
  test("are valid, and each fires when it should and not before", async (context) => {
    if (!(await hasPromtool())) {
      context.diagnostic("there is no promtool here: the rules are not tried");
      return;
    }
    await using folder = await temporaryFolder();
    const [object] = await read(RULES);
    assert.ok(object !== undefined);
    const { groups } = object["spec"] as { groups: { rules: Rule[] }[] };
    const rules = groups.flatMap((group) => group.rules);
    assert.deepEqual(rules.map(({ alert }) => alert).toSorted(), Object.keys(CASES).toSorted());
    await writeFile(join(folder.path, "rules.yaml"), stringify({ groups }));
    const tests = rules.map(({ alert, labels, annotations }) => {
      const { series, fires, quiet, labels: more = {} } = CASES[alert] ?? assert.fail(alert);
      const expected = { exp_labels: { ...labels, ...more }, exp_annotations: annotations };
      return {
        interval: "1m",
        input_series: Object.entries(series).map(([name, values]) => ({ series: name, values })),
        alert_rule_test: [
          { eval_time: quiet, alertname: alert, exp_alerts: [] },
          { eval_time: fires, alertname: alert, exp_alerts: [expected] },
        ],
      };
    });
    const file = join(folder.path, "tests.yaml");
    const text = { rule_files: ["rules.yaml"], evaluation_interval: "1m", tests };
    await writeFile(file, stringify(text));
    await run("promtool", ["check", "rules", join(folder.path, "rules.yaml")]);
    await run("promtool", ["test", "rules", file]);
  });
});

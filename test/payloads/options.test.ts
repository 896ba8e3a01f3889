import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { MAX_PAYLOADS } from "#core/payloads.ts";
import { parseAnnotations, payloadsOf, readAnnotations } from "#core/pod-options.ts";
import type { PodOptions } from "#core/pod-options.ts";
import { fromEnv, payloadNames, payloadSettings, settingsOf, toEnv } from "#core/settings.ts";
import { prefixed } from "../support/inject.ts";

type Annotations = Readonly<Record<string, string>>;

const MODELS = { "channel.models": "detector/models", "payload-path.models": "/models" };

function payload(annotations: Annotations, name: string): PodOptions {
  const found = payloadsOf(parseAnnotations(prefixed(annotations))).find(
    (one) => one.name === name,
  );
  assert.ok(found !== undefined);
  return found.options;
}

function problems(annotations: Annotations): readonly string[] {
  return readAnnotations(prefixed(annotations)).problems;
}

describe("a payload beside main", () => {
  test("has what is stated for it, and else what is stated for all", () => {
    const own = payload(
      {
        channel: "detector/stable",
        "poll-interval": "1h",
        "trial-timeout": "1h",
        "poll-interval.models": "6h",
        ...MODELS,
      },
      "models",
    );
    assert.deepEqual(own.channel, { app: "detector", channel: "models" });
    assert.equal(own.pollInterval, 6 * 3_600_000);
    assert.equal(own.trialTimeout, 3_600_000);
    assert.equal(own.payloadPath, "/models");
  });

  test("has no room, no claim and no path from main", () => {
    const own = payload(
      { channel: "a/b", "payload-size": "1Mi", "payload-storage": "claim/a", ...MODELS },
      "models",
    );
    assert.equal(own.payloadSize, undefined);
    assert.deepEqual(own.payloadStorage, { kind: "ephemeral" });
  });

  test("has main's repository with all that belongs to it, or one of its own with nothing of main's", () => {
    const main = {
      channel: "a/b",
      repository: "https://a.example",
      "repository-mirrors": "https://m.example",
      "repository-credentials": "secret-a",
      "repository-ca": "ca-a",
      "trust-root": "root-a",
    };
    const same = payload({ ...main, ...MODELS }, "models");
    assert.equal(same.repository, "https://a.example");
    assert.equal(same.repositoryCredentials, "secret-a");
    assert.equal(same.trustRoot, "root-a");
    const other = payload(
      { ...main, ...MODELS, "repository.models": "https://b.example" },
      "models",
    );
    assert.equal(other.repository, "https://b.example");
    assert.equal(other.repositoryMirrors, undefined);
    assert.equal(other.repositoryCredentials, undefined, "they are for another server");
    assert.equal(other.repositoryCa, undefined);
    assert.equal(other.trustRoot, "edgesync-trust-root");
  });

  test("may be the only one", () => {
    const options = parseAnnotations(prefixed(MODELS));
    assert.deepEqual(
      payloadsOf(options).map(({ name }) => name),
      ["models"],
    );
  });

  test("may have rows with dots of their own", () => {
    const own = payload({ ...MODELS, "hook.pre-swap.models": "http:80/x" }, "models");
    assert.equal(own.hookPreSwap?.kind, "http");
  });

  const wrong: readonly (readonly [string, Annotations, readonly string[]])[] = [
    [
      "without a channel and a path",
      { "poll-interval.models": "1h" },
      ["edgesync.dev/channel.models is missing", "edgesync.dev/payload-path.models is missing"],
    ],
    [
      "with values that are not allowed",
      { ...MODELS, "poll-interval.models": "soon", "payload-size.models": "1" },
      ["edgesync.dev/poll-interval.models is", "edgesync.dev/payload-size.models is"],
    ],
    [
      "of a name that is none",
      { "channel.Models": "a/b", "channel.a.b": "a/b", [`channel.${"x".repeat(31)}`]: "a/b" },
      ['payload "Models"', 'payload "a.b"', `payload "${"x".repeat(31)}"`],
    ],
    [
      "of main's name",
      { "channel.main": "a/b" },
      ['edgesync.dev/channel.main names payload "main"'],
    ],
    [
      "with a key that holds for the pod",
      { ...MODELS, "site.models": "x" },
      ["edgesync.dev/site.models is not known; edgesync.dev/site holds for the whole pod"],
    ],
    [
      "with a misspelt key",
      { ...MODELS, "chanel.models": "a/b" },
      ["edgesync.dev/chanel.models is not known; did you mean edgesync.dev/channel.models?"],
    ],
  ];
  for (const [what, annotations, named] of wrong)
    test(`is refused ${what}, with its annotation`, () => {
      const found = problems(annotations);
      for (const text of named)
        assert.ok(
          found.some((problem) => problem.includes(text)),
          `${text}: ${found.join("\n")}`,
        );
    });

  test("is not blamed for a value that it has from main", () => {
    assert.deepEqual(problems({ channel: "a/b", "poll-interval": "soon", ...MODELS }).length, 1);
  });

  test(`is refused when there are more than ${MAX_PAYLOADS} of them`, () => {
    const many = Array.from({ length: MAX_PAYLOADS + 1 }, (_, index) => [
      [`channel.p${index}`, "a/b"],
      [`payload-path.p${index}`, `/p${index}`],
    ]).flat();
    assert.match(problems(Object.fromEntries(many)).join(), /9 payloads; at most 8/);
  });

  test("is not looked for in keys that are too long for one, which would take long", () => {
    const [problem = ""] = problems({ [`channel${".".repeat(20_000)}`]: "a/b" });
    assert.match(problem, /^edgesync\.dev\/channel\.+ is not known/);
  });
});

describe("the settings of one payload", () => {
  const main = fromEnv({
    EDGESYNC_CHANNEL: "detector/stable",
    EDGESYNC_REPOSITORY: "https://a.example",
    EDGESYNC_REPOSITORY_CA_FILE: "/ca",
    EDGESYNC_APP: JSON.stringify(
      ["web", "indexer"].map((container) => ({
        container,
        startupWindow: { periodMs: 1000, failureThreshold: 30 },
      })),
    ),
    EDGESYNC_WORKLOAD_CONTAINERS: "web",
    EDGESYNC_PAYLOAD_DIR: "/a",
  });
  const other = {
    ...main,
    channel: { app: "detector", channel: "models" },
    repositoryCaFile: undefined,
    payloadDir: "/b",
    workloadContainers: ["indexer"],
  };
  const all = { ...main, payloads: [payloadSettings("models", other, main)] };

  test("are main's but for what it has of its own", () => {
    assert.deepEqual(payloadNames(all), ["main", "models"]);
    const models = settingsOf(all, "models");
    assert.equal(models.payloadDir, "/b");
    assert.equal(models.repository, "https://a.example");
    assert.equal(models.repositoryCaFile, undefined);
    assert.deepEqual(models.payloads, []);
  });

  test("have the containers with that payload", () => {
    const containers = (name: string): readonly string[] =>
      settingsOf(all, name).app.map(({ container }) => container);
    assert.deepEqual(containers("main"), ["web"]);
    assert.deepEqual(containers("models"), ["indexer"]);
  });

  test("travel as what differs, and nothing more", () => {
    assert.deepEqual(JSON.parse(toEnv(all)["EDGESYNC_PAYLOADS"] ?? ""), {
      models: {
        channel: "detector/models",
        "payload-dir": "/b",
        "repository-ca-file": null,
        "workload-containers": "indexer",
      },
    });
  });
});

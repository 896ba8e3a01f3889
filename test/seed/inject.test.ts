import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Container, Pod } from "#core/inject/pod.ts";
import { seedPlace } from "#core/seed.ts";
import { denied, injected, podWith, sidecarOf, WEB } from "../support/inject.ts";

const CHANNEL = { channel: "web/stable" };

describe("local storage that is limited", () => {
  const told = (pod: Pod, name = "EDGESYNC_EPHEMERAL_STORAGE"): string | undefined =>
    sidecarOf(pod).env?.find((variable) => variable.name === name)?.value;
  const limited = (limit: string): Container => ({
    ...WEB,
    resources: { limits: { "ephemeral-storage": limit } },
  });
  const podOf = (annotations: Readonly<Record<string, string>>, ...containers: Container[]): Pod =>
    injected(podWith({ ...CHANNEL, ...annotations }, { containers })).pod;

  test("is told to the sidecar as the sum of what the containers may take", () => {
    assert.equal(
      told(podOf({}, limited("1Gi"), { ...limited("512000Ki"), name: "two" })),
      "1524Mi",
    );
    assert.equal(told(podOf({ "payload-size": "256Mi" }, limited("1Gi"))), "1376Mi");
    assert.equal(told(podOf({}, WEB)), undefined);
  });
  test("is not the concern of a payload on a claim", () => {
    assert.equal(told(podOf({ "payload-storage": "claim/models" }, limited("1Gi"))), undefined);
  });
  test("is shared by payloads, each beside what the others state", () => {
    const models = { "channel.models": "models/stable", "payload-path.models": "/models" };
    const both = podOf(models, limited("1Gi"));
    assert.equal(told(both), "512Mi");
    const one = podOf({ ...models, "payload-size.models": "128Mi" }, limited("1Gi"));
    assert.equal(told(one), "880Mi");
  });
});

describe("a seed", () => {
  const volumes = [{ name: "image", image: { reference: "models:7" } }];
  const seeded = { ...CHANNEL, "payload-seed": "image/usr/share/models" };

  test("is mounted for the sidecar alone, read-only, and told by its folder", () => {
    const { pod, warnings } = injected(podWith(seeded, { volumes }));
    const sidecar = sidecarOf(pod);
    const mounts = sidecar.volumeMounts?.filter(({ name }) => name === "image");
    assert.deepEqual(mounts, [{ name: "image", mountPath: "/edgesync/seed", readOnly: true }]);
    const folder = sidecar.env?.find(({ name }) => name === "EDGESYNC_SEED_DIR")?.value;
    assert.equal(folder, "/edgesync/seed/usr/share/models");
    for (const { volumeMounts } of pod.spec?.containers ?? [])
      assert.ok(!volumeMounts?.some(({ name }) => name === "image"));
    // What an ephemeral volume costs is the seed's to save.
    assert.deepEqual(warnings, []);
  });
  test("must be on a volume of the pod's own", () => {
    for (const volume of ["other", "edgesync-payload"])
      assert.match(
        denied(podWith({ ...seeded, "payload-seed": volume }, { volumes })).message,
        /payload-seed is/,
      );
  });
});

describe("the place of a seed", () => {
  test("is a volume, or a folder of one, and comes back as it was written", () => {
    for (const text of ["image", "image/usr/share/models", "a/b.c_d@e+f-g"]) {
      const place = seedPlace.parse(text);
      assert.equal(place && seedPlace.format(place), text);
    }
  });
  test("never leads out of the volume", () => {
    for (const text of [
      "",
      "/image",
      "image/",
      "image/../x",
      "image//x",
      "image/.",
      "Image",
      "a/x\n",
    ])
      assert.equal(seedPlace.parse(text), undefined, text);
  });
});

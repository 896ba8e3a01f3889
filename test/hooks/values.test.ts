import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { daemonHookTarget, hookTarget } from "#core/hook.ts";
import { daemonOnUpdate, deliveryOf, onUpdate } from "#core/on-update.ts";
import { parseAnnotations } from "#core/pod-options.ts";
import { fromEnv } from "#core/settings.ts";
import { prefixed } from "../support/inject.ts";

describe("what on-update may be", () => {
  const forms = [
    ["restart", { kind: "restart" }, "restart"],
    ["none", { kind: "none" }, "none"],
    ["http:8080/reload?x=1", { kind: "http", port: 8080, path: "/reload?x=1" }, "reload"],
    ["signal:HUP:nginx", { kind: "signal", signal: "HUP", process: "nginx" }, "reload"],
  ] as const;
  for (const [text, value, delivery] of forms)
    test(`${text} is read, and written as it was`, () => {
      assert.deepEqual(onUpdate.parse(text), value);
      assert.equal(onUpdate.format(value), text);
      assert.equal(deliveryOf(value), delivery);
    });

  test("is nothing that could kill, run or leave the pod", () => {
    for (const text of [
      "signal:KILL:web",
      "signal:STOP:web",
      "signal:9:web",
      "signal:HUP:",
      "signal:HUP:a b",
      "signal:HUP:../x",
      "http:8080",
      "http:0/x",
      "http://evil.example/x",
      "https:8080/x",
      "command:systemctl restart app",
      "exec:/bin/sh",
      "",
    ])
      assert.equal(onUpdate.parse(text), undefined, text);
  });

  test("is a command, or nothing that needs a kubelet, in a daemon", () => {
    assert.deepEqual(daemonOnUpdate.parse("command:systemctl  restart app"), {
      kind: "command",
      argv: ["systemctl", "restart", "app"],
    });
    assert.equal(daemonOnUpdate.parse("command:"), undefined);
    assert.equal(daemonOnUpdate.parse("command:../x"), undefined);
    assert.equal(daemonOnUpdate.parse("restart"), undefined);
    assert.deepEqual(daemonOnUpdate.parse("none"), { kind: "none" });
  });
});

describe("where a hook may be", () => {
  test("is a port of the pod, and nothing else", () => {
    assert.deepEqual(hookTarget.parse("http:80/x"), { kind: "http", port: 80, path: "/x" });
    for (const text of ["exec:/bin/true", "http://evil.example/", "http:80", "tcp:80", "none"])
      assert.equal(hookTarget.parse(text), undefined, text);
  });

  test("is a program by its absolute path too in a daemon", () => {
    const program = { kind: "exec", path: "/etc/edgesync/hooks/pre-swap" } as const;
    assert.deepEqual(daemonHookTarget.parse("exec:/etc/edgesync/hooks/pre-swap"), program);
    assert.equal(daemonHookTarget.format(program), "exec:/etc/edgesync/hooks/pre-swap");
    assert.equal(daemonHookTarget.parse("exec:bin/true"), undefined);
  });

  test("no text is taken for one by chance", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 40 }), (text) => {
        for (const value of [hookTarget, daemonHookTarget]) {
          const parsed = value.parse(text);
          if (parsed !== undefined) assert.deepEqual(value.parse(value.format(parsed)), parsed);
        }
      }),
    );
  });

  test("travels from the annotation to the sidecar", () => {
    const target = { kind: "http", port: 8080, path: "/hooks/pre-swap" };
    const { hookPreSwap } = parseAnnotations(
      prefixed({ channel: "a/b", "hook.pre-swap": "http:8080/hooks/pre-swap" }),
    );
    assert.deepEqual(hookPreSwap, target);
    const env = { EDGESYNC_HOOK_PRE_SWAP: "http:8080/hooks/pre-swap" };
    assert.deepEqual(fromEnv(env).hookPreSwap, target);
  });

  test("is refused under a name that is no hook's", () => {
    assert.throws(() => parseAnnotations(prefixed({ "hook.pre-swop": "http:80/x" })), {
      code: "ANNOTATION_INVALID",
      message: /hook\.pre-swap/,
    });
  });
});

import assert from "node:assert/strict";
import { copyFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setChannel } from "../../publisher/channel.ts";
import { openKeyring } from "../../publisher/keys.ts";
import { openRepository } from "../../publisher/repository.ts";
import { addRelease } from "../../publisher/release.ts";
import { silent } from "../../publisher/work.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { openSites, sidecar } from "./clients.ts";
import { run } from "./shell.ts";
import { edgesync, makePublisher, makeTree, never } from "./world.ts";

/** A repository whose root is held by three people, of whom two have to sign. */
interface Team extends AsyncDisposable {
  readonly folder: string;
  readonly repository: string;
  /** The online keys. */
  readonly keys: string;
  /** Options that name them. */
  readonly here: readonly string[];
  /** Makes a person's key. @returns the file of its public part */
  hire(name: string): Promise<string>;
  /** Signs a copy, as somebody does who has nothing else. @returns the copy */
  sign(file: string, name: string): Promise<string>;
  publish(version: string): Promise<void>;
}

async function openTeam(): Promise<Team> {
  await using cleanup = new AsyncDisposableStack();
  const { path: folder } = cleanup.use(await temporaryFolder());
  const [repository, keys] = [join(folder, "repository"), join(folder, "keys")];
  const here = ["--repository", repository, "--keys", keys];
  const keyring = openKeyring(keys, undefined);
  let copies = 0;
  const owned = cleanup.move();
  const team: Team = {
    folder,
    repository,
    keys,
    here,
    async hire(name) {
      await run(["key", "create", name, "--keys", join(folder, name)]);
      return join(folder, name, `${name}.pub`);
    },
    async sign(file, name) {
      const copy = join(folder, `${name}-${copies++}.json`);
      await copyFile(file, copy);
      await run(["root", "sign", copy, "--keys", join(folder, name)]);
      return copy;
    },
    async publish(version) {
      const tree = await makeTree(join(folder, `tree-${version}`), { file: version });
      await using open = await openRepository(repository, Date.now());
      const wanted = { folder: tree, app: "web", version, platform: "linux-x64", deltas: 0 };
      await addRelease(open, keyring, wanted, Date.now(), silent, never);
      await using again = await reopen(open);
      await setChannel(again, keyring, { app: "web", channel: "stable", version }, Date.now());
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
  const people = [await team.hire("alice"), await team.hire("bob"), await team.hire("carol")];
  const root = people.flatMap((file) => ["--key", `root=${file}`]);
  const first = join(folder, "root.1.json");
  const init = ["init", repository, "--keys", keys, "--out", first, "--threshold", "root=2"];
  await run([...init, ...root]);
  const copies1 = [await team.sign(first, "alice"), await team.sign(first, "carol")];
  await run(["root", "merge", first, ...copies1]);
  await run(["root", "publish", first, ...here]);
  await team.publish("1");
  return team;
}

async function reopen(
  open: Awaited<ReturnType<typeof openRepository>>,
): ReturnType<typeof openRepository> {
  await open[Symbol.asyncDispose]();
  return await openRepository(open.path, Date.now());
}

describe("a change of the root, of which two of three have to sign", () => {
  test("is prepared in one place, signed in others, and followed by sites with the old root", async () => {
    await using team = await openTeam();
    const { folder, repository, here } = team;
    await using sites = await openSites(repository, join(folder, "oracle"));
    assert.equal(await sites.look(), "1");
    const [dave, file] = [await team.hire("dave"), join(folder, "root.2.json")];
    const change = ["--remove", "root=carol", "--add", `root=${dave}`];
    const prepared = await run(["root", "prepare", file, ...change, ...here]);
    assert.deepEqual(prepared.json["complete"], false);
    assert.match(prepared.lines.join("\n"), /root adds dave .*\n.*root removes carol /);
    const refused = async (): Promise<void> => {
      await assert.rejects(run(["root", "publish", file, ...here]), { code: "SIGNATURES_MISSING" });
      assert.equal(await sites.look(), "1");
    };
    await refused();
    const copies = {
      bob: await team.sign(file, "bob"),
      carol: await team.sign(file, "carol"),
      dave: await team.sign(file, "dave"),
    };
    const needs = async (): Promise<unknown> => {
      const { json } = await run(["root", "show", file]);
      assert.ok(Array.isArray(json["needs"]));
      return json["needs"].map(({ version, missing }) => [version, missing]);
    };
    // Two of the new ones, and one of the old ones.
    await run(["root", "merge", file, copies.dave]);
    assert.deepEqual(await needs(), [
      [1, 2],
      [2, 1],
    ]);
    await refused();
    await run(["root", "merge", file, copies.bob]);
    assert.deepEqual(await needs(), [
      [1, 1],
      [2, 0],
    ]);
    await refused();
    await run(["root", "merge", file, copies.carol]);
    assert.deepEqual(await needs(), [
      [1, 0],
      [2, 0],
    ]);
    assert.deepEqual((await run(["root", "show", file])).json["complete"], true);
    const published = await run(["root", "publish", file, ...here]);
    assert.deepEqual(published.json, { version: 2, signed: [] });
    assert.equal(await sites.look(), "1");
    await team.publish("2");
    assert.equal(await sites.look(), "2");
    assert.equal(await (await sidecar(repository)).look(), "2");
    assert.equal((await edgesync(["verify", repository])).status, 0);
    // Once more, by somebody who does not know.
    assert.deepEqual((await run(["root", "publish", file, ...here])).json["version"], 2);
  });

  test("also replaces the keys of other roles, and sites are refused at no moment", async () => {
    await using team = await openTeam();
    const { folder, repository, here } = team;
    await using sites = await openSites(repository, join(folder, "oracle"));
    const file = join(folder, "root.2.json");
    const roles = ["targets", "snapshot", "timestamp"];
    const rotate = roles.flatMap((role) => ["--rotate", role]);
    await run(["root", "prepare", file, ...rotate, "--threshold", "root=3", ...here]);
    for (const name of ["carol", "alice", "bob"])
      await run(["root", "merge", file, await team.sign(file, name)]);
    assert.equal(await sites.look(), "1");
    const { json } = await run(["root", "publish", file, ...here]);
    assert.deepEqual(json, { version: 2, signed: roles });
    assert.equal(await sites.look(), "1");
    await team.publish("2");
    assert.equal(await sites.look(), "2");
    // The next one needs all three.
    const next = join(folder, "root.3.json");
    await run(["root", "prepare", next, ...here]);
    assert.match((await run(["root", "show", next])).lines.join("\n"), /only the expiry/);
    await run([
      "root",
      "merge",
      next,
      await team.sign(next, "alice"),
      await team.sign(next, "bob"),
    ]);
    await assert.rejects(run(["root", "publish", next, ...here]), { code: "SIGNATURES_MISSING" });
    await run(["root", "merge", next, await team.sign(next, "carol")]);
    await run(["root", "publish", next, ...here]);
    assert.equal(await sites.look(), "2");
    assert.deepEqual((await run(["root", "show", "--repository", repository])).json["version"], 3);
  });

  test("replaces a key that is lost, with the signatures of the others", async () => {
    await using team = await openTeam();
    const { folder, repository, here } = team;
    const old = await sidecar(repository);
    assert.equal(await old.look(), "1");
    const [erin, file] = [await team.hire("erin"), join(folder, "root.2.json")];
    await run([
      "root",
      "prepare",
      file,
      "--remove",
      "root=alice",
      "--add",
      `root=${erin}`,
      ...here,
    ]);
    for (const name of ["carol", "bob"])
      await run(["root", "merge", file, await team.sign(file, name)]);
    await run(["root", "publish", file, ...here]);
    await team.publish("2");
    assert.equal(await old.look(), "2");
    const { json } = await run(["key", "list", ...here]);
    assert.ok(Array.isArray(json["keys"]));
    const holders = json["keys"].filter(({ role }) => role === "root").map(({ name }) => name);
    assert.deepEqual(holders, ["bob", "carol", "erin"]);
  });

  test("takes no signature but those that it needs", async () => {
    await using team = await openTeam();
    const { folder, here } = team;
    const file = join(folder, "root.2.json");
    await run(["root", "prepare", file, ...here]);
    await assert.rejects(run(["root", "prepare", file, ...here]), { code: "USAGE" });
    await team.hire("mallory");
    await assert.rejects(run(["root", "sign", file, "--keys", join(folder, "mallory")]), {
      code: "KEY_INVALID",
    });
    const good = await team.sign(file, "alice");
    const text = await readFile(good, "utf8");
    const broken = join(folder, "broken.json");
    // Another root with a good signature of something else, and the same root with a signature that is none.
    await writeFile(broken, text.replaceAll('"threshold": 2', '"threshold": 1'));
    await assert.rejects(run(["root", "merge", file, broken]), { code: "METADATA_UNTRUSTED" });
    const json = JSON.parse(text);
    json.next.signatures[0].sig = "00".repeat(64);
    await writeFile(broken, JSON.stringify(json));
    await assert.rejects(run(["root", "merge", file, broken]), { code: "METADATA_UNTRUSTED" });
    await writeFile(broken, "{}");
    await assert.rejects(run(["root", "merge", file, broken]), { code: "METADATA_INVALID" });
    assert.match((await run(["root", "show", file])).lines.join("\n"), /signed by {2}nobody/);
  });

  test("is signed with an encrypted key by whoever knows its passphrase", async () => {
    await using team = await openTeam();
    const { folder, here } = team;
    const file = join(folder, "root.2.json");
    const keys = join(folder, "erin");
    await run(["key", "create", "erin", "--keys", keys], { passphrase: "open sesame" });
    await run(["root", "prepare", file, "--add", `root=${join(keys, "erin.pub")}`, ...here]);
    const sign = ["root", "sign", file, "--keys", keys];
    for (const passphrase of [{}, { passphrase: "wrong" }])
      await assert.rejects(run(sign, passphrase), { code: "KEY_INVALID", message: /passphrase/ });
    const out = join(folder, "signed.json");
    const signed = await run([...sign, "--out", out], { passphrase: "open sesame" });
    assert.match(signed.lines.join("\n"), /signed by {2}erin \(/);
    assert.match((await run(["root", "show", file])).lines.join("\n"), /signed by {2}nobody/);
    await run(["root", "merge", file, out]);
    assert.match((await run(["root", "show", file])).lines.join("\n"), /signed by {2}erin \(/);
  });

  test("is refused when another root was published meanwhile", async () => {
    await using team = await openTeam();
    const { folder, here } = team;
    const files = [join(folder, "one.json"), join(folder, "two.json")];
    const changes = [
      ["--threshold", "root=3"],
      ["--rotate", "timestamp"],
    ];
    for (const [index, file] of files.entries()) {
      await run(["root", "prepare", file, ...(changes[index] ?? []), ...here]);
      for (const name of ["alice", "bob", "carol"])
        await run(["root", "merge", file, await team.sign(file, name)]);
    }
    await run(["root", "publish", files[0] ?? "", ...here]);
    await assert.rejects(run(["root", "publish", files[1] ?? "", ...here]), { code: "USAGE" });
  });

  test("can be undone by nobody who could not sign it any more", async () => {
    await using team = await openTeam();
    const { folder, here } = team;
    const file = join(folder, "root.2.json");
    const prepare = (...change: readonly string[]): Promise<unknown> =>
      run(["root", "prepare", file, ...change, ...here]);
    await assert.rejects(prepare("--threshold", "root=4"), { code: "USAGE" });
    await assert.rejects(prepare("--threshold", "root=0"), { code: "USAGE" });
    await assert.rejects(prepare("--remove", "timestamp=timestamp"), { code: "USAGE" });
    await assert.rejects(prepare("--remove", "root=nobody"), { code: "USAGE" });
    await assert.rejects(prepare("--rotate", "root"), { code: "USAGE" });
    await assert.rejects(prepare("--rotate", "app.web"), { code: "USAGE" });
    await assert.rejects(prepare("--add", "root"), { code: "USAGE" });
    await assert.rejects(prepare("--add", `root=${join(folder, "nowhere.pub")}`), {
      code: "KEY_INVALID",
    });
  });
});

describe("the first root", () => {
  test("is published once enough of its holders have signed it", async () => {
    await using folder = await temporaryFolder();
    const at = (...names: string[]): string => join(folder.path, ...names);
    const file = at("root.1.json");
    for (const name of ["alice", "bob"])
      await run(["key", "create", name, "--keys", at(name), "--type", "ecdsa"]);
    const keys = ["alice", "bob"].flatMap((name) => ["--key", `root=${at(name, `${name}.pub`)}`]);
    const init = ["init", at("repository"), "--keys", at("keys"), "--out", file, ...keys];
    await run([...init, "--threshold", "root=2"]);
    const here = ["--repository", at("repository"), "--keys", at("keys")];
    await assert.rejects(run([...init, "--threshold", "root=2"]), { code: "USAGE" });
    await assert.rejects(run(["release", "list", "web", ...here.slice(0, 2)]), {
      code: "REPOSITORY_INVALID",
    });
    await run(["root", "sign", file, "--keys", at("bob")]);
    await assert.rejects(run(["root", "publish", file, ...here]), { code: "SIGNATURES_MISSING" });
    await run(["root", "sign", file, "--keys", at("alice")]);
    await run(["root", "publish", file, ...here]);
    assert.equal((await edgesync(["verify", at("repository")])).status, 0);
    await run(["root", "publish", file, ...here]);
    assert.deepEqual(
      Object(await run(["root", "show", at("repository/metadata/1.root.json")])).json.version,
      1,
    );
  });

  test("is not written when a role could never be signed", async () => {
    await using folder = await temporaryFolder();
    const init = ["init", join(folder.path, "repository"), "--keys", join(folder.path, "keys")];
    await assert.rejects(run([...init, "--threshold", "timestamp=2"]), { code: "USAGE" });
    await assert.rejects(run([...init, "--key", "app.web=x"]), { code: "USAGE" });
  });
});

describe("edgesync root show", () => {
  test("tells thresholds, keys and expiry, for people and for programs", async () => {
    await using publisher = await makePublisher();
    const { lines, json } = await run(["root", "show", "--repository", publisher.repository]);
    assert.match(lines[0] ?? "", /^root {7}version 1, expires \d{4}-/);
    assert.match(lines[1] ?? "", /^root {7}1 of 1: root \([0-9a-f]{12}\)$/);
    assert.match(lines.at(-1) ?? "", /^signed by {2}root \(/);
    assert.deepEqual(Object.keys(Object(json["roles"])), [
      "root",
      "targets",
      "snapshot",
      "timestamp",
    ]);
  });

  test("shows nothing of a file that could change the terminal", async () => {
    await using publisher = await makePublisher();
    const { repository, folder } = publisher;
    const json = JSON.parse(await readFile(join(repository, "metadata", "1.root.json"), "utf8"));
    for (const key of Object.values<Record<string, string>>(json.signed.keys))
      key["x-edgesync-name"] = "\u001b[2Jalice\u202e";
    await writeFile(join(folder, "shown.json"), JSON.stringify(json));
    const { lines } = await run(["root", "show", join(folder, "shown.json")]);
    assert.match(lines.join("\n"), /\?\?2Jalice\?/);
    assert.doesNotMatch(lines.join(""), /[^ -~]/);
  });
});

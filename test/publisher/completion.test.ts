import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { promisify } from "node:util";
import { SHELLS } from "../../publisher/completion.ts";
import type { ShellName } from "../../publisher/completion.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { edgesync } from "./world.ts";

const run = promisify(execFile);

/** What zsh's own functions are given, in place of what they would draw. */
const ZSH_STUBS = `compdef() { :; }
_describe() { local -a list; list=("\${(@P)2}"); print -l -- \${list%%:*}; }
_arguments() {
  local spec inner
  for spec; do
    case $spec in
      '*:file:_files') print FILES ;;
      1:*) inner=\${spec##*\\(}; print -l -- \${=inner%\\)} ;;
      *) inner=\${spec#\\*}; print -r -- \${inner%%\\[*} ;;
    esac
  done
}
`;

/** How each shell is asked what it would offer for a line that ends where the cursor is. */
const ASK: Readonly<Record<ShellName, (script: string, line: string) => readonly string[]>> = {
  bash: (script, line) => [
    "--norc",
    "-c",
    // compopt works only within a completion; here it tells that files are offered.
    `compopt() { echo FILES; }; source ${script}; IFS=' ' read -ra COMP_WORDS <<< ${JSON.stringify(line)}; [[ ${JSON.stringify(line)} == *' ' ]] && COMP_WORDS+=(""); COMP_CWORD=$(( \${#COMP_WORDS[@]} - 1 )); _edgesync; printf '%s\\n' "\${COMPREPLY[@]}"`,
  ],
  zsh: (script, line) => [
    "-f",
    "-c",
    `${ZSH_STUBS}source ${script}; words=(${line
      .split(" ")
      .map((word) => JSON.stringify(word))
      .join(" ")}); CURRENT=$#words; _edgesync`,
  ],
  fish: (script, line) => [
    "--no-config",
    "-c",
    `source ${script}; complete -C ${JSON.stringify(line)}`,
  ],
};

async function isInstalled(shell: ShellName): Promise<boolean> {
  return await run(shell, ["-c", "true"]).then(
    () => true,
    () => false,
  );
}

describe("completion", async () => {
  for (const shell of SHELLS) {
    if (shell !== "bash" && !(await isInstalled(shell))) continue;
    test(`offers every command and option in ${shell}`, async () => {
      await using folder = await temporaryFolder();
      const script = join(folder.path, "completion");
      const { stdout: printed } = await edgesync(["completion", shell]);
      await writeFile(script, printed);
      const offered = async (line: string): Promise<readonly string[]> => {
        const { stdout, stderr } = await run(shell, [...ASK[shell](script, line)], {
          cwd: folder.path,
        });
        assert.equal(stderr, "", line);
        return stdout.split("\n").map((item) => item.split("\t")[0]?.trim() ?? "");
      };
      const first = await offered("edgesync ");
      for (const word of ["init", "release", "channel", "gc", "sync", "completion"])
        assert.ok(first.includes(word), `${word} in ${first.join(" ")}`);
      const second = await offered("edgesync release ");
      for (const word of ["add", "list", "show", "diff", "remove"])
        assert.ok(second.includes(word));
      const flags = await offered("edgesync gc --");
      for (const flag of ["--dry-run", "--grace", "--json"]) assert.ok(flags.includes(flag), flag);
      const options = await offered("edgesync channel rollout --");
      for (const name of ["--start", "--percent", "--platform"]) assert.ok(options.includes(name));
      const shells = await offered("edgesync completion ");
      for (const name of SHELLS) assert.ok(shells.includes(name), shells.join(" "));
      const orders = await offered("edgesync update ");
      for (const word of ["hold", "release", "retry", "look"]) assert.ok(orders.includes(word));
      const waits = await offered("edgesync status --");
      for (const name of ["--wait", "--config"]) assert.ok(waits.includes(name), waits.join(" "));
      for (const word of ["inject", "explain"]) assert.ok(first.includes(word), word);
      const injects = await offered("edgesync inject --");
      for (const name of ["--filename", "--config", "--namespace", "--image", "--kubelet"])
        assert.ok(injects.includes(name), injects.join(" "));
      assert.ok(!injects.includes("--json"));
      assert.ok((await offered("edgesync explain --")).includes("--json"));
      const files = await offered("edgesync verify ");
      assert.ok(files.includes(shell === "fish" ? "completion" : "FILES"), files.join(" "));
    });
  }

  test("names the shells when asked for another one", async () => {
    const other = await edgesync(["completion", "tcsh"]);
    assert.equal(other.status, 64);
    assert.match(other.stderr, /bash, zsh, fish/);
  });
});

/** What `npm run test:e2e` is told by its environment. */

export interface Settings {
  /** The image under test; every pod of the test runs it. */
  readonly image: string;
  /** Image of the applications under test: anything with `node`. */
  readonly workloadImage: string;
  /** A Vault or OpenBao elsewhere; without one the development Vault runs in a pod. */
  readonly vault: Vault | undefined;
  /** Every limit of time is multiplied by it. */
  readonly timeFactor: number;
  /** Leave everything in the cluster at the end. */
  readonly keep: boolean;
}

export interface Vault {
  readonly address: string;
  readonly token: string;
  /** Path of a PEM file. */
  readonly caFile: string | undefined;
  readonly engine: "rabbitmq" | "pki" | undefined;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** The settings, or what is wrong with the environment, all of it. */
export function readSettings(
  env: Environment,
): Settings | { readonly problems: readonly string[] } {
  const problems: string[] = [];
  const given = (...names: readonly string[]): string | undefined =>
    names.map((name) => env[name]).find((value) => value !== undefined && value !== "");
  const need = (name: string, what: string): string => {
    const value = given(name);
    if (value === undefined) problems.push(`${name} must be ${what}`);
    return value ?? "";
  };
  need("KUBECONFIG", "the path of a kubeconfig whose user may do everything in the cluster");
  const image = need("EDGESYNC_IMAGE", "the image under test, as the cluster's nodes know it");
  const factor = Number(given("E2E_TIMEOUT_FACTOR") ?? "1");
  if (!(factor > 0 && factor <= 100))
    problems.push("E2E_TIMEOUT_FACTOR must be a number above 0 and at most 100");
  const vault = readVault(given, problems);
  if (problems.length > 0) return { problems };
  return {
    image,
    workloadImage: given("E2E_WORKLOAD_IMAGE") ?? image,
    vault,
    timeFactor: factor,
    keep: !["0", "false", undefined].includes(given("E2E_KEEP")),
  };
}

function readVault(
  given: (...names: readonly string[]) => string | undefined,
  problems: string[],
): Vault | undefined {
  const address = given("E2E_VAULT_ADDR", "VAULT_ADDR", "BAO_ADDR");
  if (address === undefined) return undefined;
  if (!/^https?:\/\//.test(address) || !URL.canParse(address))
    problems.push("E2E_VAULT_ADDR must be an http:// or https:// address");
  const token = given("E2E_VAULT_TOKEN", "VAULT_TOKEN", "BAO_TOKEN");
  if (token === undefined)
    problems.push("E2E_VAULT_TOKEN must be a token that may do everything in that Vault");
  const engine = given("E2E_VAULT_ENGINE");
  if (engine !== undefined && engine !== "rabbitmq" && engine !== "pki")
    problems.push("E2E_VAULT_ENGINE must be rabbitmq or pki");
  return {
    address,
    token: token ?? "",
    caFile: given("E2E_VAULT_CACERT", "VAULT_CACERT", "BAO_CACERT"),
    engine: engine === "rabbitmq" || engine === "pki" ? engine : undefined,
  };
}

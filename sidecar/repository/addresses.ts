/** From the addresses in the settings to the one repository that they are of. */
import { parseOci } from "#core/addresses.ts";
import type { Settings } from "#core/settings.ts";
import type { Log } from "#core/telemetry.ts";
import { openCredentials } from "./credentials.ts";
import type { Disk } from "../disk/durable.ts";
import { openMirrors } from "./mirrors.ts";
import type { OriginDeps } from "./origin.ts";
import { openOciRepository } from "./oci.ts";
import { openRepository } from "./repository.ts";
import type { Repository, RepositoryDeps } from "./repository.ts";

interface AddressDeps extends OriginDeps {
  readonly log: Log;
  readonly disk: Disk;
}

/** @param addresses in the order in which they are tried */
export function openAddresses(
  { repositoryCredentialsDir }: Settings,
  addresses: readonly string[],
  deps: AddressDeps,
): Repository {
  const login =
    repositoryCredentialsDir === undefined
      ? {}
      : { credentials: openCredentials(repositoryCredentialsDir, deps.disk) };
  return openMirrors(
    [...new Set(addresses)].map((address) => ({
      address,
      repository: openAddress(address, { ...deps, ...login }),
    })),
    deps,
  );
}

function openAddress(address: string, deps: RepositoryDeps): Repository {
  const oci = parseOci(address);
  return oci === undefined ? openRepository(address, deps) : openOciRepository(oci, deps);
}

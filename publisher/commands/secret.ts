/** Commands for secrets that travel sealed in a release. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import type { Command } from "../command.ts";
import { diskError } from "../files.ts";
import { writeKey } from "../keys.ts";
import { newSiteKey, readSiteKey, sealFields } from "../sealing.ts";
import { countOf, usage } from "./shared.ts";

const NAME = /^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$/;

const keygen: Command = {
  name: "secret keygen",
  summary:
    "Makes the key pair of a site: what is sealed to its public key only that site can read.",
  example: "edgesync secret keygen store-17",
  notes:
    "The private key is for a Secret of the site, as its key `key`, which edgesync.dev/sealed-key names; the public key is given to whoever publishes.",
  positionals: ["<name>"],
  options: { folder: "where the two files are made; the working folder when not given" },
  async run(args) {
    const [name = ""] = args.positionals;
    if (!NAME.test(name))
      throw usage(`${JSON.stringify(name)} is not a name of letters, digits and . _ @ + -`);
    const folder = args.optional("folder") ?? ".";
    const [own, open] = [join(folder, `${name}.jwk`), join(folder, `${name}.pub.jwk`)];
    const pair = newSiteKey();
    await writeKey(own, pair.own, 0o600);
    await writeKey(open, pair.open, 0o644);
    return {
      lines: [`private  ${own}`, `public   ${open}`, `key id   ${pair.id}`],
      json: { id: pair.id, private: own, public: open },
    };
  },
};

const seal: Command = {
  name: "secret seal",
  summary: "Seals the fields of a secret to the keys of sites, as a file for a release.",
  example: "edgesync secret seal --key store-17.pub.jwk --in db.json -o payload/secrets/db.jwe",
  notes:
    "Pods name the file by its path in the release: edgesync.dev/secret.db: sealed:secrets/db.jwe. The file given by --in holds the secret in plain text: keep it out of the release.",
  positionals: [],
  options: {
    in: "JSON file, an object of the secret's fields",
    output: "the sealed file, replaced when it exists; also -o",
  },
  lists: { key: "public key of a site, a JWK or PEM: EC, X25519, or RSA of 2048 bits or more" },
  async run(args) {
    const [source, output] = [args.required("in"), args.required("output")];
    const paths = args.all("key");
    if (paths.length === 0) throw usage("secret seal needs --key");
    const keys = await Promise.all(paths.map((path) => readSiteKey(path)));
    const fields = await readFile(source).catch((cause: unknown) => {
      throw new EdgeSyncError("SECRET_INVALID", `${source} cannot be read`, { cause });
    });
    const sealed = await sealFields(fields, keys);
    await writeFile(output, sealed).catch((error: unknown) => {
      throw diskError(error, output);
    });
    return {
      lines: [`${output} is sealed to ${countOf(keys.length, "key")}`],
      json: { file: output, keys: keys.map(({ id }) => id) },
    };
  },
};

export const secretCommands: readonly Command[] = [keygen, seal];

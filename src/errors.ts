/**
 * Every way in which edgesync can refuse or fail, once.
 *
 * A code is for machines: log field, metric label, exit status, and the word that tests assert. The sentence here says what
 * the code means and what to do; it becomes `docs/errors.md`. The message of one error says what happened this time.
 */

interface ErrorSpec {
  /** One sentence: what it means. */
  readonly means: string;
  /** One sentence: what a person does about it. */
  readonly remedy: string;
  /** Exit status of a command that ends with it, after BSD sysexits. */
  readonly exit: 64 | 65 | 66 | 69 | 70 | 71 | 73 | 74 | 75 | 77 | 78;
}

export const ERRORS = {
  USAGE: {
    means: "The command line is not one that edgesync knows.",
    remedy: "Read the message, or run the command with --help.",
    exit: 64,
  },
  CONFIG_INVALID: {
    means: "A setting of a program is missing or has a value that is not allowed.",
    remedy: "Set the variable or key that the message names to what it says is allowed.",
    exit: 78,
  },
  ANNOTATION_INVALID: {
    means: "A pod's annotations are not what the contract allows.",
    remedy: "Correct each annotation that the message names; docs/annotations.md lists them all.",
    exit: 65,
  },
  INJECTION_CONFLICT: {
    means: "A field of the pod is in the way of the injection.",
    remedy: "Change the field that the message names.",
    exit: 65,
  },
  OBJECT_INVALID: {
    means:
      "A file holds no Kubernetes object in YAML or JSON, or one that is not in the form that it should have.",
    remedy: "Correct the field or line that the message names.",
    exit: 65,
  },
  REVIEW_INVALID: {
    means: "The body is not an admission.k8s.io/v1 AdmissionReview of a pod.",
    remedy: "Check that the webhook configuration sends v1 reviews of pods only.",
    exit: 65,
  },
  INTERNAL: {
    means: "edgesync met a state that it did not expect.",
    remedy: "Report it with the log line; nothing was changed.",
    exit: 70,
  },
  METADATA_INVALID: {
    means: "A metadata file of the repository is not in the form that TUF prescribes.",
    remedy: "Run `edgesync verify` on the repository and publish again.",
    exit: 65,
  },
  METADATA_UNTRUSTED: {
    means:
      "Metadata is not signed by enough of the keys that its delegator names, or goes back in version.",
    remedy:
      "Check that the trust root belongs to this repository; if it does, treat it as an attack.",
    exit: 77,
  },
  METADATA_EXPIRED: {
    means: "Metadata is past its signed expiry, so nothing new is adopted; what runs goes on.",
    remedy: "Publish again (which signs anew), or correct the clock of the site.",
    exit: 75,
  },
  RELEASE_INVALID: {
    means: "A release manifest or channel document is not in the form that edgesync knows.",
    remedy: "Publish the release again with the current edgesync, or update the sidecar.",
    exit: 65,
  },
  RELEASE_ROLLBACK: {
    means: "The channel's sequence number is lower than one this site has already seen.",
    remedy:
      "Set the channel again, so that its sequence grows; if nobody lowered it, treat it as an attack.",
    exit: 77,
  },
  RELEASE_DOWNGRADE: {
    means:
      "The channel points to a release that is older than the site's, and does not say that sites may go back.",
    remedy: "If it is meant, say so with `edgesync channel downgrade`.",
    exit: 77,
  },
  RELEASE_NOT_FOUND: {
    means: "The channel, or its release for this platform, does not exist.",
    remedy:
      "Check the channel's name and `edgesync channel set`, and that the release was added for this platform.",
    exit: 66,
  },
  RELEASE_IN_USE: {
    means: "A channel names the release, so it is not removed.",
    remedy: "Point the channel at another release first, or end its roll-out.",
    exit: 65,
  },
  TREE_INVALID: {
    means: "A folder holds something that a release cannot carry.",
    remedy: "Remove or change the path that the message names.",
    exit: 65,
  },
  DIGEST_MISMATCH: {
    means: "Bytes do not have the signed digest or size.",
    remedy: "Nothing of them was used; if a retry does not help, publish the release again.",
    exit: 65,
  },
  DELTA_INVALID: {
    means: "A delta is not in the form that its codec prescribes, or does not fit the old file.",
    remedy: "The full file is fetched if the fallback policy allows; publish the release again.",
    exit: 65,
  },
  DOWNLOAD_WAITS: {
    means: "Files of the installed release are damaged, and nothing may be fetched now.",
    remedy:
      "Nothing: they are fetched when a download-window opens, or on the next day of the budget.",
    exit: 75,
  },
  FALLBACK_REFUSED: {
    means:
      "Only a full download would do, and the policy full-fallback does not allow one of this size.",
    remedy: "Publish a delta from the installed release, or widen full-fallback.",
    exit: 75,
  },
  ORIGIN_UNAVAILABLE: {
    means: "The repository does not answer, or answers with an error that may pass.",
    remedy: "Nothing to do: it is tried again with growing pauses.",
    exit: 69,
  },
  ORIGIN_REFUSED: {
    means: "The repository answers with an error that a retry does not cure.",
    remedy: "Check the address and the credentials of the repository.",
    exit: 69,
  },
  RESPONSE_TOO_LARGE: {
    means: "A response is longer than its signed size or than the limit for its kind.",
    remedy: "Nothing of it was used; check the repository, or treat it as an attack.",
    exit: 65,
  },
  DISK_FULL: {
    means: "A volume has no room for the release, or for the secrets; the old ones stay.",
    remedy: "Make the volume larger, or free space on it; it is tried again by itself.",
    exit: 73,
  },
  AGENT_RUNNING: {
    means: "Another agent has the payload folder; this one has touched nothing.",
    remedy: "End one of the two, or give each a payload-dir of its own.",
    exit: 75,
  },
  DISK_FAILED: {
    means: "A volume's file system reported an error; the old release, or the old secrets, stay.",
    remedy: "Check the node's disk and the owner of the volume; it is tried again by itself.",
    exit: 74,
  },
  JOURNAL_INVALID: {
    means: "The journal on the payload volume cannot be read.",
    remedy: "Nothing was deleted; the message names the file, move it away to begin anew.",
    exit: 65,
  },
  LEASE_LOST: {
    means: "A pod does not lead its shared payload volume any more, so it changes nothing there.",
    remedy: "Nothing to do: another pod leads, or this one takes the lead again.",
    exit: 75,
  },
  REPOSITORY_UNSAFE: {
    means: "A folder that is to be served holds a private key.",
    remedy: "Move the key out of the repository and rotate it if the folder was ever served.",
    exit: 77,
  },
  REPOSITORY_INVALID: {
    means: "A folder is not an edgesync repository, or its parts do not fit together.",
    remedy: "Run `edgesync init` first, or repair what the message names.",
    exit: 66,
  },
  REPOSITORY_FULL: {
    means: "A role would soon be larger than sites read, so nothing is added to it.",
    remedy: "Do what the message says; nothing was changed.",
    exit: 73,
  },
  REPOSITORY_LOCKED: {
    means: "Another publisher is at work on this repository.",
    remedy: "Wait for it to end; the message names the process and the lock file.",
    exit: 75,
  },
  BUNDLE_INVALID: {
    means: "An offline bundle is damaged, or is not one.",
    remedy: "Export it again and copy it anew; until then the site goes on with what it has.",
    exit: 65,
  },
  KEY_INVALID: {
    means:
      "A private key is missing, encrypted with another passphrase, or not the one that the role names.",
    remedy: "Check the keys folder and EDGESYNC_PASSPHRASE.",
    exit: 77,
  },
  SIGNER_FAILED: {
    means:
      "A command that signs elsewhere cannot be run, takes too long, or answers with what is no signature of its key.",
    remedy: "Run the command by hand; docs/publishing.md says what it is given and must answer.",
    exit: 69,
  },
  SIGNATURES_MISSING: {
    means: "Not enough of those whose signatures a root needs have signed it.",
    remedy: "`edgesync root show` says who has signed and who is missing.",
    exit: 75,
  },
  AGENT_UNAVAILABLE: {
    means: "No sidecar or agent answers on the control port of this pod or machine.",
    remedy:
      "In a pod, run the command in the sidecar's container; on a machine, see that the agent runs, and name its configuration with --config.",
    exit: 69,
  },
  ORDER_REFUSED: {
    means: "The sidecar or agent answers, and does not do now what it is asked.",
    remedy: "Do what the message says.",
    exit: 75,
  },
  NOTHING_TO_DO: {
    means: "What a command was to end, or to have tried again, is not there.",
    remedy: "`edgesync status` shows what is.",
    exit: 66,
  },
  GATE_CLOSED: {
    means: "The start gate has not opened in the time that was given with --timeout.",
    remedy: "The message says what is missing; `edgesync status` says the rest.",
    exit: 75,
  },
  VAULT_UNAVAILABLE: {
    means: "Vault does not answer, is sealed or standby, or answers with an error that may pass.",
    remedy: "Nothing to do: it is tried again with growing pauses; secrets stay as they are.",
    exit: 69,
  },
  VAULT_DENIED: {
    means: "Vault refuses the login, or the policy does not allow the path (403).",
    remedy:
      "Check the role, what it binds (service account, audience, certificate, secret_id), and the policy for the path; the message says where a token or certificate has ended.",
    exit: 77,
  },
  SECRET_INVALID: {
    means: "The secret does not exist, or has no such field; or a wrapped secret_id is spent.",
    remedy:
      "Check the path and the field that secret.<name> and format.<name> state, or deliver another secret_id.",
    exit: 66,
  },
  TEMPLATE_INVALID: {
    means: "A template is not written as edgesync's templates are, or uses what they do not have.",
    remedy:
      "Correct it at the line and column that the message names; docs/templates.md says what there is.",
    exit: 65,
  },
  TEMPLATE_FAILED: {
    means: "A template cannot be rendered from the secrets that it got.",
    remedy:
      "Look at the line and column that the message names: most often a field does not exist, or is of another type than a function takes.",
    exit: 65,
  },
  SECRET_STORAGE_UNSAFE: {
    means: "The folder for secrets is not in memory (tmpfs), so nothing is written there.",
    remedy:
      "In a pod, mount an emptyDir with medium Memory, as the webhook does; else name a folder of a tmpfs, such as /run/edgesync/secrets.",
    exit: 78,
  },
  SECRET_STORAGE_SWAPS: {
    means:
      "The folder for secrets may be swapped to a disk, and require: noswap is set, so nothing is written there.",
    remedy:
      "Use a node with Linux 6.4 or later and a kubelet that mounts memory volumes with noswap (a daemon: a tmpfs with noswap), or turn swap off (swapoff -a).",
    exit: 78,
  },
  TLS_UNTRUSTED: {
    means:
      "The other side's certificate is not signed by the configured CA, names another host, or is out of its time.",
    remedy:
      "Check the CA bundle and the address; where it has expired or is not valid yet, renew it or correct the node's clock.",
    exit: 77,
  },
} as const satisfies Record<string, ErrorSpec>;

export type ErrorCode = keyof typeof ERRORS;

/** The one error class. `cause` is always set when there was one. */
export class EdgeSyncError extends Error {
  override readonly name = "EdgeSyncError";
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The code of anything thrown; what is not ours is `INTERNAL`. */
export function codeOf(error: unknown): ErrorCode {
  return error instanceof EdgeSyncError ? error.code : "INTERNAL";
}

/** For the `default` of a switch that must be exhaustive: adding a case without handling it does not compile. */
export function unreachable(value: never): never {
  throw new EdgeSyncError("INTERNAL", `unexpected value ${JSON.stringify(value)}`);
}

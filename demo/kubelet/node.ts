/** The machine that the demo's kubelet runs pods on: folders for its volumes, images as commands, and what the API server would give it. */

export interface Image {
  readonly entryPoint: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

export interface Node {
  readonly name: string;
  /** Folder on disk for volumes and logs. */
  readonly disk: string;
  /** Folder in memory (tmpfs) for volumes of medium Memory. */
  readonly memory: string;
  /** The entry point and environment of images; one that is not here has neither. */
  readonly images: ReadonlyMap<string, Image>;
  /** ConfigMaps of the pod's namespace: file name to content. */
  readonly configMaps: ReadonlyMap<string, Readonly<Record<string, string>>>;
  /** A service-account token, as the API server's TokenRequest answers. */
  token(audience: string | undefined, expirationSeconds: number): Promise<string>;
  /** The pause before a container that ended is started again: first, then doubled up to the cap, as the kubelet does. */
  readonly backOff: { readonly initialMs: number; readonly maxMs: number };
  /** Told of what a person would see in `kubectl describe pod`. */
  readonly onEvent: (event: PodEvent) => void;
}

export interface PodEvent {
  readonly reason:
    "Started" | "Exited" | "Unhealthy" | "Killing" | "BackOff" | "Ready" | "NotReady";
  readonly container: string;
  readonly message: string;
}

/** The API server, as the kubeconfig says how to reach it: plain requests, objects of any kind by their path, and pods through its proxy. */
import { request as plainRequest } from "node:http";
import { request as tlsRequest } from "node:https";
import type { RequestOptions } from "node:https";
import { text } from "node:stream/consumers";
import { KubeConfig } from "@kubernetes/client-node";

/** Of one request, which no claim waits for longer. */
const CALL_MS = 60_000;

/** An object of the API: what every kind has. */
export interface KubeObject {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: {
    readonly name?: string;
    readonly namespace?: string;
    readonly uid?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly [field: string]: unknown;
  };
  readonly [field: string]: unknown;
}

export interface Answer {
  readonly status: number;
  readonly body: string;
}

export interface Call {
  readonly method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  readonly body?: unknown;
  readonly type?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface Api {
  /** Its address, for messages. */
  readonly server: string;
  /** Any request; rejects only when there is no answer. */
  call(path: string, options?: Call): Promise<Answer>;
  /** @throws ApiError for any status from 400 on */
  json<T>(path: string, options?: Call): Promise<T>;
  /** `undefined` for what is not there. */
  find<T>(path: string): Promise<T | undefined>;
  /** Server-side apply, as `kubectl apply --server-side` does. */
  apply(object: KubeObject): Promise<void>;
  /** Begins to delete; nothing for what is not there. */
  remove(path: string): Promise<void>;
  /** The path of an object, found by discovery. */
  pathOf(object: KubeObject): Promise<string>;
  /** Kinds that can be listed, with their paths. */
  kinds(): Promise<readonly Kind[]>;
  /** A request to a port of a pod, through the API server. */
  pod(namespace: string, name: string, port: number, path: string, call?: Call): Promise<Answer>;
}

export interface Kind {
  readonly kind: string;
  readonly namespaced: boolean;
  /** Of the list of all. */
  readonly path: string;
  readonly prefix: string;
  readonly plural: string;
}

export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

interface ResourceList {
  readonly resources: readonly {
    readonly name: string;
    readonly kind: string;
    readonly namespaced: boolean;
    readonly verbs: readonly string[];
  }[];
}

/** @throws Error when the kubeconfig names no cluster */
export function openApi(signal: AbortSignal): Api {
  const config = new KubeConfig();
  config.loadFromDefault();
  const server = config.getCurrentCluster()?.server;
  if (server === undefined) throw new Error("the kubeconfig names no cluster");
  const base = server.endsWith("/") ? server : `${server}/`;

  const call = async (path: string, options: Call = {}): Promise<Answer> => {
    const { method = "GET", body, type = "application/json" } = options;
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(CALL_MS)]);
    const headers: Record<string, string> = {
      ...(body !== undefined && { "content-type": type }),
      accept: "application/json, */*",
      ...options.headers,
    };
    // It adds to the headers how the user is told.
    const http: RequestOptions & { headers: Record<string, string> } = {
      method,
      signal: bounded,
      headers,
    };
    await config.applyToHTTPSOptions(http);
    const url = new URL(path.replace(/^\//, ""), base);
    return await new Promise((resolve, reject) => {
      const outgoing = (url.protocol === "http:" ? plainRequest : tlsRequest)(url, http);
      outgoing.once("error", reject);
      outgoing.once("response", (answer) => {
        text(answer).then(
          (said) => resolve({ status: answer.statusCode ?? 0, body: said }),
          reject,
        );
      });
      outgoing.end(body === undefined ? undefined : JSON.stringify(body));
    });
  };
  const json = async <T>(path: string, options?: Call): Promise<T> => {
    const { status, body } = await call(path, options);
    if (status >= 400) throw new ApiError(status, reasonIn(status, body));
    return JSON.parse(body) as T;
  };
  const lists = new Map<string, Promise<ResourceList>>();
  const resources = (prefix: string): Promise<ResourceList> => {
    const known = lists.get(prefix) ?? json<ResourceList>(prefix);
    lists.set(prefix, known);
    return known;
  };
  const pathOf = async ({ apiVersion = "", kind = "", metadata }: KubeObject): Promise<string> => {
    const prefix = apiVersion.includes("/") ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
    const found = (await resources(prefix)).resources.find(
      (one) => one.kind === kind && !one.name.includes("/"),
    );
    if (found === undefined) throw new Error(`the cluster has no ${apiVersion} ${kind}`);
    const space = found.namespaced ? `/namespaces/${metadata.namespace ?? "default"}` : "";
    return `${prefix}${space}/${found.name}/${metadata.name ?? ""}`;
  };
  return {
    server,
    call,
    json,
    pathOf,
    async find<T>(path: string) {
      const { status, body } = await call(path);
      if (status === 404) return undefined;
      if (status >= 400) throw new ApiError(status, reasonIn(status, body));
      return JSON.parse(body) as T;
    },
    async apply(object) {
      await json(`${await pathOf(object)}?fieldManager=e2e&force=true`, {
        method: "PATCH",
        body: object,
        type: "application/apply-patch+yaml",
      });
    },
    async remove(path) {
      const { status, body } = await call(`${path}?propagationPolicy=Background`, {
        method: "DELETE",
      });
      if (status >= 400 && status !== 404) throw new ApiError(status, reasonIn(status, body));
    },
    async kinds() {
      const core = await json<{ versions: readonly string[] }>("/api");
      const groups = await json<{
        groups: readonly { preferredVersion: { groupVersion: string } }[];
      }>("/apis");
      const prefixes = [
        ...core.versions.map((version) => `/api/${version}`),
        ...groups.groups.map(({ preferredVersion }) => `/apis/${preferredVersion.groupVersion}`),
      ];
      const found = await Promise.all(
        prefixes.map(async (prefix) => {
          // An aggregated API whose server is down has no kinds.
          const { resources: known } = await resources(prefix).catch(() => ({ resources: [] }));
          return known
            .filter(({ name, verbs }) => !name.includes("/") && verbs.includes("list"))
            .map(({ name, kind, namespaced }): Kind => {
              return { kind, namespaced, prefix, plural: name, path: `${prefix}/${name}` };
            });
        }),
      );
      return found.flat();
    },
    pod: (namespace, name, port, path, options) =>
      call(`/api/v1/namespaces/${namespace}/pods/${name}:${port}/proxy${path}`, options),
  };
}

function reasonIn(status: number, body: string): string {
  try {
    const { message } = JSON.parse(body) as { message?: string };
    if (message !== undefined) return message;
  } catch {
    // A proxy's or a pod's own words.
  }
  return `status ${status}: ${body.slice(0, 300)}`;
}

/** The steps of a secrets agent's life by their names, and what a process is to do with one of them. */

export interface Kill {
  readonly step: string;
  /** Of those with this name. */
  readonly nth: number;
  /** After the step; for a request, when its answer is there and has not been read. */
  readonly isLate: boolean;
}

export interface Task {
  readonly env: Readonly<Record<string, string>>;
  readonly ca?: string | undefined;
  readonly volume: string;
  readonly kill?: Kill | undefined;
  /** The value that the process waits for. */
  readonly expected: string;
}

export function stepOfPath(path: string): string {
  return path.replace(/^set\/\.\.\d+/, "set/version");
}

export function stepOfRequest(url: string): string {
  const { pathname } = new URL(url);
  if (pathname.endsWith("/login")) return "login";
  if (pathname.includes("/creds/")) return "credential";
  if (pathname.includes("/data/")) return "value";
  return pathname.replace("/v1/", "");
}

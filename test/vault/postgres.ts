/** A PostgreSQL server of Debian's package, for one test: in a temporary folder, on loopback, as a user that is not root. */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, chown, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { until } from "./sidecar.ts";

export interface Postgres extends AsyncDisposable {
  readonly port: number;
  readonly admin: { readonly username: string; readonly password: string };
  /** Runs statements as the administrator. */
  run(sql: string): void;
}

/** One connection of a client, by psql. */
export interface Connection extends Disposable {
  /** @throws Error when the connection has ended or the query fails */
  query(sql: string): Promise<string>;
}

const LIBRARY = "/usr/lib/postgresql";

/** @returns undefined where there is none and none can be installed */
export async function openPostgres(): Promise<Postgres | undefined> {
  const isRoot = process.getuid?.() === 0;
  if (!existsSync(LIBRARY) && isRoot) {
    const quiet = { stdio: "ignore", timeout: 300_000 } as const;
    execFileSync("apt-get", ["install", "-y", "--no-install-recommends", "postgresql"], quiet);
  }
  const versions = await readdir(LIBRARY).catch(() => []);
  const version = versions.toSorted((a, b) => Number(a) - Number(b)).at(-1);
  if (version === undefined) return undefined;
  await using stack = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "edgesync-postgres-"));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  // The server refuses to run as root; the package brings a user for it.
  const id = (flag: string): number => Number(execFileSync("id", [flag, "postgres"]).toString());
  const user = isRoot ? { uid: id("-u"), gid: id("-g") } : {};
  if (isRoot) await chown(folder, id("-u"), id("-g"));
  const admin = { username: "keeper", password: "admin-of-this-test" };
  const passwordFile = join(folder, "password");
  await writeFile(passwordFile, admin.password);
  await chmod(passwordFile, 0o644);
  const data = join(folder, "data");
  const program = (name: string): string => join(LIBRARY, version, "bin", name);
  execFileSync(
    program("initdb"),
    ["-D", data, "-U", admin.username, "-A", "scram-sha-256", `--pwfile=${passwordFile}`, "-N"],
    { ...user, stdio: "ignore", cwd: folder },
  );
  const port = await freePort();
  const settings = [
    "-p",
    String(port),
    "-c",
    "listen_addresses=127.0.0.1",
    "-c",
    "unix_socket_directories=",
    "-c",
    "fsync=off",
  ];
  const server = spawn(program("postgres"), ["-D", data, ...settings], {
    ...user,
    stdio: "ignore",
    cwd: folder,
  });
  stack.defer(async () => {
    const ended = once(server, "exit");
    server.kill("SIGINT");
    await ended;
  });
  const run = (sql: string): void => {
    execFileSync("psql", ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql], {
      env: environment(port, admin),
      stdio: "pipe",
    });
  };
  await until(
    () => {
      try {
        run("SELECT 1");
        return true;
      } catch {
        return false;
      }
    },
    "the database server",
    30_000,
  );
  const owned = stack.move();
  return { port, admin, run, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

interface Account {
  readonly username: string;
  readonly password: string;
}

function environment(port: number, { username, password }: Account): Record<string, string> {
  const place = { PGHOST: "127.0.0.1", PGPORT: String(port), PGDATABASE: "postgres" };
  return { PATH: process.env["PATH"] ?? "", ...place, PGUSER: username, PGPASSWORD: password };
}

export function connect(port: number, account: Account): Connection {
  const client = spawn("psql", ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"], {
    env: environment(port, account),
    stdio: ["pipe", "pipe", "ignore"],
  });
  // A connection that has ended is seen by its answers, which do not come.
  client.stdin.on("error", () => undefined);
  const lines = createInterface(client.stdout)[Symbol.asyncIterator]();
  return {
    async query(sql) {
      client.stdin.write(`${sql};\n`);
      const line = await lines.next();
      if (line.done === true) throw new Error("the connection has ended");
      return line.value;
    },
    [Symbol.dispose]: () => void client.kill("SIGTERM"),
  };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (typeof address !== "object" || address === null) throw new Error("no port");
  return address.port;
}

/**
 * A message broker as far as Vault's rabbitmq engine and a client that logs in see one: the users of RabbitMQ's management API.
 * With it a Vault, the development one or a real one, issues leases whose effect can be watched.
 */
import { timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import { isRecord, text } from "./exchange.ts";
import { listen, readText } from "./listen.ts";

export interface DevBroker extends AsyncDisposable {
  readonly url: string;
  /** Credentials for the management API, for the engine's `config/connection`. */
  readonly admin: { readonly username: string; readonly password: string };
  /** Whether a client could log in with these now. */
  accepts(username: string, password: string): boolean;
  /** Users that exist now, without the administrator. */
  readonly users: ReadonlyMap<string, string>;
  /** How many users were made so far. */
  created(): number;
}

const BODY_LIMIT_BYTES = 65_536;

export async function openDevBroker(): Promise<DevBroker> {
  const admin = { username: "administrator", password: "development-only" };
  const users = new Map<string, string>();
  let created = 0;

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const body = await readText(request, BODY_LIMIT_BYTES);
    const expected = `Basic ${btoa(`${admin.username}:${admin.password}`)}`;
    if (!isSame(request.headers.authorization ?? "", expected)) {
      response.writeHead(401).end();
      return;
    }
    const [, kind, ...names] = (request.url ?? "").split("/").slice(1).map(decodeURIComponent);
    const user = names.at(-1) ?? "";
    switch (`${request.method} ${kind}`) {
      case "GET users": {
        const listed = [...users.keys()].map((name) => ({ name, tags: [] }));
        response.writeHead(200, { "content-type": "application/json" });
        response.end(JSON.stringify(listed));
        return;
      }
      case "PUT users": {
        const parsed: unknown = JSON.parse(body);
        const password = isRecord(parsed) ? text(parsed, "password") : undefined;
        if (password === undefined) {
          response.writeHead(400).end();
          return;
        }
        if (!users.has(user)) created++;
        users.set(user, password);
        response.writeHead(201).end();
        return;
      }
      case "PUT permissions":
        response.writeHead(users.has(user) ? 201 : 400).end();
        return;
      case "DELETE users":
        response.writeHead(users.delete(user) ? 204 : 404).end();
        return;
      default:
        response.writeHead(404).end();
    }
  };
  const server = await listen(
    createServer((request, response) => {
      answer(request, response).catch(() => response.destroy());
    }),
  );

  return {
    url: `http://127.0.0.1:${server.port}`,
    admin,
    accepts: (username, password) => isSame(users.get(username) ?? "", password),
    users,
    created: () => created,
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

function isSame(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)];
  return left.length > 0 && left.length === right.length && timingSafeEqual(left, right);
}

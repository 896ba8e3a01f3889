import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { connect, createServer } from "node:tls";
import * as fc from "../support/property.ts";
import { codeOf } from "#core/errors.ts";
import { judgeChain } from "../../sidecar/network/chain.ts";
import { CLIENT_AUTH, SERVER_AUTH } from "../support/chains.ts";
import {
  ACCEPTED,
  EXPIRED,
  HOUR_MS,
  MINUTE_MS,
  REFUSED,
  REFUSED_UNSERVED,
  authoritiesOf,
  chainOf,
  identityOf,
  selfSigned,
} from "./world.ts";
import type { Chain, Change, Shape } from "./world.ts";

const ALLOWANCE_MS = HOUR_MS;

function judged({ host, presented, trusted }: Chain, allowanceMs = ALLOWANCE_MS): number {
  return judgeChain(
    presented.map(({ der }) => der),
    trusted.map(({ cert }) => cert),
    { host, now: Date.now(), allowanceMs },
  );
}

const UNTRUSTED = { code: "TLS_UNTRUSTED" };

for (const kind of ["rsa", "ec"] as const)
  describe(`a chain of ${kind} keys is`, () => {
    test("good now when all of it is valid", () => assert.equal(judged(chainOf(kind, {})), 0));

    for (const [what, shape] of Object.entries(ACCEPTED))
      test(`good at another time when its certificate ${what}`, () => {
        const offMs = Math.abs(judged(chainOf(kind, shape)));
        assert.ok(Math.abs(offMs - 30 * MINUTE_MS) < MINUTE_MS, String(offMs));
      });

    for (const [what, shape] of Object.entries({ ...REFUSED, ...REFUSED_UNSERVED }))
      test(`refused when its certificate ${what}`, () => {
        assert.throws(() => judged(chainOf(kind, shape)), UNTRUSTED);
      });

    test("refused when its certificate is its own authority, even a trusted one", () => {
      for (const change of [{}, { ca: true, usage: 0xa4 }])
        assert.throws(() => judged(selfSigned(kind, change)), UNTRUSTED);
    });
  });

describe("a chain", () => {
  test("counts to the millisecond", () => {
    const { host, presented, trusted } = chainOf("ec", { leaf: EXPIRED });
    const end = Math.floor((Date.now() - 30 * MINUTE_MS) / 1_000) * 1_000;
    const at = (now: number): number =>
      judgeChain(
        presented.map(({ der }) => der),
        trusted.map(({ cert }) => cert),
        { host, now, allowanceMs: ALLOWANCE_MS },
      );
    const last = Array.from({ length: 3 }, (_, i) => end - (i - 1) * 1_000).find(
      (second) => codeAt(() => at(second + ALLOWANCE_MS)) === undefined,
    );
    assert.ok(last !== undefined);
    assert.equal(at(last + ALLOWANCE_MS), -ALLOWANCE_MS);
    assert.throws(() => at(last + ALLOWANCE_MS + 1_001), UNTRUSTED);
  });

  test("is refused when there is nothing of it, or too much", () => {
    const { host, presented, trusted } = chainOf("ec", { leaf: EXPIRED });
    const [own] = presented.map(({ der }) => der);
    assert.ok(own !== undefined);
    const roots = trusted.map(({ cert }) => cert);
    const moment = { host, now: Date.now(), allowanceMs: ALLOWANCE_MS };
    assert.throws(() => judgeChain([], roots, moment), UNTRUSTED);
    const many = Array.from({ length: 1_000 }, () => own);
    assert.throws(() => judgeChain(many, roots, moment), UNTRUSTED);
    assert.throws(() => judgeChain([new Uint8Array(1 << 20)], roots, moment), UNTRUSTED);
  });

  test("with anything behind a certificate, or with PEM, is refused", () => {
    const { host, presented, trusted } = chainOf("ec", { leaf: EXPIRED });
    const ders = presented.map(({ der }) => der);
    const roots = trusted.map(({ cert }) => cert);
    const moment = { host, now: Date.now(), allowanceMs: ALLOWANCE_MS };
    judgeChain(ders, roots, moment);
    for (const [index, { der, cert }] of presented.entries())
      for (const other of [Buffer.concat([der, Buffer.alloc(1)]), Buffer.from(cert)])
        assert.throws(() => judgeChain(ders.with(index, other), roots, moment), UNTRUSTED);
  });

  test("whose authorities issue each other is given up soon", () => {
    const cross = (name: string, issuerName: string): Change => ({ name, issuerName });
    const one = chainOf("ec", { middle: cross("a", "b"), leaf: { ...EXPIRED, issuerName: "a" } });
    const two = chainOf("ec", { middle: cross("b", "a") });
    const all = [...one.presented, ...Array.from({ length: 5 }, () => two.presented.slice(1))];
    const chain = { ...one, presented: all.flat() };
    assert.throws(() => judged(chain), UNTRUSTED);
  });

  test("of which bytes are changed is refused, and nothing else happens", () => {
    const chains = (["rsa", "ec"] as const).map((kind) => chainOf(kind, { leaf: EXPIRED }));
    const edit = fc.record({
      at: fc.nat(),
      remove: fc.integer({ min: 0, max: 40 }),
      insert: fc.uint8Array({ maxLength: 40 }),
    });
    fc.assert(
      fc.property(
        fc.constantFrom(...chains),
        fc.nat({ max: 1 }),
        fc.array(edit, { minLength: 1, maxLength: 4 }),
        ({ host, presented, trusted }, which, edits) => {
          const ders = presented.map(({ der }) => der);
          const before = ders[which] ?? Buffer.alloc(0);
          let der = before;
          for (const { at, remove, insert } of edits) {
            const from = at % (der.length + 1);
            der = Buffer.concat([der.subarray(0, from), insert, der.subarray(from + remove)]);
          }
          fc.pre(!der.equals(before));
          const mutated = ders.with(which, der);
          const roots = trusted.map(({ cert }) => cert);
          const moment = { host, now: Date.now(), allowanceMs: ALLOWANCE_MS };
          assert.throws(() => judgeChain(mutated, roots, moment), UNTRUSTED);
        },
      ),
      { numRuns: 400 },
    );
  });

  const mostly = <T>(usual: T, ...others: readonly T[]): fc.Arbitrary<T> =>
    fc.oneof({ weight: 12, arbitrary: fc.constant(usual) }, fc.constantFrom(...others));

  test("that is accepted is one that Node accepts at its time", async () => {
    const change = (authority: boolean): fc.Arbitrary<Change> =>
      fc.record(
        {
          ca: mostly(authority, !authority, undefined),
          pathLength: fc.constantFrom(undefined, 0, 1),
          usage: mostly(authority ? 0x06 : 0xa0, undefined, 0x02),
          purposes: mostly([SERVER_AUTH], undefined, [CLIENT_AUTH]),
          excluded: mostly(["other.example"], ["localhost"]),
          unknown: mostly([], ["1.2.3.4"]),
          tampered: mostly(false, true),
          ...(authority ? {} : { names: mostly(["localhost"], ["x.example"], undefined) }),
        },
        { requiredKeys: [] },
      );
    const shape: fc.Arbitrary<Shape> = fc.record(
      { leaf: change(false), middle: change(true), root: change(true) },
      { requiredKeys: [] },
    );
    let accepted = 0;
    await fc.assert(
      fc.asyncProperty(shape, async (given) => {
        const chain = chainOf("ec", given);
        if (codeAt(() => judged(chain, 0)) !== undefined) return;
        accepted += 1;
        assert.ok(await nodeAccepts(chain));
      }),
      { numRuns: 120 },
    );
    assert.ok(accepted > 10, `${accepted} were accepted`);
  });
});

function codeAt(work: () => unknown): string | undefined {
  try {
    work();
    return undefined;
  } catch (error) {
    return codeOf(error);
  }
}

async function nodeAccepts(chain: Chain): Promise<boolean> {
  const server = createServer(identityOf(chain)).on("tlsClientError", () => undefined);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new TypeError("no TCP address");
  const socket = connect({ port: address.port, host: chain.host, ca: authoritiesOf(chain) });
  try {
    return await new Promise<boolean>((resolve) => {
      socket.once("secureConnect", () => resolve(socket.authorized));
      socket.once("error", () => resolve(false));
    });
  } finally {
    socket.destroy();
    server.close();
  }
}

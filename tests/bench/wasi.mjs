// Runs a WebAssembly program in Node's V8, the engine that Envoy has: node wasi.mjs FILE [ARGUMENT..]
import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";
import { argv, env } from "node:process";

const wasi = new WASI({
  version: "preview1",
  args: argv.slice(2),
  env: { BENCH_TOKEN: env.BENCH_TOKEN, BENCH_TOKENS: env.BENCH_TOKENS },
  preopens: { "/": "." },
});
const module = await WebAssembly.compile(await readFile(argv[2]));
wasi.start(await WebAssembly.instantiate(module, wasi.getImportObject()));

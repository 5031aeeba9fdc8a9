// What all servers here are told: MODE (echo or broadcast), --modules DIR (where their packages are installed), --cert FILE and
// --key FILE (TLS), --deflate. All alike: one thread, messages up to 16 MiB, the same compression.

import { createRequire } from "node:module";
import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({
  args: process.argv.slice(2),
  allowPositionals: true,
  options: {
    modules: { type: "string", default: "." },
    module: { type: "string" },
    cert: { type: "string" },
    key: { type: "string" },
    deflate: { type: "boolean", default: false },
  },
});

export const isBroadcast = positionals[0] === "broadcast";
export const { cert, key, deflate } = values;
export const messageBytesMax = 16 << 20;
export const deflateBytesMin = 256;

/** Loads the package that the command line names, from where it is installed. */
export function load() {
  return createRequire(`${values.modules}/x.js`)(values.module);
}

/** The line that runners wait for. */
export function announce(port) {
  console.log(`listening on 127.0.0.1:${port}`);
}

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, () => process.exit(0));
}

// Builds a component of a codec: `node ktables/build.mjs CODEC.ts -o CODEC.wasm`.

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, parse, relative, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const USAGE = `Builds a component of a codec.

Usage: node build.mjs CODEC.ts [-o CODEC.wasm] [--ktables COMMAND]

  -o, --output FILE    the component to write; by default, the name of the codec's file
  --ktables COMMAND    the ktables command (default: ktables)`;

/** The interfaces of the WIT package, by the names in `exported`, and the names under which a module exports them. */
const INTERFACES = {
  value: ["value-codec", "valueCodec"],
  key: ["key-codec", "keyCodec"],
  group: ["group-scheme", "groupScheme"],
  plugin: ["plugin", "plugin"],
};

class BuildError extends Error {}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      output: { type: "string", short: "o" },
      ktables: { type: "string", default: "ktables" },
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) return console.log(USAGE);
  if (positionals.length !== 1) throw new BuildError(USAGE);
  const source = resolve(positionals[0]);
  const output = resolve(values.output ?? `${parse(source).name}.wasm`);
  const folder = mkdtempSync(join(tmpdir(), "ktables-"));
  try {
    await build(source, output, folder, values.ktables);
  } finally {
    rmSync(folder, { recursive: true });
  }
  console.log(`wrote ${relative(".", output)}`);
}

async function build(source, output, folder, ktables) {
  const { buildSync } = loadPackage("esbuild");
  const { componentize } = loadPackage("componentize-qjs");
  const sdk = fileURLToPath(new URL(".", import.meta.url));
  const bundle = (code, file) =>
    buildSync({
      stdin: { contents: code, resolveDir: folder },
      outfile: join(folder, file),
      bundle: true,
      format: "esm",
      target: "es2023",
      external: ["ktables:*"],
      logLevel: "error",
    });
  const quoted = JSON.stringify;
  const imports = `import ${quoted(source)};\n`;
  // Run it here to learn which codecs it exports.
  bundle(`${imports}export { exported } from ${quoted(join(sdk, "ktables.ts"))};`, "codecs.mjs");
  const { exported } = await import(pathToFileURL(join(folder, "codecs.mjs")));
  const interfaces = Object.keys(exported).map((kind) => INTERFACES[kind]);
  if (interfaces.length === 0) {
    throw new BuildError(
      `${source}: call exportCodecs(new YourCodec()) at the end of the file, of the ktables.ts beside this script`,
    );
  }
  const names = interfaces.map(([, name]) => name).join(", ");
  bundle(`${imports}export { ${names} } from ${quoted(join(sdk, "exports.ts"))};`, "component.js");
  const wit = join(folder, "wit");
  mkdirSync(join(wit, "deps/ktables"), { recursive: true });
  writeFileSync(join(wit, "deps/ktables/package.wit"), execFileSync(ktables, ["codec", "wit"]));
  const lines = interfaces.map(([name]) => `  export ktables:codec/${name}@0.1.0;`);
  const world = ["import ktables:codec/logging@0.1.0;", ...lines].join("\n");
  writeFileSync(join(wit, "world.wit"), `package ktables:component;\n\nworld component {\n${world}\n}\n`);
  const jsPath = join(folder, "component.js");
  // The runtime with async exports would be refused by the host.
  const built = await componentize({ witPath: wit, jsPath, jsSource: readFileSync(jsPath, "utf8"), moduleRoot: folder, sync: true });
  writeFileSync(output, built.component);
}

/** Loads a package that the project has installed, or that is installed where this process was started. */
function loadPackage(name) {
  for (const folder of [resolve("."), fileURLToPath(new URL(".", import.meta.url))]) {
    try {
      return createRequire(join(folder, "package.json"))(name);
    } catch (error) {
      if (error.code !== "MODULE_NOT_FOUND") throw error;
    }
  }
  throw new BuildError(`the package ${name} is missing: npm install ${name}`);
}

try {
  await main();
} catch (error) {
  // esbuild has already described what is wrong with the source.
  if (!(error instanceof BuildError) && !error.code?.startsWith("ERR_PARSE_ARGS")) throw error;
  console.error(error.message);
  process.exitCode = 1;
}

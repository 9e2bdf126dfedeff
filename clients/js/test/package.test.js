// What is published: types that fit, a size that was promised, and nothing that needs a build.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, gzipSync } from "node:zlib";

const folder = fileURLToPath(new URL("..", import.meta.url));
const read = name => readFileSync(join(folder, name), "utf8");
const need = name => {
  try {
    return createRequire(import.meta.url).resolve(name);
  } catch {
    return undefined;
  }
};
const run = (...args) =>
  new Promise(ok => execFile(process.execPath, args, { cwd: folder }, (error, out, err) => ok({ fine: !error, said: out + err })));

describe("the package", () => {
  const compiler = need("typescript/bin/tsc");
  const skip = !compiler && "SKIPPED: typescript is not installed (npm ci)";

  it("the types in the comments hold, and tidings.d.ts is what they say (npm run types)", { skip }, async () => {
    const made = mkdtempSync(join(tmpdir(), "tidings-types-"));
    assert.deepEqual(await run(compiler, "--project", ".", "--noEmit", "false", "--declaration", "--emitDeclarationOnly", "--outDir", made), { fine: true, said: "" });
    assert.equal(readFileSync(join(made, "tidings.d.ts"), "utf8"), read("tidings.d.ts"));
    rmSync(made, { recursive: true });
  });

  it("is small: 6 KB (6,144 bytes) at most, minified and compressed by brotli", { skip: !need("terser") && "SKIPPED: terser is not installed (npm ci)" }, async () => {
    const { minify } = await import("terser");
    const { code } = await minify(read("tidings.js"), { module: true, ecma: 2020, compress: { passes: 3 } });
    const size = brotliCompressSync(code).length;
    console.log(`# ${code.length} bytes minified, ${gzipSync(code, { level: 9 }).length} by gzip, ${size} by brotli`);
    assert.ok(size <= 6144, `${size}`);
  });

  it("imports nothing, and everything that is named for publishing is there", () => {
    assert.doesNotMatch(read("tidings.js"), /^import |\brequire\(|\bimport\(/m);
    const { files, dependencies, exports } = JSON.parse(read("package.json"));
    assert.equal(dependencies, undefined);
    // The licences are copied from the root when it is packed.
    for (const name of [...files, exports["."].types, exports["."].default]) read(name.startsWith("LICENSE") ? `../../${name}` : name);
  });

  it("the lockfile names no registry", () => {
    assert.doesNotMatch(read("package-lock.json"), /https?:/);
  });
});

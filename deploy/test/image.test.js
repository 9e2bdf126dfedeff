// What the image holds, run as an engine would: in a root with nothing but the program and an empty /data, by a user without a name,
// without a shell. A program that is not static brings its libraries along; everything else is missing all the same.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, chownSync, copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, describe, it } from "node:test";
import { program, withoutProgram } from "../../clients/js/test/support/program.js";
import { until } from "../../clients/js/test/support/waiting.js";
import { quietPort } from "./support/ports.js";

const USER = 65532;
const root = mkdtempSync(join(tmpdir(), "tidings-root-"));
const running = [];
after(() => {
  for (const child of running) child.kill("SIGKILL");
  rmSync(root, { recursive: true, force: true });
});

const put = (from, to = from) => {
  mkdirSync(join(root, dirname(to)), { recursive: true });
  copyFileSync(from, join(root, to));
  chmodSync(join(root, to), 0o555);
};

/** The program in that root; what it says and its exit code. */
const inside = (words, env) => {
  const child = spawn("chroot", [`--userspec=${USER}:${USER}`, root, "/tidings", ...words], { env: { PATH: process.env.PATH, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  running.push(child);
  const run = { child, said: "" };
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", text => (run.said += text));
  run.over = new Promise(ok => child.once("close", (code, signal) => ok(code ?? signal)));
  return run;
};

describe("the image's contents", { skip: withoutProgram || (process.getuid() === 0 ? false : "SKIPPED: chroot needs root") }, () => {
  it("serve, keep versions in /data and nothing elsewhere, are healthy by their own word, and stop in order", async () => {
    put(program, "/tidings");
    for (const [, library] of spawnSync("ldd", [program], { encoding: "utf8" }).stdout.matchAll(/(?:=> |^\s+)(\/\S+) \(/gm)) put(library);
    mkdirSync(join(root, "data"));
    chownSync(join(root, "data"), USER, USER);
    chmodSync(root, 0o755);
    const before = readdirSync(root, { recursive: true }).sort();
    const port = await quietPort();
    // What the Dockerfile says, but for the port.
    const env = { TIDINGS_SERVER__DATA_DIR: "/data", TIDINGS_SERVER__LISTEN: `0.0.0.0:${port}`, TIDINGS_LOG__FORMAT: "json", TIDINGS_SERVER__INSECURE: "true" };
    assert.equal(await inside(["health"], env).over, 1, "nobody is there yet");
    const server = inside([], env);
    await until(async () => {
      assert.equal(server.child.exitCode, null, server.said);
      return (await inside(["health", "--ready"], env).over) === 0;
    }, "it is ready");
    const alive = inside(["health"], env);
    assert.equal(await alive.over, 0);
    assert.equal(alive.said, "ok\n");
    const published = await fetch(`http://127.0.0.1:${port}/v1/publish?object=a`, { method: "POST" });
    assert.equal(published.status, 200);
    server.child.kill("SIGTERM");
    assert.equal(await server.over, 0, server.said);
    assert.equal(await inside(["health"], env).over, 1, "nobody is there any more");
    const names = readdirSync(root, { recursive: true });
    assert.deepEqual(names.filter(name => !name.startsWith("data/")).sort(), before);
    assert.ok(names.some(name => name.startsWith("data/")), "the versions are there");
  });
  it("say which release they are", () => {
    assert.match(spawnSync(program, ["--version"], { encoding: "utf8" }).stdout, /^tidings \d+\.\d+\.\d+ \(commit [0-9a-z-]+\)\n$/);
  });
});

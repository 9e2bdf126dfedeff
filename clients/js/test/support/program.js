// The real program: started, killed, started again at the same place.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../../", import.meta.url));
const candidates = [process.env.TIDINGS_PROGRAM, join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "debug", "tidings")];
/** Where the program is; `undefined`: it is not built. */
export const program = candidates.find(path => path && existsSync(path));
export const withoutProgram = program ? false : "SKIPPED: the program is not built (cargo build -p tidings)";

/** Cursors come soon and silence is noticed soon, so that tests need not wait. */
const SETTINGS = {
  TIDINGS_LIMITS__CURSOR_MS: "50",
  TIDINGS_LIMITS__PING_MS: "500",
  TIDINGS_LIMITS__PONG_MS: "30000",
  TIDINGS_LIMITS__OBJECTS_PER_CONNECTION: "10000",
  TIDINGS_OWNER__CLOSED_BUSY_MS: "20",
  TIDINGS_OWNER__CLOSED_IDLE_MS: "100",
  TIDINGS_DRAIN__SPREAD_MS: "300",
};

const running = new Set();
/** Also those of tests that failed. */
export const endPrograms = () => {
  for (const node of running) node.end();
};
process.on("exit", endPrograms);

export class Program {
  #child;
  #settings;
  folder = mkdtempSync(join(tmpdir(), "tidings-js-"));
  port = 0;

  constructor(settings = {}) {
    this.#settings = settings;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  static async start(settings) {
    const node = new Program(settings);
    running.add(node);
    await node.start();
    return node;
  }

  async start() {
    const env = { ...process.env, ...SETTINGS, ...this.#settings };
    const args = ["serve", "--listen", `127.0.0.1:${this.port}`, "--node-listen", "127.0.0.1:0", "--data-dir", this.#settings.data ?? join(this.folder, "data"), "--threads", "2"];
    const child = spawn(program, args, { env, stdio: ["ignore", "pipe", "pipe"] });
    this.#child = child;
    let said = "";
    const listens = new Promise((ok, bad) => {
      const hear = text => {
        said += text;
        const found = /http:\/\/127\.0\.0\.1:(\d+)/.exec(said);
        if (found) ok(+found[1]);
      };
      child.stdout.setEncoding("utf8").on("data", hear);
      child.stderr.setEncoding("utf8").on("data", hear);
      child.once("exit", code => bad(new Error(`the program ended with ${code}: ${said}`)));
    });
    this.port = await listens;
    while (!(await fetch(`${this.url}/readyz`).then(answer => answer.ok, () => false))) await new Promise(ok => setTimeout(ok, 20));
  }

  /** As power does. */
  async kill(signal = "SIGKILL") {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise(ok => child.once("exit", ok));
    child.kill(signal);
    await gone;
  }

  signal(name) {
    this.#child.kill(name);
  }

  async publish(object, more = {}) {
    const body = JSON.stringify(typeof object === "string" ? { object, ...more } : { changes: object.map(one => ({ object: one })) });
    const answer = await fetch(`${this.url}/v1/publish`, { method: "POST", headers: { "content-type": "application/json" }, body });
    const told = await answer.json();
    if (!answer.ok) throw new Error(JSON.stringify(told));
    return told.version ?? told.results.map(result => result.version);
  }

  async connections() {
    return (await (await fetch(`${this.url}/v1/connections?limit=1000`)).json()).connections;
  }

  /** A subscriber that asks for these and then never reads. */
  async slow(objects) {
    const socket = connect(this.port, "127.0.0.1");
    socket.on("error", () => {});
    await new Promise(ok => socket.once("connect", ok));
    socket.write(`GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1:${this.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n`);
    await new Promise(ok => socket.once("data", ok));
    socket.pause();
    const text = Buffer.from(JSON.stringify({ subscribe: { objects } }));
    // A masked text frame; a mask of zeros changes nothing.
    socket.write(Buffer.concat([Buffer.from([0x81, 0x80 | 126, text.length >> 8, text.length & 255, 0, 0, 0, 0]), text]));
    return { socket };
  }

  end() {
    this.#child?.kill("SIGKILL");
    running.delete(this);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A port that nobody listens on. */
export async function freePort() {
  const server = createServer();
  await new Promise(ok => server.listen(0, "127.0.0.1", ok));
  const { port } = server.address();
  await new Promise(ok => server.close(ok));
  return port;
}

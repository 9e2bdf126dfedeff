// A real browser, told what to do over a pipe (Chrome DevTools Protocol), without any library.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { until } from "./waiting.js";

const places = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome", "/usr/bin/google-chrome-stable", "/snap/bin/chromium"];
// Some systems have a script in its place that only says how to install it.
const chromium = places.find(path => path && existsSync(path) && spawnSync(path, ["--version"], { timeout: 20_000 }).status === 0);
export const withoutChromium = chromium ? false : "SKIPPED: there is no Chromium (set CHROMIUM to its path)";

export class Browser {
  #child;
  #next = 0;
  #answers = new Map();
  #sessions = new Map();
  #folder = mkdtempSync(join(tmpdir(), "tidings-browser-"));

  static async start() {
    const browser = new Browser();
    const args = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe", `--user-data-dir=${browser.#folder}`, "about:blank"];
    const child = spawn(chromium, args, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    browser.#child = child;
    process.on("exit", () => browser.end());
    let rest = "";
    child.stdio[4].setEncoding("utf8").on("data", text => {
      const messages = (rest + text).split("\0");
      rest = messages.pop();
      for (const message of messages) browser.#hear(JSON.parse(message));
    });
    child.stdio[3].on("error", () => {});
    await browser.send("Target.getTargets");
    return browser;
  }

  #hear({ id, result, error, method, params, sessionId }) {
    if (id) {
      const [ok, bad] = this.#answers.get(id) ?? [];
      this.#answers.delete(id);
      if (error) bad?.(new Error(error.message));
      else ok?.(result);
    } else this.#sessions.get(sessionId)?.(method, params);
  }

  send(method, params = {}, sessionId = undefined) {
    const id = ++this.#next;
    const answer = new Promise((ok, bad) => this.#answers.set(id, [ok, bad]));
    this.#child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return answer;
  }

  /** A profile of its own, as long as the test runs. */
  async profile() {
    return (await this.send("Target.createBrowserContext")).browserContextId;
  }

  async open(url, profile) {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank", browserContextId: profile });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(this, targetId, sessionId);
    this.#sessions.set(sessionId, (method, params) => page.hear(method, params));
    await Promise.all(["Page.enable", "Runtime.enable", "Network.enable", "Log.enable"].map(method => page.send(method)));
    await page.send("Page.navigate", { url });
    return page;
  }

  end() {
    this.#child?.kill("SIGKILL");
    try {
      rmSync(this.#folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    } catch {
      // It is still being written to; it is in the folder for temporary files.
    }
  }
}

class Page {
  /** Exceptions and unhandled rejections. */
  thrown = [];
  logged = [];
  sockets = 0;

  constructor(browser, target, session) {
    this.browser = browser;
    this.target = target;
    this.session = session;
  }

  hear(method, params) {
    if (method === "Runtime.exceptionThrown") this.thrown.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    if (method === "Runtime.consoleAPICalled") this.logged.push(params.args.map(one => one.value ?? one.description ?? JSON.stringify(one.preview?.properties)).join(" "));
    if (method === "Network.webSocketCreated") this.sockets++;
  }

  send(method, params) {
    return this.browser.send(method, params, this.session);
  }

  /** The value of an expression in the page; promises are waited for. */
  async run(expression) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  until(expression, what = expression, patienceMs = 30_000) {
    return until(() => this.run(expression).catch(() => false), `${what} (logged: ${this.logged.slice(-5)}; thrown: ${this.thrown.slice(-3)})`, patienceMs);
  }

  offline(offline) {
    return this.send("Network.emulateNetworkConditions", { offline, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  }

  close() {
    return this.browser.send("Target.closeTarget", { targetId: this.target });
  }
}

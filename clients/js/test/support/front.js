// What stands before the server in these tests: serves pages and the module from disk under the server's own origin, and
// passes the rest on; it can refuse WebSockets, swallow bytes and cut connections.
import { readFile } from "node:fs/promises";
import { createServer, request } from "node:http";
import { connect } from "node:net";

const PAGE = `<!doctype html><html><head><meta charset="utf-8"><link rel="icon" href="data:,"><title>test</title></head><body><script type="module" src="/page.js"></script></body></html>`;

const running = new Set();
/** Also those of tests that failed. */
export const endFronts = () => {
  for (const front of running) front.end();
};

export class Front {
  /** @type {Set<import("node:net").Socket>} */ #sockets = new Set();
  #server;
  /** Where the server is. */
  target = 0;
  /** "pass"; "refuse": 403; "cut": without a word; "swallow": accepted, and nothing comes. */
  webSockets = "pass";
  /** "pass", "refuse" (501) or "swallow", by route. */
  events = "pass";
  /** No byte goes either way, no connection is made. */
  dark = false;
  headers = {};
  files = { "/": ["text/html", PAGE], "/page.js": ["text/javascript", ""] };
  /** Requests by path. */
  asked = [];
  upgrades = 0;

  static async start(target) {
    const front = new Front();
    running.add(front);
    front.target = target;
    front.#server = createServer((asked, answer) => front.#serve(asked, answer).catch(error => answer.destroy(error)));
    front.#server.on("upgrade", (asked, socket, head) => front.#upgrade(asked, socket, head));
    front.#server.on("connection", socket => {
      front.#sockets.add(socket);
      socket.on("close", () => front.#sockets.delete(socket));
      socket.on("error", () => {});
      if (front.dark) socket.pause();
    });
    await new Promise(ok => front.#server.listen(0, "127.0.0.1", ok));
    return front;
  }

  get url() {
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  async #serve(asked, answer) {
    const path = new URL(asked.url, "http://x").pathname;
    this.asked.push(path);
    if (path === "/tidings.js") this.files[path] ??= ["text/javascript", await readFile(new URL("../../tidings.js", import.meta.url), "utf8")];
    const file = this.files[path];
    if (file) {
      answer.writeHead(200, { "content-type": file[0], "cache-control": "no-store", ...this.headers });
      return answer.end(file[1]);
    }
    if (path === "/v1/events" && this.events === "refuse") {
      answer.writeHead(501);
      return answer.end();
    }
    if (path === "/v1/events" && this.events === "swallow") return;
    const onwards = request({ host: "127.0.0.1", port: this.target, path: asked.url, method: asked.method, headers: asked.headers }, got => {
      answer.writeHead(got.statusCode, got.headers);
      got.on("data", piece => this.dark || answer.write(piece));
      got.on("end", () => answer.end());
      got.on("error", () => answer.destroy());
      got.on("aborted", () => answer.destroy());
    });
    onwards.on("error", () => answer.destroy());
    answer.on("close", () => onwards.destroy());
    asked.pipe(onwards);
  }

  #upgrade(asked, socket, head) {
    this.upgrades++;
    if (this.webSockets === "refuse") return socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    if (this.webSockets === "cut") return socket.destroy();
    if (this.webSockets === "swallow") return;
    const onwards = connect(this.target, "127.0.0.1", () => {
      const headers = [];
      for (let n = 0; n < asked.rawHeaders.length; n += 2) headers.push(`${asked.rawHeaders[n]}: ${asked.rawHeaders[n + 1]}\r\n`);
      onwards.write(`GET ${asked.url} HTTP/1.1\r\n${headers.join("")}\r\n`);
      onwards.write(head);
      socket.on("data", piece => this.dark || onwards.write(piece));
      onwards.on("data", piece => this.dark || socket.write(piece));
    });
    const over = () => (socket.destroy(), onwards.destroy());
    for (const end of [socket, onwards]) end.on("error", over).on("close", over);
  }

  /** Nothing goes through any more, and nothing says so. */
  darken() {
    this.dark = true;
  }

  lighten() {
    this.dark = false;
    this.cut();
  }

  /** Cuts all connections. */
  cut() {
    for (const socket of this.#sockets) socket.destroy();
  }

  end() {
    running.delete(this);
    this.cut();
    this.#server.close();
  }
}

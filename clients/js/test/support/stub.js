// A server that knows nothing but who may listen: it takes tokens, lets them expire, refuses and revokes, over WebSocket,
// event stream and long-poll. It keeps what it was asked, and by whom.
import { createHash } from "node:crypto";
import { createServer } from "node:http";

const running = new Set();
/** Also those of tests that failed. */
export const endStubs = () => {
  for (const stub of running) stub.end();
};

const problem = (status, code) => [status, JSON.stringify({ type: "about:blank", title: code, status, detail: code, code, retryable: false })];

export class Stub {
  #server;
  #sockets = new Set();
  /** Everyone who listens: { tell(message), end(code), token, expires }. */ listeners = new Set();
  /** Tokens that are good, and until when. @type {Map<string, number>} */ tokens = new Map();
  /** The close code for a token that is not good. */ refusal = 4501;
  /** The newest version of each object. */ versions = new Map();
  /** What was asked: { how, token, objects }; `token` is undefined for whoever said none. */ asked = [];
  /** WebSockets that were open at the same time, and how many at most. */ open = 0;
  most = 0;
  /** Tokens in the order in which they came, with the WebSocket or request they came over. */ shown = [];
  #next = 0;

  static async start() {
    const stub = new Stub();
    running.add(stub);
    stub.#server = createServer((asked, answer) => void stub.#serve(asked, answer));
    stub.#server.on("upgrade", (asked, socket) => stub.#upgrade(asked, socket));
    stub.#server.on("connection", socket => {
      stub.#sockets.add(socket);
      socket.on("close", () => stub.#sockets.delete(socket)).on("error", () => {});
    });
    await new Promise(ok => stub.#server.listen(0, "127.0.0.1", ok));
    return stub;
  }

  get url() {
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  end() {
    running.delete(this);
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }

  /** From now on this token is good, for so many milliseconds. */
  grant(token, ms = Infinity) {
    this.tokens.set(token, performance.now() + ms);
  }

  #good(token) {
    return this.tokens.get(token) > performance.now();
  }

  /** Something happens to an object. */
  change(object) {
    const version = ++this.#next + 1000;
    this.versions.set(object, version);
    for (const one of this.listeners) one.tell([{ changes: [{ object, version }] }, { cursor: `c${this.#next}` }]);
    return version;
  }

  /** Ends everyone with this code, as when their tokens are not good any more. */
  endAll(code) {
    for (const one of this.listeners) one.end(code);
  }

  /** What changed since a cursor; without one, nothing did. */
  #since(objects, cursor) {
    const from = cursor ? Number(cursor.slice(1)) + 1000 : Infinity;
    return objects.map(entry => entry.object ?? entry).filter(object => (this.versions.get(object) ?? 0) > from).map(object => ({ object, version: this.versions.get(object) }));
  }

  #expires(listener, token) {
    clearTimeout(listener.expiry);
    const ms = this.tokens.get(token) - performance.now();
    if (ms === Infinity) return null;
    listener.expiry = setTimeout(() => listener.end(4010), ms);
    return Math.round(ms);
  }

  async #serve(asked, answer) {
    let text = "";
    for await (const piece of asked) text += piece;
    const body = text ? JSON.parse(text) : {};
    const how = asked.url.slice(4);
    const token = /^Bearer (.*)$/.exec(asked.headers.authorization ?? "")?.[1];
    const say = ([status, json], type = "application/problem+json") => answer.writeHead(status, { "content-type": type }).end(json);
    if (how !== "events" && how !== "poll") return say(problem(404, "not_found"));
    this.asked.push({ how, token, objects: body.objects });
    this.shown.push(token);
    if (!this.#good(token)) return say(problem(this.refusal === 4502 ? 403 : 401, this.refusal === 4502 ? "forbidden" : "unauthenticated"));
    const changes = this.#since(body.objects ?? this.polled ?? [], body.cursor);
    if (how === "events") return this.#stream(answer, token, changes);
    this.polled = body.objects ?? this.polled;
    const finish = found => say([200, JSON.stringify({ changes: found, resync: null, refused: [], cursor: `c${this.#next}`, session: "s" })], "application/json");
    if (changes.length || !body.wait_ms) return finish(changes);
    const listener = { tell: ([{ changes }]) => (over(), finish(changes)), end: () => (over(), say(problem(401, "unauthenticated"))) };
    const over = () => (clearTimeout(listener.expiry), clearTimeout(wait), this.listeners.delete(listener));
    const wait = setTimeout(() => (over(), finish([])), body.wait_ms);
    this.listeners.add(listener);
    this.#expires(listener, token);
    answer.on("close", over);
  }

  #stream(answer, token, changes) {
    answer.writeHead(200, { "content-type": "text/event-stream" });
    const write = message => {
      if (message.hello) answer.write(`event: hello\ndata: ${JSON.stringify(message.hello)}\n\n`);
      for (const change of message.changes ?? []) answer.write(`data: ${JSON.stringify(change)}\n\n`);
      if (message.cursor) answer.write(`id: ${message.cursor}\n\n`);
    };
    const listener = { tell: messages => messages.forEach(write), end: () => answer.end() };
    listener.tell([{ hello: { ping_ms: 25000, limits: { objects: 1000, frame_bytes: 65536 } } }, { changes }, { cursor: `c${this.#next}` }]);
    this.listeners.add(listener);
    this.#expires(listener, token);
    answer.on("close", () => (clearTimeout(listener.expiry), this.listeners.delete(listener)));
  }

  #upgrade(asked, socket) {
    const accept = createHash("sha1").update(`${asked.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: tidings.v1.json\r\n\r\n`);
    this.most = Math.max(this.most, ++this.open);
    let gone = false;
    const leave = () => {
      if (!gone) this.open--;
      gone = true;
      clearTimeout(listener.expiry);
      this.listeners.delete(listener);
    };
    const frame = (kind, payload) => {
      const head = payload.length < 126 ? Buffer.from([0x80 | kind, payload.length]) : Buffer.from([0x80 | kind, 126, payload.length >> 8, payload.length & 255]);
      socket.write(Buffer.concat([head, payload]));
    };
    const listener = {
      tell: messages => messages.forEach(message => frame(1, Buffer.from(JSON.stringify(message)))),
      end: code => (leave(), frame(8, Buffer.from([code >> 8, code & 255])), socket.end()),
    };
    let token;
    const hear = ({ auth, subscribe, ping, id }) => {
      if (ping) return listener.tell([{ pong: {} }]);
      if (auth) {
        this.shown.push(auth.token);
        if (!this.#good(auth.token)) return listener.end(this.refusal);
        token = auth.token;
        return listener.tell([{ authenticated: { expires_in_ms: this.#expires(listener, token) }, id }]);
      }
      if (!subscribe) return listener.tell([{ unsubscribed: {}, id }]);
      this.asked.push({ how: "websocket", token, objects: subscribe.objects });
      if (!token) return listener.end(4501);
      this.listeners.add(listener);
      const objects = subscribe.objects.map(entry => ({ object: entry.object ?? entry, version: this.versions.get(entry.object ?? entry) ?? null }));
      listener.tell([{ subscribed: { objects }, id }, { changes: this.#since(subscribe.objects, subscribe.cursor) }, { cursor: `c${this.#next}` }]);
    };
    let rest = Buffer.alloc(0);
    socket.on("data", piece => {
      rest = Buffer.concat([rest, piece]);
      for (;;) {
        const short = rest[1] & 127;
        const at = short === 126 ? 4 : 2;
        if (rest.length < at) return;
        const length = short === 126 ? rest.readUInt16BE(2) : short;
        if (rest.length < at + 4 + length) return;
        const mask = rest.subarray(at, at + 4);
        const payload = Buffer.from(rest.subarray(at + 4, at + 4 + length)).map((byte, n) => byte ^ mask[n & 3]);
        const kind = rest[0] & 15;
        rest = rest.subarray(at + 4 + length);
        if (kind === 8) return leave(), frame(8, payload.subarray(0, 2)), socket.end();
        if (kind === 1) for (const line of payload.toString().split("\n")) hear(JSON.parse(line));
      }
    });
    socket.on("close", leave);
    listener.tell([{ hello: { connection: "c-1", node: "n1", ping_ms: 25000, limits: { objects: 1000, frame_bytes: 65536 } } }]);
  }
}

/**
 * The JavaScript client of Tidings: watches objects and calls a function when they changed. One module, nothing to
 * install or build; in pages, workers and Node.
 *
 *     const tidings = new Tidings("https://updates.example.com");
 *     tidings.watch(["order:42"], async change => { await refresh(change.object); });
 *
 * | room | knows | does not know |
 * | --- | --- | --- |
 * | `Ledger` | what one watch was told and has handled, its cursor | connections, time |
 * | `Hub` | the one connection of many watches: what to ask, when to come back and how | sockets, clocks, tabs |
 * | `open…`, `serve` | sockets, fetch, timers; tabs that share one hub | what is decided |
 * | `Watch`, `Tidings` | handlers, events, promises | the protocol |
 *
 * What it keeps: nothing is missed (a cursor counts only where everything before it was told, and is given out only where
 * everything before it was handled); an object's versions only grow; a connection is closed before another is opened.
 *
 * @module
 */

/**
 * Something happened to an object.
 * @typedef {object} Change
 * @property {string} object its ID
 * @property {number | null} version its newest version; `null`: it may have changed, nobody can say how (a resync): fetch it
 * @property {string} [kind] the publisher's tag: a hint that may be missing
 * @property {any} [data] the publisher's data: a hint that may be missing
 * @property {string} [cause] why the version is unknown: a stable word of the protocol, or `added`
 */

/**
 * An object's ID, or with the version of it that is known already: only newer ones are told.
 * @typedef {string | { object: string, version: number }} Entry
 */

/** @typedef {"websocket" | "events" | "poll"} Transport */

/**
 * How the connection is doing. `reason` of a stop: `unauthenticated`, `forbidden`, `revoked`, `limit`, `protocol`,
 * `operator`, `no_server` or `closed`.
 * @typedef {object} State
 * @property {"idle" | "connecting" | "live" | "waiting" | "offline" | "stopped"} state
 * @property {Transport} [transport]
 * @property {string} [reason] why it waits or has stopped: of a stop a stable word
 * @property {string} [message] the same for people
 * @property {number} [wait] how long it waits, in milliseconds
 * @property {boolean} [stale] the server is cut off from the owners of some objects: their changes come late
 */

/**
 * @typedef {object} Options
 * @property {() => string | Promise<string>} [token] asked for a fresh token at each connect, before it expires, and after
 *   a refusal; without one nothing is asked of the server
 * @property {boolean | string} [share] whether tabs of this origin share one connection; a text: only those with the same
 *   text do, for instance one for each user. Default: true. `"tabs"` in front of a colon forbids the SharedWorker
 * @property {Transport} [transport] only this one. Default: the best that works
 * @property {number} [firstMs] the first wait before coming back is at most this. Default: 1,000
 * @property {number} [longestMs] and no wait is longer. Default: 30,000
 * @property {number} [openingMs] within this the server must have greeted. Default: 10,000
 * @property {number} [graceMs] added to the server's `ping_ms` before silence means a dead path. Default: 10,000
 * @property {number} [pollMs] how long a long-poll waits. Default: 25,000
 * @property {number} [betterMs] after how long a better transport is tried again; doubles. Default: 30,000
 * @property {typeof WebSocket} [WebSocket] where there is none, as in Node before 22
 * @property {typeof fetch} [fetch] another one
 */

/**
 * @typedef {object} WatchOptions
 * @property {string} [cursor] goes on where an earlier watch of the same objects came to
 * @property {number} [parallel] how many changes are handled at a time, of different objects. Default: 1
 * @property {number} [tries] how often a change is told to a handler that throws. Default: 5
 * @property {number} [againMs] the first wait before it is told again is at most this. Default: 1,000
 */

/**
 * What tabs and hub say to each other.
 * @typedef {Record<string, any>} Message
 */

/** In the order of preference. @type {Transport[]} */
const TRANSPORTS = ["websocket", "events", "poll"];

/** After a resync of another cause, versions cannot be compared with those before. */
const COMPARABLE = /^(cursor_unreadable|versions_.*|power_lost|storage_damaged)$/;

/** What coming back would not mend, by close code or HTTP status. @type {Record<number, string>} */
const STOPS = {
  401: "unauthenticated", 403: "forbidden", 413: "limit", 414: "limit", 431: "limit",
  1002: "protocol", 1003: "protocol", 1007: "protocol", 1008: "forbidden", 1009: "protocol",
  4500: "protocol", 4501: "unauthenticated", 4502: "forbidden", 4503: "revoked", 4504: "limit", 4505: "protocol",
  4506: "operator",
};

/** Full jitter under a ceiling that doubles. After M. Brooker, "Exponential Backoff And Jitter" (2015). */
const jitter = (/** @type {number} */ first, /** @type {number} */ longest, /** @type {number} */ failures, random = Math.random()) =>
  random * Math.min(longest, first * 2 ** failures);

/** An error with a stable name. */
export class TidingsError extends Error {
  /** @param {string} code @param {string} [message] */
  constructor(code, message) {
    super(message || code);
    this.code = code;
  }
}

/**
 * What one watch was told and has handled. An object has at most one change and one resync that wait: a newer one takes
 * the place of the older. Pure.
 */
export class Ledger {
  /** @type {Map<string, { told?: number, from?: string, wait?: Change, doubt?: string }>} */
  held = new Map();
  /** Objects for which `resume` does not speak. @type {Set<string>} */
  uncovered = new Set();
  /** Objects that are not live at the present hub. @type {Set<string>} */
  pending = new Set();
  /** Objects with something waiting, and when the oldest part of it came. @type {Map<string, number>} */
  #queue = new Map();
  /** Objects that are being handled. @type {Map<string, number>} */
  #out = new Map();
  #clock = 0;
  /** Cursors that wait for what was told before them: the next one, and the last. @type {[number, string][]} */
  #places = [];

  /** @param {string} [cursor] */
  constructor(cursor) {
    /** Where a new connection goes on. */
    this.resume = cursor;
    /** Where a new process goes on: everything before it has been handled. */
    this.cursor = cursor;
  }

  /** `covered`: the cursor of the beginning speaks for it. @param {string} object @param {number} [version] */
  add(object, version, covered = false) {
    if (this.held.has(object)) return false;
    this.held.set(object, { told: version });
    this.pending.add(object);
    if (!covered) {
      this.uncovered.add(object);
      // What is known from elsewhere may be older than the cursor: the next one will speak for it.
      if (version !== undefined) this.cursor = void (this.#places = []);
    }
    return true;
  }

  /** @param {string} object */
  remove(object) {
    this.#queue.delete(object);
    this.pending.delete(object);
    this.uncovered.delete(object);
    this.#advance();
    return this.held.delete(object);
  }

  /** From where on a hub has to catch up: a version, a cursor, or 0: from now on. @param {string} object */
  start(object) {
    const { told, from } = this.held.get(object) ?? {};
    return told === undefined ? (from ?? 0) : told || 1;
  }

  /** The hub speaks of it from now on; `start`: from where on. @param {string} object @param {number | string} [start] */
  live(object, start) {
    this.pending.delete(object);
    const held = this.held.get(object);
    if (held && this.uncovered.has(object) && held.told === undefined && held.from === undefined) {
      if (typeof start === "string") held.from = start;
      else held.told = start;
    }
  }

  /** The hub does not speak of it for now. @param {string} object */
  away(object) {
    const held = this.held.get(object);
    if (held) {
      this.pending.add(object);
      if (!this.uncovered.has(object)) held.from = this.resume;
    }
  }

  /** @param {Change} change */
  change(change) {
    const held = this.held.get(change.object);
    // Older than, or the same as, what was told before.
    if (!held || change.version === null || change.version <= (held.told ?? -1)) return;
    held.told = change.version;
    held.wait = change;
    this.#wait(change.object);
  }

  /** It has to be fetched. @param {string} object @param {string} cause */
  fetch(object, cause) {
    const held = this.held.get(object);
    if (!held) return;
    held.doubt ??= cause;
    this.#wait(object);
  }

  /** The server cannot vouch for these. @param {Iterable<string>} objects @param {string} cause */
  resync(objects, cause) {
    const anew = !COMPARABLE.test(cause);
    for (const object of anew ? new Set([...objects, ...this.uncovered]) : objects) {
      const held = this.held.get(object);
      if (anew && held) held.told = 0;
      this.fetch(object, cause);
    }
  }

  /** @param {string} object */
  #wait(object) {
    if (!this.#queue.has(object)) this.#queue.set(object, ++this.#clock);
  }

  /** Everything that is live was told up to here. @param {string} cursor */
  vouch(cursor) {
    this.resume = cursor;
    this.uncovered = new Set(this.pending);
    if (this.pending.size) return;
    this.#places[this.#places.length && 1] = [++this.#clock, cursor];
    this.#advance();
  }

  /** The next change to be handled. @returns {Change | undefined} */
  take() {
    for (const [object, since] of this.#queue) {
      const held = this.held.get(object);
      if (this.#out.has(object) || !held) continue;
      let change = held.wait;
      if (held.doubt === undefined) held.wait = undefined;
      else {
        change = { object, version: null, cause: held.doubt };
        held.doubt = undefined;
      }
      if (!held.wait) this.#queue.delete(object);
      this.#out.set(object, since);
      return change;
    }
  }

  /** It has been handled. @param {string} object */
  settle(object) {
    this.#out.delete(object);
    this.#advance();
  }

  /** It has not been handled: it is told again, or what is newer. @param {Change} change */
  again(change) {
    const { object } = change;
    const held = this.held.get(object);
    const since = this.#out.get(object);
    this.#out.delete(object);
    if (!held || since === undefined) return this.#advance();
    if (change.version === null) held.doubt ??= change.cause ?? "";
    else held.wait ??= change;
    this.#queue.set(object, since);
  }

  #advance() {
    for (let place; (place = this.#places[0]); this.#places.shift()) {
      for (const times of [this.#queue, this.#out]) for (const since of times.values()) if (since <= place[0]) return;
      this.cursor = place[1];
    }
  }
}

/**
 * The blocks of an event stream, as the messages that a WebSocket would bring, and the rest that is not whole yet.
 * @param {string} text
 * @returns {[Message[], string]}
 */
export function readEvents(text) {
  const blocks = text.split(/\r?\n\r?\n/);
  const rest = blocks.pop() ?? "";
  /** @type {Message[]} */
  const messages = [];
  for (const block of blocks) {
    /** @type {Record<string, string>} */
    const field = {};
    for (const line of block.split(/\r?\n/)) {
      const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line) ?? [];
      if (name) field[name] = name === "data" && name in field ? `${field[name]}\n${value}` : value;
    }
    if (field.data) {
      const data = JSON.parse(field.data);
      messages.push(field.event ? { [field.event]: data } : { changes: [data] });
    }
    if (field.id) messages.push({ cursor: field.id });
  }
  return [messages, rest];
}

/** @param {Debts} debts @param {string} key @param {string} object @param {number} version */
function owe(debts, key, object, version) {
  const entries = debts.get(key) ?? new Map();
  debts.set(key, entries);
  const old = entries.get(object);
  entries.set(object, old && version ? Math.min(old, version) : old || version);
}

/**
 * What the hub does in the world.
 * @typedef {object} World
 * @property {(to: string | undefined, message: Message) => void} post to one tab, or to all
 * @property {(transport: Transport, ask: { body?: Message, token?: string }, on: (kind: string, detail?: any) => void) =>
 *   { send?: (text: string) => void, close: () => void }} open `on` is never called before this returns
 * @property {(ms: number, run: () => void) => () => void} timer returns what stops it
 * @property {() => number} now milliseconds of a clock that only goes forward
 * @property {() => number} random from 0 to below 1
 * @property {(tab: string, gone: () => void) => void} attend says when the tab is gone
 */

/** A watch as the hub sees it. @typedef {{ tab: string, w: string, objects: Set<string> }} Member */

/** Objects by the place from where on they have to be caught up. @typedef {Map<string, Map<string, number>>} Debts */

/**
 * The one connection of many watches: `hear` takes what tabs say, `World.open` gives what the server says. Pure: it has
 * no other way to the world than `World`.
 *
 * Whatever the cursor does not speak for yet is a debt: an object with the place from where on it has to be caught up.
 * That is a cursor or, under the empty one, a version (0: from now on). The server's next cursor pays all debts.
 */
export class Hub {
  /** @type {World} */ #world;
  #set;
  /** @type {Map<string, Map<string, Member>>} */ #tabs = new Map();
  /** @type {Map<string, Set<Member>>} */ #held = new Map();
  /** @type {string | undefined} */ #resume;
  /** `#resume` does not speak for these. @type {Set<string>} */ #uncovered = new Set();
  /** @type {Debts} */ #debts = new Map();

  // Of the connection.
  /** Counts requests and sockets: what comes over an older one is passed over. */ #number = 0;
  /** @type {ReturnType<World["open"]> | undefined} */ #line;
  #greeted = false;
  /** Greeted, and authenticated if need be. */ #ready = false;
  /** Answered on it. @type {Set<string>} */ #live = new Set();
  /** Refused for now. @type {Set<string>} */ #later = new Set();
  /** Still to be asked. @type {Debts} */ #ask = new Map();
  /** Asked, and not answered yet. @type {{ id?: number, key: string, objects: Set<string> } | undefined} */ #asked;
  /** Of these an event stream or poll cannot tell what was missed. @type {Set<string>} */ #strange = new Set();
  /** @type {string | undefined} */ #session;
  /** @type {string | undefined} */ #token;
  #tokenId = 0;
  /** The server said for how long to wait. */ #wished = false;
  #silence = 0;
  #heardAt = 0;
  #polledAt = 0;
  #pageObjects = 1;
  #pageBytes = 1;

  // Of all connections.
  /** @type {State} */ #state = { state: "idle" };
  /** @type {Record<string, () => void>} */ #timers = {};
  #id = 0;
  #online = true;
  #failures = 0;
  #asks = 0;
  /** Whether the tabs have tokens. */ #auth = false;
  /** The last token was refused. */ #refused = false;
  #turn = 0;
  #transport = 0;
  /** The transport that worked last. @type {number | undefined} */ #worked;
  /** Transports in a row that cannot be had. */ #unusable = 0;
  #strikes = 0;
  #betterMs;

  /** @param {World} world @param {Options & { worked?: Transport }} [options] */
  constructor(world, { worked, transport, firstMs = 1e3, longestMs = 3e4, openingMs = 1e4, graceMs = 1e4, pollMs = 25e3, betterMs = 3e4 } = {}) {
    this.#world = world;
    this.#set = { transport, firstMs, longestMs, openingMs, graceMs, pollMs, betterMs };
    this.#betterMs = betterMs;
    this.#transport = Math.max(TRANSPORTS.indexOf(transport ?? worked ?? "websocket"), 0);
  }

  /** How it is doing. */
  get state() {
    return this.#state;
  }

  /** What a tab says. @param {string} tab @param {Message} message */
  hear(tab, message) {
    const known = this.#tabs.has(tab);
    if (!known) {
      this.#tabs.set(tab, new Map());
      this.#world.attend(tab, () => this.#leave(tab));
    }
    this.#auth ||= message.auth;
    if (message.hello) this.#world.post(tab, { hello: true, known, state: this.#state });
    if (message.w) this.#change(tab, message);
    if (message.number) this.#gotToken(message);
    if ("online" in message) this.#wake(message.online);
    if (message.retry && !this.#line) this.#connect();
  }

  /** @param {string} tab */
  #leave(tab) {
    for (const w of this.#tabs.get(tab)?.keys() ?? []) this.#change(tab, { w, over: true });
    this.#tabs.delete(tab);
    // It may have been the one that was to get a token.
    if (this.#timers.token) this.#askToken();
  }

  /** A watch begins, changes or ends. @param {string} tab @param {Message} message */
  #change(tab, { w, cursor = "", covered = [], add = [], remove = [], over }) {
    const watches = this.#tabs.get(tab) ?? new Map();
    /** @type {Member} */
    const member = watches.get(w) ?? { tab, w, objects: new Set() };
    watches.set(w, member);
    if (over) watches.delete(w);
    const gone = [];
    for (const object of over ? member.objects : remove) {
      const members = this.#held.get(object);
      members?.delete(member);
      member.objects.delete(object);
      if (members?.size === 0) {
        this.#forget(object);
        if (this.#live.delete(object)) gone.push(object);
      }
    }
    /** @type {[string, string | undefined][]} */
    const ready = [];
    let asks = false;
    for (const [object, start] of [...covered.map((/** @type {string} */ object) => [object, cursor]), ...add]) {
      const key = typeof start === "string" ? start : "";
      const version = key ? 0 : +start;
      member.objects.add(object);
      const members = this.#held.get(object);
      if (members) members.add(member);
      else {
        this.#held.set(object, new Set([member]));
        this.#uncovered.add(object);
      }
      // Whoever comes with a cursor has not been told what others were told since.
      if (!key && !version && this.#live.has(object) && !this.#uncovered.has(object)) {
        ready.push([object, this.#resume]);
      } else {
        owe(this.#debts, key, object, version);
        owe(this.#ask, key, object, version);
        asks = true;
      }
    }
    if (ready.length) this.#world.post(tab, { w, live: ready });
    this.#changed(asks, gone);
  }

  /** @param {boolean} asks @param {string[]} gone */
  #changed(asks, gone) {
    const transport = this.#transport;
    if (!this.#held.size) {
      this.close();
      if (this.#state.state !== "stopped") this.#say({ state: "idle" });
    } else if (this.#state.state === "idle") this.#connect();
    else if (transport === 0) {
      if (this.#ready) {
        this.#unsubscribe(gone);
        this.#go();
      }
    } else if (this.#line) {
      // What is no longer held is passed over. Those who join at the same time cost one request.
      if (asks) this.#timer("change", 5, () => this.#connect());
    }
  }

  /** @param {string} object */
  #forget(object) {
    for (const member of this.#held.get(object) ?? []) member.objects.delete(object);
    this.#held.delete(object);
    this.#uncovered.delete(object);
    this.#later.delete(object);
    for (const entries of this.#debts.values()) entries.delete(object);
  }

  /**
   * Gives everyone what is theirs.
   * @template T
   * @param {string} kind @param {T[]} items @param {(item: T) => string} object @param {Message} [more]
   */
  #share(kind, items, object, more) {
    /** @type {Map<Member, T[]>} */
    const parts = new Map();
    for (const item of items) {
      for (const member of this.#held.get(object(item)) ?? []) {
        const part = parts.get(member);
        if (part) part.push(item);
        else parts.set(member, [item]);
      }
    }
    for (const [{ tab, w }, part] of parts) this.#world.post(tab, { w, [kind]: part, ...more });
  }

  /** @param {State} state */
  #say(state) {
    this.#state = state;
    this.#world.post(undefined, { state });
  }

  /** @param {string} code @param {string} message */
  #error(code, message) {
    this.#world.post(undefined, { error: { code, message } });
  }

  /** Replaces the timer of this name. @param {string} name @param {number} [ms] @param {() => void} [run] */
  #timer(name, ms = 0, run) {
    this.#timers[name]?.();
    delete this.#timers[name];
    if (run) {
      // What is beyond the range of timers comes earlier: nothing here minds.
      this.#timers[name] = this.#world.timer(Math.min(ms, 2 ** 31 - 1), () => {
        delete this.#timers[name];
        run();
      });
    }
  }

  /** @param {number} failures */
  #wait(failures) {
    return jitter(this.#set.firstMs, this.#set.longestMs, failures, this.#world.random());
  }

  /** Ends the connection; for good, if it is `over`. */
  close(over = false) {
    this.#number++;
    this.#line?.close();
    this.#line = this.#asked = this.#session = this.#token = undefined;
    this.#greeted = this.#ready = false;
    this.#tokenId = 0;
    for (const set of [this.#live, this.#later, this.#ask, this.#strange]) set.clear();
    for (const name in this.#timers) if (over || name !== "better") this.#timer(name);
  }

  #connect() {
    this.close();
    if (!this.#held.size) return this.#say({ state: "idle" });
    this.#say({ state: "connecting", transport: TRANSPORTS[this.#transport] });
    if (this.#auth) this.#askToken();
    else this.#open();
  }

  #open() {
    if (this.#transport === 2) return this.#poll();
    this.#hears(this.#set.openingMs);
    this.#begin(this.#transport ? this.#list() : undefined);
  }

  /** @param {Message} [body] */
  #begin(body) {
    const number = ++this.#number;
    this.#line = this.#world.open(TRANSPORTS[this.#transport], { body, token: this.#token }, (kind, detail) => {
      if (number === this.#number) this.#wire(kind, detail);
    });
  }

  /** One of the tabs gets a token; another one the next time. */
  #askToken() {
    const tabs = [...this.#tabs.keys()];
    const tab = tabs[this.#turn++ % tabs.length];
    const number = this.#number;
    this.#timer("token", this.#set.openingMs, () => {
      // The same path as a refusal by the callback.
      this.#timers.token = () => {};
      this.#gotToken({ number, error: "the token did not come in time" });
    });
    if (tab) this.#world.post(tab, { number });
  }

  /** @param {Message} message */
  #gotToken({ number, token, error }) {
    // What was asked for another connection is not used for this one.
    if (number !== this.#number || !this.#timers.token) return;
    this.#timer("token");
    if (!token) {
      error ||= "there is no token";
      this.#error("token_failed", error);
      // Never without one.
      if (!this.#line) this.#comeBack(error);
      else this.#timer("refresh", this.#wait(this.#asks++), () => this.#askToken());
      return;
    }
    this.#token = token;
    if (this.#line) this.#sendToken();
    else this.#open();
  }

  #sendToken() {
    this.#tokenId = ++this.#id;
    this.#send({ auth: { token: this.#token }, id: this.#id });
  }

  /** @param {Message} message */
  #send(message) {
    this.#line?.send?.(JSON.stringify(message));
  }

  /** There was a sign of life: the next one comes within this. @param {number} [ms] */
  #hears(ms = this.#silence) {
    this.#silence = ms;
    this.#heardAt = this.#world.now();
    this.#timer("silence", ms, () => this.#silent(ms));
  }

  /** @param {number} ms */
  #silent(ms) {
    this.#strike();
    this.#comeBack(`nothing was heard for ${ms} ms`);
  }

  /** What comes over the connection. @param {string} kind @param {any} detail */
  #wire(kind, detail) {
    if (this.#greeted) this.#hears();
    const number = this.#number;
    if (kind === "messages") {
      for (const message of detail) if (number === this.#number) this.#message(message);
    } else if (kind === "answer") this.#answer(detail);
    else if (kind === "closed") this.#closed(detail);
    else if (kind === "status") this.#status(detail);
    else if (kind === "unusable") this.#next(detail);
    else if (kind === "unreachable") {
      // No transport's fault: the best one comes first again.
      if (this.#worked === undefined && !this.#set.transport) this.#transport = 0;
      this.#comeBack(detail);
    } else if (kind === "cut") {
      this.#strike();
      this.#comeBack(detail);
    }
  }

  /** @param {Message} m */
  #message(m) {
    if (m.changes) this.#share("changes", m.changes, change => change.object);
    else if (m.cursor) this.#cursor(m.cursor);
    else if (m.hello) this.#hello(m.hello);
    else if (m.subscribed) this.#answered(m);
    else if (m.resync) this.#share("resync", m.resync.objects ?? [...this.#held.keys()], object => object, { cause: m.resync.cause });
    else if (m.reconnect) {
      this.#comeBack(`the server asks for it: ${m.reconnect.reason}`, m.reconnect.after_ms, true);
    } else if (m.refused) for (const { object, error } of m.refused) this.#refuse(object, error);
    else if ("stale" in m) {
      if (this.#state.state === "live") this.#say({ ...this.#state, stale: m.stale });
    } else if (m.session_unknown) this.#comeBack("the session is not known");
    else if (m.authenticated) this.#authenticated(m);
    else if (m.error) this.#failed(m);
  }

  /** @param {Message} hello */
  #hello({ ping_ms = 25e3, limits: { objects = 1e3, frame_bytes = 65536 } = {} }) {
    this.#greeted = true;
    this.#hears(Math.min(ping_ms, 36e5) + this.#set.graceMs);
    this.#pageObjects = Math.min(objects, 1e3);
    this.#pageBytes = Math.min(frame_bytes, 131072);
    if (this.#transport) return;
    if (this.#token) this.#sendToken();
    else this.#askAll();
  }

  /** @param {Message} m */
  #authenticated({ id, authenticated: { expires_in_ms: ms } }) {
    if (id !== this.#tokenId) return;
    this.#asks = 0;
    // Well before it expires, but not all the time.
    if (ms) this.#timer("refresh", Math.max(ms - Math.min(ms / 4, 6e4), 1e3), () => this.#askToken());
    if (!this.#ready) this.#askAll();
  }

  /** Everything, page by page. */
  #askAll() {
    this.#ready = true;
    this.#ask.clear();
    for (const [key, entries] of this.#debts) this.#ask.set(key, new Map(entries));
    for (const object of this.#held.keys()) if (!this.#uncovered.has(object)) owe(this.#ask, this.#resume ?? "", object, 0);
    this.#go();
  }

  /** Asks for the next page, if none is waiting for its answer: so no cursor can skip one. */
  #go() {
    if (this.#asked) return;
    for (const [key, entries] of this.#ask) {
      const objects = [];
      // A character takes three bytes at most.
      let room = (this.#pageBytes - 200 - key.length) / 3;
      for (const [object, version] of entries) {
        const entry = version ? { object, version } : object;
        room -= JSON.stringify(entry).length + 1;
        // One is always asked for: if even that is too much, the server says so.
        if (objects.length && (room < 0 || objects.length >= this.#pageObjects)) break;
        entries.delete(object);
        if (this.#held.has(object)) objects.push(entry);
      }
      if (!entries.size) this.#ask.delete(key);
      if (!objects.length) continue;
      const id = ++this.#id;
      this.#send({ subscribe: { objects, cursor: key || undefined, more: this.#ask.size > 0 || undefined }, id });
      this.#asked = { id, key, objects: new Set(objects.map(entry => (typeof entry === "string" ? entry : entry.object))) };
      return;
    }
    this.#settled();
  }

  /** @param {string[]} objects */
  #unsubscribe(objects) {
    for (let n = 0; n < objects.length; n += 100) this.#send({ unsubscribe: { objects: objects.slice(n, n + 100) } });
  }

  /** @param {Message} m */
  #answered({ id, subscribed }) {
    if (!this.#asked || id !== this.#asked.id) return;
    const { key } = this.#asked;
    const now = this.#debts.get("");
    /** @type {[string, number?][]} */
    const live = [];
    const gone = [];
    for (const { object, version, error } of subscribed.objects) {
      if (error) this.#refuse(object, error);
      else if (this.#held.has(object)) {
        this.#live.add(object);
        this.#later.delete(object);
        if (!key && now?.get(object) === 0) now.set(object, version || 1);
        live.push(key ? [object] : [object, version ?? 0]);
      } else gone.push(object);
    }
    this.#asked = undefined;
    this.#share("live", live, ([object]) => object);
    this.#unsubscribe(gone);
    this.#go();
  }

  /** @param {Message} m */
  #failed({ id, error }) {
    if (id && id === this.#tokenId) {
      if (error.retryable) this.#comeBack(error.message);
      else this.#stop("unauthenticated", error.message);
    } else if (this.#asked && id === this.#asked.id) {
      for (const object of this.#asked.objects) this.#refuse(object, error);
      this.#asked = undefined;
      this.#go();
    } else this.#error(error.code, error.message);
  }

  /** The server will not speak of it, now or ever. @param {string} object @param {Message} error */
  #refuse(object, error) {
    if (!this.#held.has(object)) return;
    this.#share("refused", [{ object, error }], refused => refused.object);
    if (error.retryable) {
      this.#later.add(object);
      if (!this.#uncovered.has(object)) owe(this.#debts, this.#asked?.key ?? this.#resume ?? "", object, 0);
      this.#uncovered.add(object);
    } else this.#forget(object);
  }

  /** Asks again for what was refused for now. */
  #askAgain() {
    if (this.#transport) return this.#connect();
    for (const [key, entries] of this.#debts) {
      for (const [object, version] of entries) if (this.#later.has(object)) owe(this.#ask, key, object, version);
    }
    this.#later.clear();
    this.#go();
  }

  /** Everything is asked and answered. */
  #settled() {
    if (!this.#later.size) this.#asks = 0;
    else if (!this.#timers.ask) this.#timer("ask", this.#wait(this.#asks++), () => this.#askAgain());
    this.#refused = false;
    this.#strikes = 0;
    this.#unusable = 0;
    this.#worked = this.#transport;
    if (this.#state.state === "live") return;
    this.#say({ state: "live", transport: TRANSPORTS[this.#transport] });
    // A connection that lives for so long was a good one: the next wait is a first one again.
    this.#timer("well", 1e4, () => (this.#failures = 0));
    if (!this.#transport) this.#betterMs = this.#set.betterMs;
    else if (!this.#set.transport && !this.#timers.better) {
      this.#timer("better", this.#betterMs, () => {
        if (this.#state.state !== "live") return;
        this.#betterMs = Math.min(this.#betterMs * 2, 6e5);
        this.#transport = 0;
        this.#connect();
      });
    }
  }

  /** Everything before it was told. @param {string} cursor */
  #cursor(cursor) {
    if (this.#transport) {
      // Of a stream it says too that all is live that was asked for.
      if (this.#asked) this.#arrived();
    } else if (!this.#ready || this.#asked || this.#ask.size) return;
    this.#resume = cursor;
    for (const [key, entries] of this.#debts) {
      for (const object of entries.keys()) if (!this.#later.has(object)) entries.delete(object);
      if (!entries.size) this.#debts.delete(key);
    }
    this.#uncovered = new Set(this.#later);
    for (const watches of this.#tabs.values()) for (const { tab, w } of watches.values()) this.#world.post(tab, { w, cursor });
  }

  /** Everything that is held, where one cursor has to speak for all: what it cannot speak for has to be fetched. */
  #list() {
    const key = this.#resume ?? [...this.#debts.keys()].find(key => key) ?? "";
    const versions = key ? undefined : this.#debts.get("");
    this.#asked = { key, objects: new Set(this.#held.keys()) };
    this.#ask.clear();
    for (const [other, entries] of this.#debts) {
      for (const [object, version] of entries) if (other !== key && (other || version)) this.#strange.add(object);
    }
    const objects = [...this.#held.keys()].map(object => {
      const version = versions?.get(object);
      return version ? { object, version } : object;
    });
    return { objects, cursor: key || undefined };
  }

  #poll() {
    const body = this.#session ? { session: this.#session, cursor: this.#resume } : this.#list();
    // Whoever asks for something new wants to know soon that it is live.
    const wait_ms = this.#asked ? 0 : this.#set.pollMs;
    this.#hears(wait_ms + this.#set.graceMs);
    this.#polledAt = this.#heardAt;
    this.#begin({ ...body, wait_ms });
  }

  /** To a poll. @param {Message} answer */
  #answer({ changes, resync, refused, cursor, session, more, poll_after_ms }) {
    const soon = !this.#asked && !more && !resync && !changes.length && this.#heardAt - this.#polledAt < 100;
    this.#greeted = true;
    this.#session = session;
    this.#message({ refused });
    if (this.#asked) this.#arrived();
    this.#message({ changes });
    if (resync) this.#message({ resync });
    if (cursor) this.#cursor(cursor);
    if (poll_after_ms != null) this.#comeBack("the server asks for it", poll_after_ms, true);
    // Somebody on the way may answer without waiting.
    else if (soon) this.#timer("change", 1e3, () => this.#poll());
    else this.#poll();
  }

  /** What an event stream or poll was asked for is live. */
  #arrived() {
    const known = (/** @type {string} */ object) => this.#held.has(object) && !this.#later.has(object);
    const live = [...(this.#asked?.objects ?? [])].filter(known);
    this.#asked = undefined;
    for (const object of live) this.#live.add(object);
    this.#share("live", live.map(object => [object]), ([object]) => object);
    this.#share("fetch", [...this.#strange].filter(known), object => object, { cause: "added" });
    this.#strange.clear();
    this.#settled();
  }

  /** @param {{ code: number, reason: string }} closed */
  #closed({ code, reason }) {
    const message = `closed with code ${code}${reason && `: ${reason}`}`;
    const stop = STOPS[code] ?? (code >= 4500 && "closed");
    if (stop) return this.#stop(stop, message);
    this.#strike();
    this.#comeBack(message);
  }

  /** An answer of HTTP that is not the one asked for. @param {Message} answer */
  #status({ status, retryAfter, problem }) {
    const message = `HTTP status ${status}${problem.detail ? `: ${problem.detail}` : ""}`;
    const stop = STOPS[status] ?? (problem.code && (status === 400 || status === 415) && "protocol");
    if (stop) this.#stop(stop, message);
    else if ([408, 409, 410, 425, 429, 500].includes(status) || status > 501) this.#comeBack(message, retryAfter * 1e3);
    // From anybody but one of ours it says that the transport is unknown.
    else this.#next(message);
  }

  /** The transport does not work here: another one, or stop if there is none. @param {string} message */
  #next(message) {
    if (this.#set.transport || ++this.#unusable > 2) return this.#stop("no_server", message);
    this.#fall();
    this.#connect();
  }

  /** The path gave way before anything was told on it: that may be the transport's fault. */
  #strike() {
    if (this.#greeted || this.#set.transport) return;
    this.#strikes++;
    // From one that was tried because it is better, back at once.
    if (this.#strikes > 1 || (this.#worked !== undefined && this.#worked !== this.#transport)) this.#fall();
  }

  #fall() {
    this.#strikes = 0;
    this.#transport = this.#worked !== undefined && this.#worked !== this.#transport ? this.#worked : (this.#transport + 1) % 3;
    this.#worked = undefined;
  }

  /** Coming back would end the same way. @param {string} reason @param {string} message */
  #stop(reason, message) {
    if (reason === "unauthenticated" && this.#auth && !this.#refused) {
      // The token may just have become too old: one more chance with a fresh one.
      this.#refused = true;
      this.#error("token_refused", message);
      return this.#connect();
    }
    this.#refused = false;
    this.close();
    this.#say({ state: "stopped", reason, message });
  }

  /**
   * The connection has ended; another one after a while: of our own, or at least, or exactly so many milliseconds.
   * @param {string} message
   */
  #comeBack(message, atLeast = 0, exact = false) {
    this.close();
    const own = this.#wait(this.#failures++);
    if (!this.#online) return this.#say({ state: "offline", message });
    // Where all are told the same, they spread behind it.
    const wait = Math.min(atLeast, 6e5) + (exact ? 0 : own);
    this.#wished = atLeast > 0;
    this.#say({ state: "waiting", message, wait });
    this.#timer("connect", wait, () => this.#connect());
  }

  /** The network came or went, or somebody looks. @param {boolean} online */
  #wake(online) {
    const back = online && !this.#online;
    const { state } = this.#state;
    this.#online = online;
    if (state === "waiting" && !online) {
      this.#timer("connect");
      this.#say({ state: "offline" });
    } else if (online && (state === "offline" || (state === "waiting" && !this.#wished))) {
      this.#timer("connect", this.#wait(0), () => this.#connect());
    } else if (this.#greeted && !this.#transport) {
      // Whether the path still is one.
      this.#send({ ping: {} });
      this.#timer("silence", 5e3, () => this.#silent(5e3));
    } else if (this.#greeted && (back || this.#world.now() - this.#heardAt > this.#silence)) this.#connect();
  }
}

/**
 * A WebSocket, as the hub wants it.
 * @param {typeof WebSocket | undefined} Socket @param {string} url @param {(kind: string, detail?: any) => void} on
 */
function openSocket(Socket, url, on) {
  /** @type {WebSocket | undefined} */
  let socket;
  try {
    if (Socket) socket = new Socket(`${url.replace(/^http/, "ws")}/v1/ws`, "tidings.v1.json");
  } catch {
    // Said below.
  }
  if (!socket) {
    queueMicrotask(() => on("unusable", "there is no WebSocket"));
    return { close() {} };
  }
  const line = socket;
  line.onmessage = ({ data }) => {
    let messages;
    try {
      messages = data.split("\n").filter(Boolean).map((/** @type {string} */ text) => JSON.parse(text));
    } catch {
      return on("cut", "a message made no sense");
    }
    on("messages", messages);
  };
  line.onclose = ({ code, reason }) => on("closed", { code, reason });
  // A close event follows, but not everywhere.
  line.onerror = () => on("closed", { code: 1006, reason: "" });
  return {
    send: (/** @type {string} */ text) => line.send(text),
    close() {
      line.onmessage = line.onclose = line.onerror = null;
      line.close(1000);
    },
  };
}

/**
 * An event stream or a poll, as the hub wants it.
 * @param {typeof fetch} get @param {string} url @param {{ body?: Message, token?: string }} ask
 * @param {(kind: string, detail?: any) => void} on
 */
function openFetch(get, url, { body, token }, on) {
  const stop = new AbortController();
  /** @type {Record<string, string>} */
  const headers = { "content-type": "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  let kind = "unreachable";
  const run = async () => {
    const answer = await get(url, { method: "POST", headers, body: JSON.stringify(body), signal: stop.signal });
    kind = "cut";
    const type = answer.headers.get("content-type") ?? "";
    const retryAfter = +(answer.headers.get("retry-after") ?? 0);
    if (!answer.ok) return on("status", { status: answer.status, retryAfter, problem: /json/.test(type) ? await answer.json() : {} });
    if (/json/.test(type)) return on("answer", await answer.json());
    if (!/event-stream/.test(type) || !answer.body) return on("unusable", `an answer of type ${type}`);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return on("cut", "the stream has ended");
      const [messages, rest] = readEvents(text + value);
      if ((text = rest).length > 2 ** 24) return on("cut", "an event without end");
      on("messages", messages);
    }
  };
  run().catch(error => on(kind, String(error)));
  return { close: () => stop.abort() };
}

/**
 * The hub's world.
 * @param {string} url @param {Options} options @param {World["post"]} post @param {World["attend"]} attend
 * @returns {World}
 */
function world(url, options, post, attend) {
  return {
    post,
    attend,
    open: (transport, ask, on) =>
      transport === "websocket"
        ? openSocket(options.WebSocket ?? globalThis.WebSocket, url, on)
        : openFetch(options.fetch ?? fetch, `${url}/v1/${transport}`, ask, on),
    timer(ms, run) {
      const timer = setTimeout(run, ms);
      return () => clearTimeout(timer);
    },
    now: () => performance.now(),
    random: Math.random,
  };
}

const newName = () => Math.random().toString(36).slice(2);

/**
 * A hub for all tabs on a channel, for as long as its lock is held. A tab holds a lock of its own name while it lives.
 * @param {string} url @param {Options} options @param {string} name @param {AbortSignal} [signal]
 */
async function serve(url, options, name, signal) {
  await navigator.locks.request(name, { signal }, async () => {
    const channel = new BroadcastChannel(name);
    const from = newName();
    /** @type {World["post"]} */
    const post = (to, message) => channel.postMessage({ to, from, ...message });
    const attend = (/** @type {string} */ tab, /** @type {() => void} */ gone) => {
      navigator.locks.request(name + tab, { signal }, gone).catch(() => {});
    };
    const hub = new Hub(world(url, options, post, attend), options);
    channel.onmessage = ({ data }) => {
      if (data.to === from || data.to === "hub") hub.hear(data.from, data);
    };
    post(undefined, { hello: true, state: hub.state });
    await new Promise(over => signal?.addEventListener("abort", over));
    hub.close(true);
    channel.close();
  });
}

/** A hub in a SharedWorker, where one can be had. @param {string} url @param {Options} options @param {string} name */
const serveElsewhere = (url, options, name) =>
  new Promise(resolve => {
    setTimeout(resolve, 3e3);
    try {
      const worker = new SharedWorker(new URL("./tidings.js", import.meta.url), { type: "module" });
      worker.onerror = worker.port.onmessage = resolve;
      worker.port.postMessage([url, options, name]);
    } catch (error) {
      resolve(error);
    }
  });

/** This module is the SharedWorker. */
function work() {
  const names = new Set();
  // @ts-ignore: it is the scope of a worker.
  globalThis.onconnect = ({ ports: [port] }) => {
    port.onmessage = (/** @type {MessageEvent} */ { data: [url, options, name] }) => {
      if (!names.has(name)) serve(url, options, name).catch(() => {});
      names.add(name);
      // Only now: whoever waits for the lock stands behind it.
      port.postMessage(0);
    };
  };
}
if ("SharedWorkerGlobalScope" in globalThis && location.href === import.meta.url) work();

/** @param {Entry} entry @returns {[string, number | undefined]} */
function read(entry) {
  const [object, version] = typeof entry === "object" ? [entry.object, entry.version] : [entry];
  // 1 to 255 bytes of UTF-8 without control characters.
  const fine = typeof object === "string" && /^[^\0-\x1f\x7f-\x9f]+$/.test(object) && encodeURIComponent(object).replace(/%../g, "x").length < 256;
  if (!fine) throw new TypeError(`no object ID: ${object}`);
  return [object, version];
}

/**
 * Objects that are watched. Without a handler, `for await` tells their changes one by one: asking for the next one says
 * that the last one is handled.
 */
export class Watch {
  #send;
  #tell;
  #ledger;
  #handler;
  #parallel;
  #tries;
  #againMs;
  #running = 0;
  /** How often handling failed. @type {Map<string, number>} */ #failed = new Map();
  /** @type {Set<ReturnType<typeof setTimeout>>} */ #timers = new Set();
  /** @type {[() => void, (error: Error) => void][]} */ #eager = [];
  /** @type {[(result: IteratorResult<Change, undefined>) => void, (error: Error) => void][]} */ #readers = [];
  /** @type {Change | undefined} */ #last;
  /** @type {TidingsError | undefined} */ #stopped;
  #closed = false;
  #cursor;

  /**
   * @internal
   * @param {Iterable<Entry>} objects @param {((change: Change, watch: Watch) => any) | undefined} handler
   * @param {WatchOptions} options @param {(message: Message) => void} send @param {(type: string, detail: Message) => void} tell
   */
  constructor(objects, handler, { cursor, parallel = 1, tries = 5, againMs = 1e3 }, send, tell) {
    this.#ledger = new Ledger(cursor);
    this.#cursor = cursor;
    this.#handler = handler;
    this.#parallel = parallel;
    this.#tries = tries;
    this.#againMs = againMs;
    this.#send = send;
    this.#tell = tell;
    for (const entry of objects) this.#ledger.add(...read(entry), !!cursor);
  }

  /** What is watched. */
  get objects() {
    return [...this.#ledger.held.keys()];
  }

  /** A place that may be stored: everything before it has been handled. A later watch of the same objects goes on there. */
  get cursor() {
    return this.#ledger.cursor;
  }

  /** Watches these too, from now on. @param {...Entry} objects */
  add(...objects) {
    const added = objects.map(read).filter(([object, version]) => this.#ledger.add(object, version));
    if (added.length && !this.#closed) this.#send({ add: added.map(([object]) => [object, this.#ledger.start(object)]) });
  }

  /** Watches these no longer: nothing more is told of them. @param {...string} objects */
  remove(...objects) {
    const remove = objects.filter(object => this.#ledger.remove(object));
    if (remove.length && !this.#closed) this.#send({ remove });
    this.#run();
  }

  /** Ends it. A handler that is running goes on; nothing more is told. */
  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#send({ over: true });
    for (const timer of this.#timers) clearTimeout(timer);
    this.#run();
  }

  /**
   * Everything that is watched is live, or refused: what changes from now on is told. Then is the time to fetch the first
   * state. It fails with a `TidingsError` if the connection has stopped or the watch is closed.
   * @returns {Promise<void>}
   */
  ready() {
    return new Promise((ok, bad) => {
      this.#eager.push([ok, bad]);
      this.#run();
    });
  }

  /** @returns {AsyncIterator<Change, undefined>} */
  [Symbol.asyncIterator]() {
    return {
      next: () =>
        new Promise((ok, bad) => {
          if (this.#last) this.#ledger.settle(this.#last.object);
          this.#last = undefined;
          this.#readers.push([ok, bad]);
          this.#run();
        }),
      return: async () => {
        this.close();
        return { value: undefined, done: true };
      },
    };
  }

  /** What a new hub has to know. @internal */
  _join() {
    const { held, uncovered, pending, resume } = this.#ledger;
    /** @type {string[]} */
    const covered = [];
    const add = [];
    for (const object of held.keys()) {
      pending.add(object);
      if (uncovered.has(object)) add.push([object, this.#ledger.start(object)]);
      else covered.push(object);
    }
    this.#send({ cursor: resume, covered, add });
  }

  /** What the hub tells. @internal @param {Message} m */
  _hear({ live = [], changes = [], resync, fetch = [], refused = [], cause, cursor }) {
    const ledger = this.#ledger;
    for (const [object, start] of live) ledger.live(object, start);
    for (const change of changes) ledger.change(change);
    for (const object of fetch) ledger.fetch(object, cause);
    if (resync) ledger.resync(resync, cause);
    for (const { object, error } of refused) {
      if (error.retryable) ledger.away(object);
      else ledger.remove(object);
      this.#tell("error", { ...error, code: "object_refused", why: error.code, object });
    }
    if (cursor) ledger.vouch(cursor);
    this.#run();
  }

  /** @internal @param {TidingsError} [error] */
  _stop(error) {
    this.#stopped = error;
    this.#run();
  }

  /** Hands out what there is to whoever wants it. */
  #run() {
    const over = this.#closed ? new TidingsError("closed") : this.#stopped;
    if (over || !this.#ledger.pending.size) for (const [ok, bad] of this.#eager.splice(0)) over ? bad(over) : ok();
    let change;
    while (!this.#closed && (this.#handler ? this.#running < this.#parallel : this.#readers.length) && (change = this.#ledger.take())) {
      if (this.#handler) this.#handle(this.#handler, change);
      else this.#readers.shift()?.[0]({ value: (this.#last = change), done: false });
    }
    if (over) for (const [ok, bad] of this.#readers.splice(0)) this.#closed ? ok({ value: undefined, done: true }) : bad(over);
    if (this.#cursor !== this.#ledger.cursor) {
      this.#cursor = this.#ledger.cursor;
      if (this.#cursor) this.#tell("cursor", { cursor: this.#cursor });
    }
  }

  /** @param {(change: Change, watch: Watch) => any} handler @param {Change} change */
  async #handle(handler, change) {
    const { object } = change;
    this.#running++;
    try {
      await handler(change, this);
      this.#failed.delete(object);
    } catch (error) {
      const times = (this.#failed.get(object) ?? 0) + 1;
      const last = times >= this.#tries;
      this.#failed.set(object, last ? 0 : times);
      this.#tell("error", { code: last ? "handler_gave_up" : "handler_failed", message: String(error), error, change, times });
      if (!last && !this.#closed) {
        const timer = setTimeout(() => {
          this.#timers.delete(timer);
          this.#ledger.again(change);
          this.#run();
        }, jitter(this.#againMs, 3e4, times - 1));
        this.#timers.add(timer);
        return;
      }
    } finally {
      this.#running--;
      queueMicrotask(() => this.#run());
    }
    this.#ledger.settle(object);
  }
}

/**
 * Watches objects of one server or cluster.
 *
 * Events: `state` (detail: a `State`), `cursor` (detail: `{ watch, cursor }`), and `error` (detail: `code`, `message` and
 * what belongs to it). The codes: `handler_failed`, `handler_gave_up`, `object_refused`, `token_failed`, `token_refused`,
 * `sharing_failed`, `stopped`, and those of the protocol. An error that nobody calls `preventDefault()` on is logged.
 */
export class Tidings extends EventTarget {
  #url;
  #options;
  /** @type {Map<string, Watch>} */ #watches = new Map();
  /** @type {((message: Message) => void) | undefined} */ #post;
  /** Which hub listens. @type {string | undefined} */ #hub;
  #began = false;
  #over = new AbortController();
  /** @type {State} */ #state = { state: "idle" };

  /** @param {string | URL} url of the server @param {Options} [options] */
  constructor(url, options = {}) {
    super();
    this.#url = new URL(url, globalThis.location?.href).href.replace(/\/+$/, "");
    this.#options = options;
  }

  /** How the connection is doing. */
  get state() {
    return this.#state;
  }

  /**
   * Calls `handler` when one of these has changed, and waits for its promise; changes meanwhile coalesce. If it throws, it
   * is told again. Without a handler, use `for await`.
   * @param {Iterable<Entry>} objects @param {((change: Change, watch: Watch) => any) | undefined} [handler] @param {WatchOptions} [options]
   */
  watch(objects, handler, options = {}) {
    if (this.#over.signal.aborted) throw new TidingsError("closed");
    const w = newName();
    const watch = new Watch(
      objects,
      handler,
      options,
      message => {
        if (message.over) this.#watches.delete(w);
        if (this.#hub) this.#post?.({ w, auth: !!this.#options.token, ...message });
      },
      (type, detail) => this.#tell(type, { ...detail, watch }),
    );
    this.#watches.set(w, watch);
    if (!this.#began) this.#begin();
    else if (this.#hub) watch._join();
    if (this.#state.state === "stopped") watch._stop(new TidingsError(this.#state.reason ?? "closed", this.#state.message));
    return watch;
  }

  /** Comes back at once, also after a stop: for instance once somebody has logged in. */
  retry() {
    this.#post?.({ retry: true });
  }

  /** Ends all watches. */
  close() {
    for (const watch of this.#watches.values()) watch.close();
    this.#over.abort();
  }

  #begin() {
    this.#began = true;
    const { share = true, WebSocket, fetch, token } = this.#options;
    const signal = this.#over.signal;
    const wake = () => this.#post?.({ hello: true, auth: !!token, online: navigator.onLine !== false });
    for (const name of ["online", "offline", "pageshow"]) globalThis.addEventListener?.(name, wake, { signal });
    const page = globalThis.document;
    page?.addEventListener("visibilitychange", () => page.hidden || wake(), { signal });
    if (share && page && !WebSocket && !fetch && globalThis.BroadcastChannel && navigator.locks) {
      this.#join(`tidings ${this.#url} ${share}${token ? " +" : ""}`).catch(error => {
        if (signal.aborted) return;
        this.#tell("error", { code: "sharing_failed", message: String(error), error });
        this.#alone();
      });
    } else this.#alone();
  }

  /** With a hub of one's own. */
  #alone() {
    const later = (/** @type {() => void} */ run) => queueMicrotask(() => this.#over.signal.aborted || run());
    const post = (/** @type {string | undefined} */ _, /** @type {Message} */ message) => later(() => this.#hear({ from: "own", ...message }));
    const hub = new Hub(world(this.#url, this.#options, post, () => {}), this.#memory());
    this.#over.signal.addEventListener("abort", () => hub.close(true));
    this.#post = message => later(() => hub.hear("", message));
    this.#post({ hello: true, auth: !!this.#options.token });
  }

  /** With the hub of all tabs. @param {string} name */
  async #join(name) {
    const signal = this.#over.signal;
    const id = newName();
    await new Promise((ok, bad) => {
      const hold = () => new Promise(free => ok(signal.addEventListener("abort", free)));
      navigator.locks.request(name + id, hold).catch(bad);
    });
    const channel = new BroadcastChannel(name);
    signal.addEventListener("abort", () => channel.close());
    channel.onmessage = ({ data }) => {
      if (data.to === undefined || data.to === id) this.#hear(data);
    };
    this.#post = message => channel.postMessage({ to: this.#hub ?? "hub", from: id, ...message });
    this.#post({ hello: true, auth: !!this.#options.token });
    const options = this.#memory();
    if (!String(this.#options.share).startsWith("tabs")) await serveElsewhere(this.#url, options, name);
    // Where there is no such worker, or none any more, the tab that comes first has the hub.
    await serve(this.#url, options, name, signal);
  }

  /** What a hub is to know, as it can be sent elsewhere. */
  #memory() {
    const options = Object.entries(this.#options).filter(([, value]) => typeof value !== "function");
    let worked;
    try {
      worked = localStorage.getItem(`tidings ${this.#url}`);
    } catch {
      // There is none.
    }
    return Object.fromEntries([...options, ["worked", worked]]);
  }

  /** What the hub says. @param {Message} m */
  #hear(m) {
    if (m.hello && (m.from !== this.#hub || !m.known)) {
      this.#hub = m.from;
      for (const watch of this.#watches.values()) watch._join();
    }
    if (m.from !== this.#hub) return;
    if (m.state) this.#become(m.state);
    if (m.error) this.#tell("error", m.error);
    if (m.w) this.#watches.get(m.w)?._hear(m);
    if (m.number) this.#getToken(m.number);
  }

  /** @param {State} state */
  #become(state) {
    this.#state = state;
    if (state.state === "live") {
      try {
        localStorage.setItem(`tidings ${this.#url}`, state.transport ?? "");
      } catch {
        // There is none.
      }
    }
    const stop = state.state === "stopped" ? new TidingsError(state.reason ?? "closed", state.message) : undefined;
    for (const watch of this.#watches.values()) watch._stop(stop);
    this.#tell("state", state);
    if (stop) this.#tell("error", { ...state, code: "stopped" });
  }

  /** @param {number} number */
  async #getToken(number) {
    try {
      this.#post?.({ number, token: await this.#options.token?.() });
    } catch (error) {
      this.#post?.({ number, error: String(error) });
    }
  }

  /** @param {string} type @param {object} detail */
  #tell(type, detail) {
    const event = new CustomEvent(type, { detail, cancelable: true });
    if (this.dispatchEvent(event) && type === "error") console.error("tidings:", detail);
  }
}

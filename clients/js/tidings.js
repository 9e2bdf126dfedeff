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
 * | `createHub` | the one connection of many watches: what to ask, when to come back and how | sockets, clocks, tabs |
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

/** A watch as the hub sees it. @typedef {{ tab: string, w: string, objects: Set<string>, joined?: boolean }} Member */

/** Objects by the cursor from where on they have to be caught up; under the empty one by a version (0: from now on). @typedef {Map<string, Map<string, number>>} Debts */

/** @param {Debts} debts @param {string} key @param {string} object @param {number} version */
function owe(debts, key, object, version) {
  const entries = debts.get(key) ?? new Map();
  debts.set(key, entries);
  const old = entries.get(object);
  entries.set(object, old && version ? Math.min(old, version) : old || version);
}

/**
 * The one connection of many watches: `hear` takes what tabs say, `World.open` gives what the server says. Pure: it has
 * no other way to the world than `World`.
 *
 * It keeps nothing that outlives a connection: for each one, every watch joins anew and says from where on it has to be
 * caught up. So a hub can die without a loss.
 * @param {World} world @param {Options & { worked?: Transport }} [options]
 */
export function createHub(world, options) {
  const set = { firstMs: 1e3, longestMs: 3e4, openingMs: 1e4, graceMs: 1e4, pollMs: 25e3, betterMs: 3e4, ...options };
  const fixed = set.transport;
  /** @type {Set<string>} */
  const tabs = new Set();
  /** @type {Map<string, Member>} */
  const members = new Map();
  /** @type {Map<string, Set<Member>>} */
  const held = new Map();
  /** @type {Record<string, () => void>} */
  const timers = {};

  // Of the connection.
  /** Counts requests and sockets: what comes over an older one is passed over. */
  let number = 0;
  /** @type {ReturnType<World["open"]> | undefined} */
  let line;
  let greeted = false;
  /** Greeted, and authenticated if need be. */
  let ready = false;
  /** Answered. @type {Set<string>} */
  const live = new Set();
  /** Still to be asked. @type {Debts} */
  const ask = new Map();
  /** Asked, and not answered yet. @type {{ id?: number, debts: Debts } | undefined} */
  let asked;
  /** Refused for now, and from where on they were asked for. @type {Map<string, [string, number]>} */
  const later = new Map();
  /** Of these a stream or poll cannot tell what was missed. @type {Set<string>} */
  const strange = new Set();
  /** The last cursor, and a poll's session. @type {string | undefined} */
  let resume;
  /** @type {string | undefined} */
  let session;
  /** @type {string | undefined} */
  let token;
  let tokenId = 0;
  let wished = false;
  let silence = 0;
  let heardAt = 0;
  let polledAt = 0;
  let pageObjects = 1;
  let pageBytes = 1;

  // Of all connections.
  /** @type {State} */
  let state = { state: "idle" };
  let ids = 0;
  let online = true;
  let failures = 0;
  let asks = 0;
  /** Whether the tabs have tokens. */
  let auth = false;
  /** The last token was refused. */
  let refused = false;
  let turn = 0;
  let transport = Math.max(TRANSPORTS.indexOf(fixed ?? set.worked ?? "websocket"), 0);
  /** The transport that worked last. @type {number | undefined} */
  let worked;
  /** Transports in a row that cannot be had. */
  let unusable = 0;
  let strikes = 0;
  let betterMs = set.betterMs;

  /** What a tab says. @param {string} tab @param {Message} message */
  function hear(tab, message) {
    const known = tabs.has(tab);
    if (!known) world.attend(tab, () => leave(tab));
    tabs.add(tab);
    auth ||= message.auth;
    if (message.hello) world.post(tab, { hello: true, known, state });
    if (message.w) change(tab, message);
    if (message.number) gotToken(message);
    if ("online" in message) wake(message.online);
    if (message.retry && !line) connect();
  }

  /** @param {string} tab */
  function leave(tab) {
    tabs.delete(tab);
    for (const member of members.values()) if (member.tab === tab) change(tab, { w: member.w, over: true });
    // It may have been the one that was to get a token.
    if (timers.token) askToken();
  }

  /** A watch joins, changes or ends. @param {string} tab @param {Message} message */
  function change(tab, { w, cursor, covered, add = [], remove = [], over }) {
    const name = `${tab} ${w}`;
    /** @type {Member} */
    const member = members.get(name) ?? { tab, w, objects: new Set() };
    members.set(name, member);
    if (over) members.delete(name);
    const gone = [];
    for (const object of over ? member.objects : remove) {
      const watching = held.get(object);
      watching?.delete(member);
      member.objects.delete(object);
      if (watching?.size === 0) {
        held.delete(object);
        later.delete(object);
        if (live.delete(object)) gone.push(object);
      }
    }
    if (covered) {
      member.joined = true;
      for (const object of covered) add.push([object, cursor]);
    }
    const known = [];
    let asking = false;
    for (const [object, start] of add) {
      member.objects.add(object);
      held.set(object, (held.get(object) ?? new Set()).add(member));
      // Whoever comes with a place of its own has not been told what others were told since.
      if (!start && resume && live.has(object)) known.push([object, resume]);
      else {
        if (typeof start === "string") owe(ask, start, object, 0);
        else owe(ask, "", object, start);
        asking = true;
      }
    }
    if (known.length) world.post(tab, { w, live: known });
    if (!held.size) {
      if ((over || remove.length) && state.state !== "stopped") {
        close();
        say({ state: "idle" });
      }
    } else if (state.state === "idle") connect();
    else if (ready && !transport) {
      unsubscribe(gone);
      go();
      // Those who join at the same time cost one request.
    } else if (asking && (line ? transport : state.state === "connecting" && !timers.token)) timer("change", 5, line ? open : begin);
  }

  /**
   * Gives everyone what is theirs.
   * @template T
   * @param {string} kind @param {T[]} items @param {(item: T) => string} object @param {Message} [more]
   */
  function share(kind, items, object, more) {
    /** @type {Map<Member, T[]>} */
    const parts = new Map();
    for (const item of items) {
      for (const member of held.get(object(item)) ?? []) {
        const part = parts.get(member);
        if (part) part.push(item);
        else parts.set(member, [item]);
      }
    }
    for (const [{ tab, w }, part] of parts) world.post(tab, { w, [kind]: part, ...more });
  }

  /** @param {State} now */
  function say(now) {
    world.post(undefined, { state: (state = now) });
  }

  /** @param {string} code @param {string} message */
  const tell = (code, message) => world.post(undefined, { error: { code, message } });

  /** Replaces the timer of this name. @param {string} name @param {number} [ms] @param {() => void} [run] */
  function timer(name, ms = 0, run) {
    timers[name]?.();
    delete timers[name];
    if (run) {
      // What is beyond the range of timers comes earlier: nothing here minds.
      timers[name] = world.timer(Math.min(ms, 2 ** 31 - 1), () => {
        delete timers[name];
        run();
      });
    }
  }

  /** @param {number} failures */
  const wait = failures => jitter(set.firstMs, set.longestMs, failures, world.random());

  /** Ends the connection; for good, if it is `over`. */
  function close(over = false) {
    number++;
    line?.close();
    line = asked = session = token = resume = undefined;
    greeted = ready = false;
    tokenId = 0;
    for (const one of [live, later, ask, strange]) one.clear();
    for (const name in timers) if (over || name !== "better") timer(name);
  }

  function connect() {
    close();
    held.clear();
    members.clear();
    state = { state: "connecting", transport: TRANSPORTS[transport] };
    // Every watch joins.
    world.post(undefined, { hello: true, state });
  }

  function begin() {
    if (auth) askToken();
    else open();
  }

  /** A connection, or another one for a stream or poll whose list is another now. */
  function open() {
    line?.close();
    session = undefined;
    if (transport > 1) return poll();
    hears(set.openingMs);
    send(transport ? list() : undefined);
  }

  /** @param {Message} [body] */
  function send(body) {
    const mine = ++number;
    line = world.open(TRANSPORTS[transport], { body, token }, (kind, detail) => {
      if (mine === number) wire(kind, detail);
    });
  }

  /** One of the tabs gets a token; another one the next time. */
  function askToken() {
    const all = [...tabs];
    const mine = number;
    const late = { number: mine, error: "no token in time" };
    timer("token", set.openingMs, () => gotToken(late));
    world.post(all[turn++ % all.length] ?? "", { number: mine });
  }

  /** @param {Message} message */
  function gotToken({ number: mine, token: given, error = "no token" }) {
    // What was asked for another connection is not used for this one.
    if (mine !== number) return;
    timer("token");
    if (given) {
      token = given;
      if (line) sendToken();
      else open();
      return;
    }
    tell("token_failed", error);
    // Never without one.
    if (line) timer("refresh", wait(asks++), askToken);
    else comeBack(error);
  }

  function sendToken() {
    tokenId = write({ auth: { token } });
  }

  /** @param {Message} message */
  function write(message) {
    line?.send?.(JSON.stringify({ ...message, id: ++ids }));
    return ids;
  }

  /** There was a sign of life: the next one comes within this. */
  function hears(ms = silence) {
    silence = ms;
    heardAt = world.now();
    timer("silence", ms, silent);
  }

  function silent() {
    strike();
    comeBack("nothing was heard");
  }

  /** What comes over the connection. @param {string} kind @param {any} detail */
  function wire(kind, detail) {
    if (greeted) hears();
    const mine = number;
    if (kind === "messages") {
      for (const one of detail) if (mine === number) message(one);
    } else if (kind === "answer") answer(detail);
    else if (kind === "closed") closed(detail);
    else if (kind === "status") status(detail);
    else if (kind === "unusable") next(detail);
    else {
      if (kind === "cut") strike();
      // No transport's fault: the best one comes first again.
      else if (worked === undefined && !fixed) transport = 0;
      comeBack(detail);
    }
  }

  /** @param {Message} m */
  function message(m) {
    if (m.changes) share("changes", m.changes, one => one.object);
    else if (m.cursor) vouch(m.cursor);
    else if (m.hello) hello(m.hello);
    else if (m.subscribed) answered(m);
    else if (m.resync) share("resync", m.resync.objects ?? [...held.keys()], object => object, { cause: m.resync.cause });
    else if (m.reconnect) comeBack(m.reconnect.reason, m.reconnect.after_ms, true);
    else if (m.refused) for (const { object, error } of m.refused) refuse(object, error);
    else if ("stale" in m) say({ ...state, stale: m.stale });
    else if (m.session_unknown) comeBack("session_unknown");
    else if (m.authenticated) authenticated(m);
    else if (m.error) failed(m);
  }

  /** @param {Message} hello */
  function hello({ ping_ms = 25e3, limits: { objects = 1e3, frame_bytes = 65536 } = {} }) {
    greeted = true;
    hears(Math.min(ping_ms, 36e5) + set.graceMs);
    pageObjects = Math.min(objects, 1e3);
    pageBytes = Math.min(frame_bytes, 131072);
    if (transport) return;
    if (token) sendToken();
    else {
      ready = true;
      go();
    }
  }

  /** @param {Message} m */
  function authenticated({ id, authenticated: { expires_in_ms: ms } }) {
    if (id !== tokenId) return;
    asks = 0;
    // Well before it expires, but not all the time.
    if (ms) timer("refresh", Math.max(ms - Math.min(ms / 4, 6e4), 1e3), askToken);
    ready = true;
    go();
  }

  /** Asks for the next page, if none is waiting for its answer: so no cursor can skip one. */
  function go() {
    if (asked) return;
    for (const [key, entries] of ask) {
      const page = new Map();
      // A character takes three bytes at most.
      let room = (pageBytes - 200 - key.length) / 3;
      for (const [object, version] of entries) {
        room -= JSON.stringify(entry(object, version)).length + 1;
        // One is always asked for: if even that is too much, the server says so.
        if (page.size && (room < 0 || page.size >= pageObjects)) break;
        entries.delete(object);
        if (held.has(object)) page.set(object, version);
      }
      if (!entries.size) ask.delete(key);
      if (!page.size) continue;
      const objects = [...page].map(([object, version]) => entry(object, version));
      const id = write({ subscribe: { objects, cursor: key || undefined, more: ask.size > 0 || undefined } });
      asked = { id, debts: new Map([[key, page]]) };
      return;
    }
    settled();
  }

  /** @param {string} object @param {number} [version] */
  const entry = (object, version) => (version ? { object, version } : object);

  /** @param {string[]} objects */
  function unsubscribe(objects) {
    for (let n = 0; n < objects.length; n += 100) write({ unsubscribe: { objects: objects.slice(n, n + 100) } });
  }

  /** @param {Message} m */
  function answered({ id, subscribed }) {
    if (id !== asked?.id) return;
    /** @type {[string, number?][]} */
    const told = [];
    const gone = [];
    // With a cursor, the version may be of a change that is still to be told.
    const begins = asked?.debts.has("");
    for (const { object, version, error } of subscribed.objects) {
      if (error) refuse(object, error);
      else if (held.has(object)) {
        live.add(object);
        told.push(begins ? [object, version ?? 0] : [object]);
      } else gone.push(object);
    }
    asked = undefined;
    share("live", told, ([object]) => object);
    unsubscribe(gone);
    go();
  }

  /** @param {Message} m */
  function failed({ id, error }) {
    if (id && id === tokenId) {
      if (error.retryable) comeBack(error.message);
      else stop("unauthenticated", error.message);
    } else if (id && id === asked?.id) {
      for (const entries of asked?.debts.values() ?? []) for (const object of entries.keys()) refuse(object, error);
      asked = undefined;
      go();
    } else tell(error.code, error.message);
  }

  /** The server will not speak of it, now or ever. @param {string} object @param {Message} error */
  function refuse(object, error) {
    if (!held.has(object)) return;
    share("refused", [{ object, error }], one => one.object);
    live.delete(object);
    if (error.retryable) {
      later.set(object, [resume ?? "", 0]);
      for (const [key, entries] of asked?.debts ?? []) if (entries.has(object)) later.set(object, [key, entries.get(object) ?? 0]);
    } else {
      for (const member of held.get(object) ?? []) member.objects.delete(object);
      held.delete(object);
    }
  }

  /** Asks again for what was refused for now. */
  function askAgain() {
    for (const [object, [key, version]] of later) owe(ask, key, object, version);
    later.clear();
    if (transport) open();
    else go();
  }

  /** Everything is asked and answered. */
  function settled() {
    if (!later.size) asks = 0;
    else if (!timers.ask) timer("ask", wait(asks++), askAgain);
    refused = false;
    strikes = unusable = 0;
    worked = transport;
    if (state.state === "live") return;
    say({ state: "live", transport: TRANSPORTS[transport] });
    // A connection that lives for so long was a good one: the next wait is a first one again.
    timer("well", 1e4, () => (failures = 0));
    if (!transport) betterMs = set.betterMs;
    else if (!fixed && !timers.better) {
      timer("better", betterMs, () => {
        if (state.state !== "live") return;
        betterMs = Math.min(betterMs * 2, 6e5);
        transport = 0;
        connect();
      });
    }
  }

  /** Everything before it was told. @param {string} cursor */
  function vouch(cursor) {
    // Of a stream it says too that all is live that was asked for.
    if (transport && asked) arrived();
    if (asked || ask.size || !greeted) return;
    resume = cursor;
    for (const { tab, w, joined } of members.values()) if (joined) world.post(tab, { w, cursor });
  }

  /** Everything, where one cursor has to speak for all: what it cannot speak for has to be fetched. */
  function list() {
    for (const [key, entries] of asked?.debts ?? []) for (const [object, version] of entries) owe(ask, key, object, version);
    for (const object of live) owe(ask, resume ?? "", object, 0);
    const cursor = resume ?? [...ask.keys()].find(key => key) ?? "";
    asked = { debts: new Map(ask) };
    ask.clear();
    const objects = new Map();
    for (const [key, entries] of asked.debts) {
      for (const [object, version] of entries) {
        if (!held.has(object)) continue;
        objects.set(object, entry(object, cursor ? 0 : version));
        if (key !== cursor && (key || version)) strange.add(object);
      }
    }
    return { objects: [...objects.values()], cursor: cursor || undefined };
  }

  function poll() {
    const body = session ? { session, cursor: resume } : list();
    // Whoever asks for something new wants to know soon that it is live.
    const wait_ms = asked ? 0 : set.pollMs;
    hears(wait_ms + set.graceMs);
    polledAt = heardAt;
    send({ ...body, wait_ms });
  }

  /** To a poll. @param {Message} answer */
  function answer({ changes, resync, refused, cursor, session: given, more, poll_after_ms }) {
    const soon = !asked && !more && !resync && !changes.length && heardAt - polledAt < 100;
    greeted = true;
    session = given;
    message({ refused });
    if (asked) arrived();
    message({ changes });
    if (resync) message({ resync });
    if (cursor) vouch(cursor);
    if (poll_after_ms != null) comeBack("drain", poll_after_ms, true);
    // Somebody on the way may answer without waiting.
    else if (!timers.change) soon ? timer("change", 1e3, poll) : poll();
  }

  /** What a stream or poll was asked for is live. */
  function arrived() {
    const told = [];
    for (const entries of asked?.debts.values() ?? []) {
      for (const object of entries.keys()) if (held.has(object) && !later.has(object)) told.push([object]), live.add(object);
    }
    asked = undefined;
    share("live", told, ([object]) => object);
    share("fetch", [...strange].filter(object => live.has(object)), object => object, { cause: "added" });
    strange.clear();
    settled();
  }

  /** @param {{ code: number, reason: string }} closed */
  function closed({ code, reason }) {
    const text = `closed with code ${code} ${reason}`;
    const why = STOPS[code] ?? (code >= 4500 && "closed");
    if (why) return stop(why, text);
    strike();
    comeBack(text);
  }

  /** An answer of HTTP that is not the one asked for. @param {Message} answer */
  function status({ status, retryAfter, problem }) {
    const text = `HTTP status ${status} ${problem.detail ?? ""}`;
    const why = STOPS[status] ?? (problem.code && (status === 400 || status === 415) && "protocol");
    if (why) stop(why, text);
    else if ([408, 409, 410, 425, 429, 500].includes(status) || status > 501) comeBack(text, retryAfter * 1e3);
    // From anybody but one of ours it says that the transport is unknown.
    else next(text);
  }

  /** The transport does not work here: another one, or stop if there is none. @param {string} text */
  function next(text) {
    if (fixed || ++unusable > 2) return stop("no_server", text);
    fall();
    connect();
  }

  /** The path gave way before anything was told on it: that may be the transport's fault. */
  function strike() {
    if (greeted || fixed) return;
    // From one that was tried because it is better, back at once.
    if (++strikes > 1 || (worked !== undefined && worked !== transport)) fall();
  }

  function fall() {
    strikes = 0;
    transport = worked !== undefined && worked !== transport ? worked : (transport + 1) % 3;
    worked = undefined;
  }

  /** Coming back would end the same way. @param {string} reason @param {string} message */
  function stop(reason, message) {
    if (reason === "unauthenticated" && auth && !refused) {
      // The token may just have become too old: one more chance with a fresh one.
      refused = true;
      tell("token_refused", message);
      return connect();
    }
    refused = false;
    close();
    say({ state: "stopped", reason, message });
  }

  /**
   * The connection has ended; another one after a while: of our own, or at least, or exactly so many milliseconds.
   * @param {string} message
   */
  function comeBack(message, atLeast = 0, exact = false) {
    close();
    const own = wait(failures++);
    if (!online) return say({ state: "offline", message });
    // Where all are told the same, they spread behind it.
    const ms = Math.min(atLeast, 6e5) + (exact ? 0 : own);
    wished = atLeast > 0;
    say({ state: "waiting", message, wait: ms });
    timer("connect", ms, connect);
  }

  /** The network came or went, or somebody looks. @param {boolean} now */
  function wake(now) {
    const back = now && !online;
    online = now;
    const waits = state.state === "waiting";
    if (waits && !online) {
      timer("connect");
      say({ state: "offline" });
    } else if (online && (state.state === "offline" || (waits && !wished))) timer("connect", wait(0), connect);
    else if (greeted && !transport) {
      // Whether the path still is one.
      write({ ping: {} });
      timer("silence", 5e3, silent);
    } else if (greeted && (back || world.now() - heardAt > silence)) connect();
  }

  return { hear, close, now: () => state };
}

/**
 * A WebSocket, as the hub wants it.
 * @param {typeof WebSocket} Socket @param {string} url @param {(kind: string, detail?: any) => void} on
 */
function openSocket(Socket, url, on) {
  /** @type {WebSocket} */
  let line;
  try {
    line = new Socket(`${url.replace(/^http/, "ws")}/v1/ws`, "tidings.v1.json");
  } catch (error) {
    queueMicrotask(() => on("unusable", String(error)));
    return { close() {} };
  }
  line.onmessage = ({ data }) => {
    let messages;
    try {
      messages = JSON.parse(`[${data.trim().replace(/\n+/g, ",")}]`);
    } catch (error) {
      return on("cut", String(error));
    }
    on("messages", messages);
  };
  line.onclose = closed => on("closed", closed);
  // A close event follows, but not everywhere.
  line.onerror = () => on("closed", { code: 1006, reason: "" });
  return {
    send: (/** @type {string} */ text) => line.send(text),
    close: () => line.close(),
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
    if (!/event-stream/.test(type) || !answer.body) return on("unusable", type);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return on("cut", "the end");
      const [messages, rest] = readEvents(text + value);
      if ((text = rest).length > 2 ** 24) return on("cut", "too long");
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
    const hub = createHub(world(url, options, post, attend), options);
    channel.onmessage = ({ data }) => {
      if (data.to === from || data.to === "hub") hub.hear(data.from, data);
    };
    post(undefined, { hello: true, state: hub.now() });
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
  #options;
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
  constructor(objects, handler, options, send, tell) {
    const { cursor } = options;
    this.#ledger = new Ledger(cursor);
    this.#cursor = cursor;
    this.#handler = handler;
    this.#options = { parallel: 1, tries: 5, againMs: 1e3, ...options };
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
    while (!this.#closed && (this.#handler ? this.#running < this.#options.parallel : this.#readers.length) && (change = this.#ledger.take())) {
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
      const last = times >= this.#options.tries;
      this.#failed.set(object, last ? 0 : times);
      this.#tell("error", { code: last ? "handler_gave_up" : "handler_failed", message: String(error), error, change, times });
      if (!last && !this.#closed) {
        const timer = setTimeout(() => {
          this.#timers.delete(timer);
          this.#ledger.again(change);
          this.#run();
        }, jitter(this.#options.againMs, 3e4, times - 1));
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
      // The number is that of what hub and tabs say to each other: a newer module does not talk to an older one.
      this.#join(`tidings 1 ${this.#url} ${share}${token ? " +" : ""}`).catch(error => {
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
    const hub = createHub(world(this.#url, this.#options, post, () => {}), this.#memory());
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
    return Object.fromEntries([...options, ["worked", this.#worked()]]);
  }

  /** The transport that worked last. @param {string} [now] */
  #worked(now) {
    try {
      const name = `tidings ${this.#url}`;
      if (now) localStorage[name] = now;
      return localStorage[name];
    } catch {
      // There is no such memory.
    }
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
    if (state.state === "live") this.#worked(state.transport);
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

/**
 * The JavaScript client of Tidings: watches objects and calls a function when they changed. One module, nothing to
 * install or build; in pages, workers and Node.
 *
 *     const tidings = new Tidings("https://updates.example.com");
 *     tidings.watch(["order:42"], async change => { await refresh(change.object); });
 *
 * | room | knows | does not know |
 * | --- | --- | --- |
 * | `createLedger` | what one watch was told and has handled, its cursor | connections, time |
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
 * What is said of an object: a change; or that it may have changed (`cause`); that it is refused (`error`); or that it is
 * live, and from where on (`start`).
 * @typedef {{ object: string, version?: number, cause?: string, error?: Message, start?: Start }} Fact
 */

/** From where on an object has to be caught up: a cursor, a version, or 0: from now on. @typedef {string | number} Start */

/**
 * What a hub has to know; it can be sent elsewhere.
 * @typedef {Omit<Options, "token" | "share" | "WebSocket" | "fetch"> & { auth?: boolean, worked?: Transport }} HubOptions
 */

/**
 * What tabs and hub say to each other.
 * @typedef {Record<string, any>} Message
 */

/** In the order of preference. @type {any[]} */
const TRANSPORTS = ["websocket", "events", "poll"];

/** After a resync of another cause, versions cannot be compared with those before. */
const COMPARABLE = /^(added|cursor_unreadable|versions_.*|power_lost|storage_damaged)$/;

/** What coming back would not mend, by close code or HTTP status. @type {Record<number, string>} */
const STOPS = {
  401: "unauthenticated", 403: "forbidden", 413: "limit", 414: "limit", 431: "limit",
  1002: "protocol", 1003: "protocol", 1007: "protocol", 1008: "forbidden", 1009: "protocol",
  4500: "protocol", 4501: "unauthenticated", 4502: "forbidden", 4503: "revoked", 4504: "limit", 4505: "protocol",
  4506: "operator",
};

/** @param {Start} [start] @returns {start is number} */
const isVersion = start => typeof start === "number";

/** Full jitter under a ceiling that doubles. After M. Brooker, "Exponential Backoff And Jitter" (2015). */
const jitter = (/** @type {number} */ first, /** @type {number} */ longest, /** @type {number} */ failures, random = Math.random()) =>
  random * Math.min(longest, first * 2 ** failures);

/** @type {World["timer"]} */
const startTimer = (ms, run) => {
  const timer = setTimeout(run, ms);
  return () => clearTimeout(timer);
};

/**
 * Timers by name: what sets one, in the place of the one of that name (or none, without `run`), and those that run.
 * @param {World["timer"]} start
 * @returns {[(name: string, ms?: number, run?: () => void) => void, Map<string, () => void>]}
 */
function createTimers(start) {
  /** @type {Map<string, () => void>} */
  const timers = new Map();
  return [
    (name, ms = 0, run) => {
      timers.get(name)?.();
      timers.delete(name);
      if (!run) return;
      const end = () => {
        timers.delete(name);
        run();
      };
      // What is beyond the range of timers comes earlier: nothing here minds.
      timers.set(name, start(Math.min(ms, 2 ** 31 - 1), end));
    },
    timers,
  ];
}

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
 * @param {string} [cursor] where it goes on
 */
export function createLedger(cursor) {
  /** `at`: the newest version that was told, or from where on to catch up. @type {Map<string, { at?: Start, wait?: Change, doubt?: Change }>} */
  const held = new Map();
  /** Where a new connection goes on. */
  let resume = cursor;
  /** Objects for which `resume` does not speak. @type {Set<string>} */
  let uncovered = new Set();
  /** Objects that are not live at the present hub. @type {Set<string>} */
  let pending = new Set();
  /** Objects with something waiting, and when the oldest part of it came. @type {Map<string, number>} */
  const queue = new Map();
  /** Objects that are being handled. @type {Map<string, number>} */
  const out = new Map();
  let clock = 0;
  /** Cursors that wait for what was told before them: the next one, and the last. @type {[number, string][]} */
  let places = [];

  /**
   * Adds objects, with the versions that are known of them; `covered`: the cursor of the beginning speaks for them.
   * @param {[string, number?][]} entries
   */
  function add(entries, covered = false) {
    const added = [];
    for (const [object, at] of entries) {
      if (held.has(object)) continue;
      held.set(object, { at });
      pending.add(object);
      added.push(object);
      if (covered) continue;
      uncovered.add(object);
      // What is known from elsewhere may be older than the cursor: the next one will speak for it.
      if (isVersion(at)) cursor = void (places = []);
    }
    return added.map(from);
  }

  /** An object, and from where on a hub has to catch up; `undefined`: from `resume` on. @param {string} object */
  function from(object) {
    const at = held.get(object)?.at;
    return [object, uncovered.has(object) ? (at === 0 ? 1 : at ?? 0) : undefined];
  }

  /** What a new hub has to know. */
  function join() {
    const objects = [...held.keys()];
    objects.forEach(away);
    return { cursor: resume, add: objects.map(from) };
  }

  /** The hub does not speak of it for now. @param {string} object */
  function away(object) {
    const one = held.get(object);
    pending.add(object);
    if (one && !uncovered.has(object) && !isVersion(one.at)) one.at = resume;
  }

  /** @param {string} object */
  function remove(object) {
    for (const one of [queue, pending, uncovered]) one.delete(object);
    advance();
    return held.delete(object);
  }

  /** What a hub tells, and that with it everything that is live was told up to here. @param {Fact[]} facts @param {string} [told] */
  function hear(facts, told) {
    let strange;
    for (const fact of facts) {
      const { object, version, cause, error, start } = fact;
      const one = held.get(object);
      if (!one) continue;
      if (version) {
        // Else it is older than, or the same as, what was told before.
        if (!isVersion(one.at) || version > one.at) {
          one.at = version;
          one.wait = /** @type {Change} */ (fact);
          wait(object);
        }
      } else if ("cause" in fact) {
        if (doubt(object, `${cause}`)) strange = `${cause}`;
      } else if (!error) {
        pending.delete(object);
        if (uncovered.has(object)) one.at ??= start;
      } else if (error.retryable) away(object);
      else remove(object);
    }
    // What was known of another cluster says nothing here.
    if (strange) for (const object of uncovered) doubt(object, strange);
    if (!told) return;
    resume = told;
    uncovered = new Set(pending);
    if (pending.size) return;
    places[places.length && 1] = [++clock, told];
    advance();
  }

  /** It has to be fetched. @param {string} object @param {string} cause */
  function doubt(object, cause) {
    const one = held.get(object);
    const strange = !COMPARABLE.test(cause);
    if (one) {
      if (strange) one.at = 0;
      one.doubt ??= { object, version: null, cause };
      wait(object);
    }
    return strange;
  }

  /** @param {string} object */
  function wait(object) {
    if (!queue.has(object)) queue.set(object, ++clock);
  }

  /** The next change to be handled. @returns {Change | undefined} */
  function take() {
    for (const [object, since] of queue) {
      const one = held.get(object);
      if (out.has(object) || !one) continue;
      const { doubt, wait } = one;
      one.doubt = undefined;
      if (!doubt) one.wait = undefined;
      if (!one.wait) queue.delete(object);
      out.set(object, since);
      return doubt ?? wait;
    }
  }

  /** It has been handled. @param {string} object */
  function settle(object) {
    out.delete(object);
    advance();
  }

  /** It has not been handled: it is told again, or what is newer. @param {Change} change */
  function again(change) {
    const { object } = change;
    const one = held.get(object);
    const since = out.get(object);
    if (one && since) {
      one[change.version === null ? "doubt" : "wait"] ??= change;
      queue.set(object, since);
    }
    settle(object);
  }

  function advance() {
    for (let place; (place = places[0]); places.shift()) {
      for (const times of [queue, out]) for (const since of times.values()) if (since <= place[0]) return;
      cursor = place[1];
    }
  }

  return {
    add,
    join,
    remove,
    hear,
    take,
    settle,
    again,
    /** Where a new process goes on: everything before it has been handled. */
    cursor: () => cursor,
    objects: () => [...held.keys()],
    /** Whether the hub speaks of everything. */
    live: () => !pending.size,
  };
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
    const { event, data, id } = Object.fromEntries(block.split(/\r?\n/).map(line => line.split(/: ?(.*)/s)));
    if (data) messages.push(event ? { [event]: JSON.parse(data) } : { changes: [JSON.parse(data)] });
    if (id) messages.push({ cursor: id });
  }
  return [messages, rest];
}

/**
 * What the hub does in the world.
 * @typedef {object} World
 * @property {(to: string | undefined, message: Message) => void} post to one tab, or to all
 * @property {(transport: Transport, ask: { body?: Message, token?: string }, on: (messages: Message[], end?: Message) => void) =>
 *   { send?: (text: string) => void, close: () => void }} open `on` is never called before this returns
 * @property {(ms: number, run: () => void) => () => void} timer returns what stops it
 * @property {() => number} now milliseconds of a clock that only goes forward
 * @property {() => number} random from 0 to below 1
 * @property {(tab: string, gone: () => void) => void} attend says when the tab is gone
 */

/** A watch as the hub sees it, and what it has yet to be told. @typedef {{ tab: string, w: string, facts: Fact[] }} Member */

/**
 * The one connection of many watches: `hear` takes what tabs say, `World.open` gives what the server says. Pure: it has
 * no other way to the world than `World`.
 *
 * It keeps nothing that outlives a connection: for each one, every watch joins anew and says from where on it has to be
 * caught up. So a hub can die without a loss.
 * @param {World} world @param {HubOptions} [options]
 */
export function createHub(world, options = {}) {
  const { auth, transport: fixed, firstMs = 1e3, longestMs = 3e4, openingMs = 1e4, graceMs = 1e4, pollMs = 25e3, betterMs = 3e4 } = options;
  /** @type {Set<string>} */
  const tabs = new Set();
  /** @type {Map<string, Member>} */
  const members = new Map();
  /** @type {Map<string, Set<Member>>} */
  const held = new Map();
  const [timer, timers] = createTimers(world.timer);

  // Of the connection.
  /** Counts requests and sockets: what comes over an older one is passed over. */
  let number = 0;
  /** @type {ReturnType<World["open"]> | undefined} */
  let line;
  let greeted = false;
  /** A WebSocket that has greeted, and has taken the token if there is one. */
  let ready = false;
  /** Answered. @type {Set<string>} */
  const live = new Set();
  /** Still to be asked. @type {[string, Start][]} */
  let ask = [];
  /** Asked, and not answered yet. @type {Map<string, Start> | undefined} */
  let asked;
  /** Refused for now. @type {[string, Start][]} */
  let later = [];
  /** Of these a stream or poll cannot tell what was missed. @type {Set<string>} */
  const strange = new Set();
  /** The last cursor, and a poll's session. @type {string | undefined} */
  let resume;
  /** @type {string | undefined} */
  let session;
  /** @type {string | undefined} */
  let token;
  let tokenId = 0;
  let pageId = 0;
  let silence = 0;
  let askedAt = 0;
  /** @type {Message} */
  let limits = {};

  // Of all connections.
  /** @type {State} */
  let state = { state: "idle" };
  let ids = 0;
  let online = true;
  let failures = 0;
  let asks = 0;
  /** The last token was refused. */
  let refused = false;
  let turn = 0;
  let transport = Math.max(TRANSPORTS.indexOf(fixed ?? options.worked), 0);
  /** The transport that worked last; -1: none. */
  let worked = -1;
  /** Transports in a row that cannot be had. */
  let unusable = 0;
  let strikes = 0;
  /** When a better one is tried, and how long after that again. */
  let betterAt = world.now() + betterMs;
  let patienceMs = betterMs;

  /** What a tab says. @param {string} tab @param {Message} message */
  function hear(tab, message) {
    if (!tabs.has(tab)) {
      tabs.add(tab);
      world.attend(tab, () => leave(tab));
      if (!message.join) greet(tab);
    }
    if (message.w) change(tab, message);
    if (message.number) gotToken(message);
    if ("online" in message) wake(message.online);
    if (message.retry && !line) connect();
  }

  /** Every watch that hears this joins. @param {string} [tab] */
  function greet(tab) {
    world.post(tab, { hello: true, state });
  }

  /** @param {string} tab */
  function leave(tab) {
    tabs.delete(tab);
    for (const member of members.values()) if (member.tab === tab) change(tab, { w: member.w, over: true });
    // It may have been the one that was to get a token.
    if (timers.has("token")) askToken();
  }

  /** A watch joins, changes or ends. @param {string} tab @param {Message} message */
  function change(tab, { w, join, cursor, add = [], remove = [], over }) {
    const member = members.get(w) ?? (join && { tab, w, facts: [] });
    // It has yet to hear that the connection is another one, and will join.
    if (!member) return;
    members.set(w, member);
    if (over) members.delete(w);
    const gone = [];
    for (const object of over ? held.keys() : remove) {
      const watching = held.get(object);
      if (watching?.delete(member) && !watching.size) {
        held.delete(object);
        if (live.delete(object) || asked?.has(object)) gone.push(object);
      }
    }
    for (const [object, start = cursor] of add) {
      held.set(object, (held.get(object) ?? new Set()).add(member));
      // Whoever comes with a place of its own has not been told what others were told since.
      if (!start && resume && live.has(object)) member.facts.push({ object, start: resume });
      else ask.push([object, start]);
    }
    share([]);
    if (!held.size) {
      if ((over || remove.length) && state.state !== "stopped") {
        close();
        say({ state: "idle" });
      }
    } else if (state.state === "idle") connect();
    else if (ready) {
      // An ID takes half a KiB of a frame at most.
      const most = limits.frame_bytes >> 10 || 1;
      for (let n = 0; n < gone.length; n += most) write({ unsubscribe: { objects: gone.slice(n, n + most) } });
      go();
      // Those who join at the same time cost one request.
    } else if (ask.length && (line ? transport : state.state === "connecting" && !timers.has("token"))) timer("change", 5, begin);
  }

  /** Tells everyone what is theirs of these, and the cursor. @param {Fact[]} facts @param {string} [cursor] */
  function share(facts, cursor) {
    for (const fact of facts) for (const member of held.get(fact.object) ?? []) member.facts.push(fact);
    for (const { tab, w, facts } of members.values()) if (cursor || facts.length) world.post(tab, { w, facts: facts.splice(0), cursor });
  }

  /** @param {State} now */
  function say(now) {
    world.post(undefined, { state: (state = now) });
  }

  /** @param {string} code @param {string} message */
  const tell = (code, message) => world.post(undefined, { error: { code, message } });

  /** @param {number} failures */
  const wait = failures => jitter(firstMs, longestMs, failures, world.random());

  /** Ends the connection. */
  function close() {
    number++;
    line?.close();
    line = asked = session = token = resume = undefined;
    greeted = ready = false;
    tokenId = 0;
    ask = [];
    later = [];
    live.clear();
    strange.clear();
    for (const name of timers.keys()) timer(name);
  }

  function connect() {
    close();
    held.clear();
    members.clear();
    state = { state: "connecting", transport: TRANSPORTS[transport] };
    greet();
  }

  function begin() {
    if (auth && !token) askToken();
    else open();
  }

  /** A connection, or another one for a stream or poll whose list is another now. */
  function open() {
    line?.close();
    session = undefined;
    request();
  }

  function request() {
    const body = session ? { session, cursor: resume } : transport ? list() : {};
    // Whoever asks for something new wants to know soon that it is live.
    const wait_ms = transport < 2 ? undefined : asked ? 0 : pollMs;
    hears(openingMs + (wait_ms ?? 0));
    askedAt = world.now();
    const mine = ++number;
    try {
      line = world.open(TRANSPORTS[transport], { body: { ...body, wait_ms }, token }, (messages, end) => {
        if (mine === number) wire(messages, end);
      });
    } catch (error) {
      closed({ code: 501, reason: error });
    }
  }

  /** One of the tabs gets a token; another one the next time. */
  function askToken() {
    timer("token", openingMs, () => gotToken({ number }));
    world.post([...tabs][turn++ % tabs.size] ?? "", { number });
  }

  /** @param {Message} message */
  function gotToken({ number: mine, token: given, error = "no token came" }) {
    // What was asked for another connection is not used for this one.
    if (mine !== number) return;
    timer("token");
    token = given;
    if (token) return line ? sendToken() : open();
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
    timer("silence", ms, silent);
  }

  const silent = () => closed({ code: 1006, reason: "nothing was heard" });

  /** What comes over the connection, and how it has ended. @param {Message[]} messages @param {Message} [end] */
  function wire(messages, end) {
    if (greeted) hears();
    const mine = number;
    for (const one of messages) if (mine === number) message(one);
    if (end) closed(end);
  }

  /** @param {Message} m */
  function message(m) {
    for (const { object, error } of m.refused ?? []) refuse(object, error);
    if (m.changes) share(m.changes);
    if (m.resync) share((m.resync.objects ?? [...held.keys()]).map(doubt(m.resync.cause)));
    if (m.cursor) vouch(m.cursor);
    if (m.hello) hello(m.hello);
    if (m.subscribed) answered(m);
    if (m.reconnect) comeBack(m.reconnect.reason, m.reconnect.after_ms);
    if ("stale" in m) say({ ...state, stale: m.stale });
    if (m.session_unknown) comeBack("session_unknown");
    if (m.authenticated) authenticated(m);
    if (m.error) failed(m);
    if (m.session) polled(m);
  }

  /** @param {string} cause */
  const doubt = cause => (/** @type {string} */ object) => ({ object, cause });

  /** @param {Message} hello */
  function hello(hello) {
    greeted = true;
    limits = hello.limits;
    hears(hello.ping_ms + graceMs);
    if (transport) return;
    if (token) sendToken();
    else begins();
  }

  function begins() {
    ready = true;
    go();
  }

  /** @param {Message} m */
  function authenticated({ id, authenticated: { expires_in_ms: ms } }) {
    if (id !== tokenId) return;
    asks = 0;
    // Well before it expires, but not all the time.
    if (ms) timer("refresh", Math.max(ms - Math.min(ms / 4, 6e4), 1e3), askToken);
    begins();
  }

  /** Asks for the next page, if none is waiting for its answer: so no cursor can skip one. */
  function go() {
    if (asked) return;
    ask = ask.filter(([object]) => held.has(object));
    if (transport || !ask.length) return settled();
    const cursor = place(ask[0][1]);
    /** @type {Map<string, Start>} */
    const page = new Map();
    // A cursor has at most 2 KiB, and a character takes three bytes at most.
    let room = (limits.frame_bytes - 2200) / 3;
    ask = ask.filter(([object, start]) => {
      if (place(start) !== cursor) return true;
      if (page.has(object)) return page.get(object) !== start;
      room -= JSON.stringify(entry([object, start])).length + 1;
      // One is always asked for: if even that is too much, the server says so.
      if (page.size && (room < 0 || page.size >= limits.objects)) return true;
      page.set(object, start);
    });
    asked = page;
    pageId = write({ subscribe: { objects: [...page].map(entry), cursor, more: ask.length > 0 || undefined } });
  }

  /** @param {Start} start */
  const place = start => (isVersion(start) ? undefined : start);

  /** @param {[string, Start]} of */
  const entry = ([object, start]) => (start && isVersion(start) ? { object, version: start } : object);

  /** @param {Message} m */
  function answered({ id, subscribed }) {
    if (id !== pageId || !asked) return;
    for (const { object, version, error } of subscribed.objects) {
      if (error) refuse(object, error);
      // With a cursor, the version may be of a change that is still to be told: all begin at that cursor.
      else if (isVersion(asked.get(object))) asked.set(object, version ?? 0);
    }
    arrived();
  }

  /** What was asked for and not refused is live. */
  function arrived() {
    const facts = [];
    for (const [object, start] of asked ?? []) {
      if (!held.has(object)) continue;
      live.add(object);
      facts.push({ object, start: transport && isVersion(start) ? undefined : start });
    }
    asked = undefined;
    share(facts);
    share([...strange].map(doubt("added")));
    strange.clear();
    go();
  }

  /** @param {Message} m */
  function failed({ id, error }) {
    if (id === tokenId) {
      if (error.retryable) comeBack(error.message);
      else stop("unauthenticated", error.message);
    } else if (id === pageId && asked) {
      for (const object of asked.keys()) refuse(object, error);
      arrived();
    } else tell(error.code, error.message);
  }

  /** The server will not speak of it, now or ever. @param {string} object @param {Message} error */
  function refuse(object, error) {
    if (!held.has(object)) return;
    share([{ object, error }]);
    live.delete(object);
    if (error.retryable) later.push([object, asked?.get(object) ?? resume ?? 0]);
    else held.delete(object);
    asked?.delete(object);
  }

  /** Asks again for what was refused for now. */
  function askAgain() {
    ask = ask.concat(later);
    later = [];
    if (transport) open();
    else go();
  }

  /** Everything is asked and answered. */
  function settled() {
    if (!later.length) asks = 0;
    else if (!timers.has("ask")) timer("ask", wait(asks++), askAgain);
    refused = false;
    strikes = unusable = 0;
    worked = transport;
    if (state.state === "live") return;
    say({ state: "live", transport: TRANSPORTS[transport] });
    // A connection that lives for so long was a good one: the next wait is a first one again.
    timer("well", 1e4, () => (failures = 0));
    if (!transport) patienceMs = betterMs;
    else if (!fixed) {
      timer("better", betterAt - world.now(), () => {
        patienceMs = Math.min(patienceMs * 2, 6e5);
        transport = 0;
        connect();
      });
    }
  }

  /** Everything before it was told. @param {string} cursor */
  function vouch(cursor) {
    // Of a stream it says too that all is live that was asked for.
    if (transport && asked) arrived();
    if (asked) return;
    resume = cursor;
    share([], cursor);
  }

  /** Everything, where one cursor has to speak for all: what it cannot speak for has to be fetched. */
  function list() {
    /** @type {[string, Start][]} */
    const all = [...ask, ...(asked ?? [])];
    for (const object of live) all.push([object, resume ?? 0]);
    const cursor = resume ?? all.map(([, start]) => place(start)).find(Boolean);
    ask = [];
    asked = new Map();
    for (const [object, start] of all) {
      if (!held.has(object)) continue;
      if (start && start !== cursor && (cursor || asked.has(object))) strange.add(object);
      if (!asked.has(object)) asked.set(object, cursor ?? start);
    }
    return { objects: cursor ? [...asked.keys()] : [...asked].map(entry), cursor };
  }

  /** That was the answer to a poll. @param {Message} m */
  function polled(m) {
    const soon = session && !m.changes.length && world.now() - askedAt < 100;
    greeted = true;
    session = m.session;
    if (m.poll_after_ms != null) comeBack("drain", m.poll_after_ms);
    // Somebody on the way may answer without waiting.
    else if (!timers.has("change")) soon ? timer("change", 1e3, request) : request();
  }

  /**
   * The connection has ended: with a close code (1006: without one), with an answer of HTTP that is not the one asked for,
   * or with 0: there is nobody.
   * @param {Message} end
   */
  function closed({ code, reason, after = 0, ours }) {
    const text = `${reason || "closed"} (${code})`;
    // A bad request is one if our server says so; of somebody on the way it says that the transport is unknown.
    const why = STOPS[ours && /^4(00|15)$/.test(code) ? 4500 : code] ?? (code > 4499 && "closed");
    if (why) return stop(why, text);
    if (code === 501 || (code < 500 && ![0, 408, 409, 410, 425, 429].includes(code))) return next(text);
    if (code > 599) strike();
    // No transport's fault: the best one comes first again.
    if (!code && worked < 0 && !fixed) transport = 0;
    // Where all are told the same, they spread behind it.
    comeBack(text, after ? after * 1e3 + wait(failures) : undefined);
  }

  /** The transport does not work here: another one, or stop if there is none. @param {string} text */
  function next(text) {
    if (fixed || ++unusable > 2) return stop("no_server", text);
    fall();
    connect();
  }

  /** The path gave way before anything was told on it: that may be the transport's fault. */
  function strike() {
    if (!greeted && !fixed && (++strikes > 1 || tries())) fall();
  }

  /** Whether this is one that is tried because it is better. */
  const tries = () => worked >= 0 && worked !== transport;

  function fall() {
    strikes = 0;
    betterAt = world.now() + patienceMs;
    // Back at once to the one that worked.
    transport = tries() ? worked : (transport + 1) % 3;
    worked = -1;
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

  /** Another connection after this long, or after a wait of our own. @param {string} message @param {number} [ms] */
  function comeBack(message, ms) {
    close();
    const own = wait(failures++);
    if (!online) return say({ state: "offline", message });
    const waits = Math.min(ms ?? own, 6e5);
    say({ state: "waiting", message, wait: waits });
    timer(ms === undefined ? "own" : "wish", waits, connect);
  }

  /** The network came or went, or somebody looks. @param {boolean} now */
  function wake(now) {
    const back = now && !online;
    online = now;
    if (!online && state.state === "waiting") comeBack(state.message ?? "");
    // What the server wishes is not shortened.
    else if (online && (state.state === "offline" || timers.has("own"))) timer("own", wait(0), connect);
    else if (ready) {
      // Whether the path still is one.
      write({ ping: {} });
      timer("silence", 5e3, silent);
    } else if (greeted && back) connect();
  }

  greet();
  return { hear, close };
}

/**
 * A WebSocket, as the hub wants it.
 * @param {typeof WebSocket} Socket @param {string} url @param {(messages: Message[], end?: Message) => void} on
 */
function openSocket(Socket, url, on) {
  const line = new Socket(`${url.replace(/^http/, "ws")}/v1/ws`, "tidings.v1.json");
  line.onmessage = ({ data }) => {
    try {
      on(data.trim().split(/\n+/).map((/** @type {string} */ one) => JSON.parse(one)));
    } catch (error) {
      on([], { code: 1006, reason: error });
    }
  };
  // After an error, a close event follows, but not everywhere.
  line.onclose = line.onerror = (/** @type {Message} */ { code = 1006, reason }) => on([], { code, reason });
  return {
    send: (/** @type {string} */ text) => line.send(text),
    close: () => line.close(),
  };
}

/**
 * An event stream or a poll, as the hub wants it.
 * @param {typeof fetch} get @param {string} url @param {{ body?: Message, token?: string }} ask
 * @param {(messages: Message[], end?: Message) => void} on
 */
function openFetch(get, url, { body, token }, on) {
  const stop = new AbortController();
  /** @type {Record<string, string>} */
  const headers = { "content-type": "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  let code = 0;
  const run = async () => {
    const answer = await get(url, { method: "POST", headers, body: JSON.stringify(body), signal: stop.signal });
    code = 1006;
    const type = answer.headers.get("content-type") ?? "";
    const said = /json/.test(type) ? await answer.json() : {};
    if (!answer.ok) on([], { code: answer.status, reason: said.detail, ours: said.code, after: +(answer.headers.get("retry-after") ?? 0) });
    else if (said.session) on([said]);
    else if (!/event-stream/.test(type) || !answer.body) on([], { code: 501 });
    else {
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ""; text.length < 2 ** 24; ) {
        const { value, done } = await reader.read();
        if (done) break;
        const [messages, rest] = readEvents(text + value);
        text = rest;
        on(messages);
      }
      on([], { code });
    }
  };
  run().catch(reason => on([], { code, reason }));
  return { close: () => stop.abort() };
}

/**
 * The hub's world.
 * @param {string} url @param {Options} options @param {World["post"]} post @param {World["attend"]} attend
 * @returns {World}
 */
const createWorld = (url, options, post, attend) => ({
  post,
  attend,
  open: (transport, ask, on) =>
    transport === "websocket"
      ? openSocket(options.WebSocket ?? WebSocket, url, on)
      : openFetch(options.fetch ?? fetch, `${url}/v1/${transport}`, ask, on),
  timer: startTimer,
  now: () => performance.now(),
  random: Math.random,
});

const newName = () => Math.random().toString(36).slice(2);

/**
 * A hub for all tabs on a channel, for as long as its lock is held. A tab holds a lock of its own name while it lives.
 * @param {string} url @param {HubOptions} options @param {string} name @param {AbortSignal} [signal]
 */
const serve = (url, options, name, signal) =>
  navigator.locks.request(name, { signal }, async () => {
    const channel = new BroadcastChannel(name);
    const from = newName();
    const hub = createHub(
      createWorld(
        url,
        options,
        (to, message) => channel.postMessage({ to, from, ...message }),
        (tab, gone) => void navigator.locks.request(name + tab, { signal }, gone).catch(() => {}),
      ),
      options,
    );
    channel.onmessage = ({ data }) => {
      if (data.to === from || data.to === "hub") hub.hear(data.from, data);
    };
    await new Promise(over => signal?.addEventListener("abort", over));
    hub.close();
    channel.close();
  });

/** A hub in a SharedWorker, where one can be had. @param {string} url @param {HubOptions} options @param {string} name */
const serveElsewhere = (url, options, name) =>
  new Promise(resolve => {
    setTimeout(resolve, 3e3);
    const worker = new SharedWorker(new URL("./tidings.js", import.meta.url), { type: "module" });
    worker.onerror = worker.port.onmessage = resolve;
    worker.port.postMessage([url, options, name]);
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
  #timer;
  #timers;
  #running = 0;
  /** How often handling failed. @type {Map<string, number>} */ #failed = new Map();
  /** Whoever waits for news. @type {(() => void)[]} */ #waiting = [];
  /** @type {State} */ #state = { state: "idle" };
  #closed = false;
  #cursor;

  /**
   * @internal
   * @param {Iterable<Entry>} objects @param {((change: Change, watch: Watch) => any) | undefined} handler
   * @param {WatchOptions} options @param {(message: Message) => void} send @param {(type: string, detail: Message) => void} tell
   */
  constructor(objects, handler, options, send, tell) {
    this.#options = { parallel: 1, tries: 5, againMs: 1e3, ...options };
    this.#ledger = createLedger((this.#cursor = options.cursor));
    this.#ledger.add([...objects].map(read), !!options.cursor);
    this.#handler = handler;
    this.#send = send;
    this.#tell = tell;
    [this.#timer, this.#timers] = createTimers(startTimer);
  }

  /** What is watched. */
  get objects() {
    return this.#ledger.objects();
  }

  /** A place that may be stored: everything before it has been handled. A later watch of the same objects goes on there. */
  get cursor() {
    return this.#ledger.cursor();
  }

  /** Watches these too, from now on. @param {...Entry} objects */
  add(...objects) {
    this.#send({ add: this.#ledger.add(objects.map(read)) });
  }

  /** Watches these no longer: nothing more is told of them. @param {...string} objects */
  remove(...objects) {
    this.#send({ remove: objects.filter(object => this.#ledger.remove(object)) });
    this.#run();
  }

  /** Ends it. A handler that is running goes on; nothing more is told. */
  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#state = { state: "stopped" };
    this.#send({ over: true });
    for (const stop of this.#timers.values()) stop();
    this.#run();
  }

  /**
   * Everything that is watched is live, or refused: what changes from now on is told. Then is the time to fetch the first
   * state. It fails with a `TidingsError` if the connection has stopped or the watch is closed.
   * @returns {Promise<void>}
   */
  async ready() {
    for (;;) {
      this.#check();
      if (this.#ledger.live()) return;
      await this.#news();
    }
  }

  /** @returns {AsyncIterator<Change, undefined>} */
  [Symbol.asyncIterator]() {
    /** @type {Change | undefined} */
    let last;
    const end = /** @type {const} */ ({ value: undefined, done: true });
    return {
      next: async () => {
        if (last) this.#ledger.settle(last.object);
        this.#run();
        while (!this.#closed) {
          if ((last = this.#ledger.take())) return { value: last, done: false };
          this.#check();
          await this.#news();
        }
        return end;
      },
      return: async () => {
        this.close();
        return end;
      },
    };
  }

  /** What a new hub has to know. @internal */
  _join() {
    this.#send({ join: true, ...this.#ledger.join() });
  }

  /** What the hub tells. @internal @param {Message} m */
  _hear({ facts, cursor }) {
    this.#ledger.hear(facts, cursor);
    for (const { object, error } of facts) if (error) this.#tell("error", { ...error, code: "object_refused", why: error.code, object });
    this.#run();
  }

  /** @internal @param {State} state of the connection */
  _become(state) {
    this.#state = state;
    this.#run();
  }

  /** Fails if nothing comes any more. */
  #check() {
    const { state, reason = "closed", message } = this.#state;
    if (state === "stopped") throw new TidingsError(reason, message);
  }

  /** @returns {Promise<void>} */
  #news() {
    return new Promise(ok => this.#waiting.push(ok));
  }

  /** Something is new: whoever waits looks for it. */
  #run() {
    for (const ok of this.#waiting.splice(0)) ok();
    if (this.#handler) for (let n = this.#running; n < this.#options.parallel; n++) this.#handle();
    const { cursor } = this;
    if (cursor === this.#cursor) return;
    this.#cursor = cursor;
    if (cursor) this.#tell("cursor", { cursor });
  }

  /** Handles what there is, one after the other. */
  async #handle() {
    this.#running++;
    for (let change; !this.#closed && (change = this.#ledger.take()); this.#run()) {
      const { object } = change;
      try {
        await this.#handler?.(change, this);
      } catch (error) {
        const times = (this.#failed.get(object) ?? 0) + 1;
        this.#failed.set(object, times);
        const last = times >= this.#options.tries;
        this.#tell("error", { code: last ? "handler_gave_up" : "handler_failed", message: String(error), error, change, times });
        if (!last) {
          const again = () => {
            this.#ledger.again(change);
            this.#run();
          };
          if (!this.#closed) this.#timer(object, jitter(this.#options.againMs, 3e4, times - 1), again);
          continue;
        }
      }
      this.#failed.delete(object);
      this.#ledger.settle(object);
    }
    this.#running--;
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
  #post = (/** @type {Message} */ _) => {};
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
        if (this.#hub) this.#post({ w, ...message });
      },
      (type, detail) => this.#tell(type, { ...detail, watch }),
    );
    this.#watches.set(w, watch);
    watch._become(this.#state);
    if (this.#hub) watch._join();
    if (!this.#began) this.#begin();
    return watch;
  }

  /** Comes back at once, also after a stop: for instance once somebody has logged in. */
  retry() {
    this.#post({ retry: true });
  }

  /** Ends all watches. */
  close() {
    for (const watch of this.#watches.values()) watch.close();
    this.#over.abort();
  }

  #begin() {
    this.#began = true;
    const { token, WebSocket, fetch, share = true, ...plain } = this.#options;
    // What can be sent elsewhere.
    const auth = !!token;
    const options = { ...plain, auth, worked: this.#worked() };
    const { signal } = this.#over;
    const wake = () => this.#post({ online: navigator.onLine !== false });
    for (const name of ["online", "offline", "pageshow", "visibilitychange"]) globalThis.addEventListener?.(name, wake, { signal });
    if (share && globalThis.document && !WebSocket && !fetch && navigator.locks) {
      // The number is that of what hub and tabs say to each other: a newer module does not talk to an older one.
      this.#join(`tidings 1 ${share} ${auth} ${this.#url}`, options).catch(error => {
        if (signal.aborted) return;
        this.#tell("error", { code: "sharing_failed", message: String(error), error });
        this.#alone(options);
      });
    } else this.#alone(options);
  }

  /** With a hub of one's own. @param {HubOptions} options */
  #alone(options) {
    const { signal } = this.#over;
    const later = (/** @type {() => void} */ run) => queueMicrotask(() => signal.aborted || run());
    const world = createWorld(this.#url, this.#options, (_, message) => later(() => this.#hear({ from: "own", ...message })), () => {});
    const hub = createHub(world, options);
    signal.addEventListener("abort", hub.close);
    this.#post = message => later(() => hub.hear("", message));
  }

  /** With the hub of all tabs. @param {string} name @param {HubOptions} options */
  async #join(name, options) {
    const { signal } = this.#over;
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
    // If there is a hub, it greets.
    this.#post({});
    if (!/^tidings 1 tabs/.test(name)) await serveElsewhere(this.#url, options, name).catch(() => {});
    // Where there is no such worker, or none any more, the tab that comes first has the hub.
    await serve(this.#url, options, name, signal);
  }

  /** The transport that worked last. @param {Transport} [now] @returns {Transport | undefined} */
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
    if (m.hello) {
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
    for (const watch of this.#watches.values()) watch._become(state);
    this.#tell("state", state);
    if (state.state === "stopped") this.#tell("error", { ...state, code: "stopped" });
  }

  /** @param {number} number */
  async #getToken(number) {
    try {
      this.#post({ number, token: await this.#options.token?.() });
    } catch (error) {
      this.#post({ number, error: String(error) });
    }
  }

  /** @param {string} type @param {object} detail */
  #tell(type, detail) {
    const event = new CustomEvent(type, { detail, cancelable: true });
    if (this.dispatchEvent(event) && type === "error") console.error("tidings:", detail);
  }
}

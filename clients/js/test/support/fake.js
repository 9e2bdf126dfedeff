// A world for a hub in which a test is the server, the tabs and the clock.
import { Watch, createHub } from "../../tidings.js";

export class FakeWorld {
  now_ms = 0;
  /** [due, run] */ timers = new Set();
  /** Every connection: { transport, body, token, on, sent, closed, opened at, number } */ lines = [];
  /** What happened, in order: "open 1", "close 1". */ story = [];
  /** What tabs were told. */ told = [];
  gone = new Map();
  random = () => 0.5;
  /** Called with each question for a token; answers by `hub.hear`. */
  onToken = () => {};

  /** Watches by tab and name: what the hub says to them arrives when it has finished speaking. */
  watches = new Map();
  #post = [];
  #busy = false;
  #state = { state: "idle" };

  constructor(options = {}) {
    this.hub = createHub(
      {
        post: (to, message) => {
          this.told.push({ to, ...structuredClone(message) });
          this.#state = message.state ?? this.#state;
          if (message.number) this.onToken(message.number, to);
          this.#post.push([to, structuredClone(message)]);
        },
        open: (transport, { body, token }, on) => {
          const number = this.lines.length + 1;
          const line = { transport, body: body && JSON.parse(JSON.stringify(body)), token, sent: [], closed: false, number };
          // "messages" of a socket or stream, the "answer" to a poll, or "closed".
          line.on = (kind, detail) => this.#settle(() => (kind === "closed" ? on([], detail) : on(kind === "answer" ? [detail] : detail)));
          this.lines.push(line);
          this.story.push(`open ${number}`);
          return {
            send: text => line.sent.push(JSON.parse(text)),
            close: () => {
              if (!line.closed) this.story.push(`close ${number}`);
              line.closed = true;
            },
          };
        },
        timer: (ms, run) => {
          const timer = [this.now_ms + ms, () => this.#settle(run)];
          this.timers.add(timer);
          return () => this.timers.delete(timer);
        },
        now: () => this.now_ms,
        random: () => this.random(),
        attend: (tab, gone) => this.gone.set(tab, gone),
      },
      options,
    );
    // Its greeting, which nobody hears yet.
    this.#settle(() => {});
  }

  /** Does something, and lets everyone answer. */
  #settle(act) {
    if (this.#busy) return act();
    this.#busy = true;
    act();
    for (let next; (next = this.#post.shift()); ) {
      const [to, message] = next;
      for (const { tab, w, watch } of [...this.watches.values()]) {
        if (to !== undefined && to !== tab) continue;
        if (message.hello) watch._join();
        if (message.w === w) watch._hear(message);
      }
    }
    this.#busy = false;
  }

  get line() {
    return this.lines.at(-1);
  }

  get state() {
    return this.#state.state;
  }

  get said() {
    return this.#state;
  }

  /** What a tab says. */
  hear(tab, message) {
    this.#settle(() => this.hub.hear(tab, message));
  }

  /** A tab is closed. */
  leaves(tab) {
    for (const [name, one] of this.watches) if (one.tab === tab) this.watches.delete(name);
    this.#settle(() => this.gone.get(tab)());
  }

  /** Lets time pass. */
  pass(ms) {
    const until = this.now_ms + ms;
    for (;;) {
      const due = [...this.timers].filter(([at]) => at <= until).sort((a, b) => a[0] - b[0])[0];
      if (!due) break;
      this.now_ms = Math.max(this.now_ms, due[0]);
      this.timers.delete(due);
      due[1]();
    }
    this.now_ms = until;
  }

  /** Lets time pass until the next connection is made. */
  reconnects() {
    const before = this.lines.length;
    for (let n = 0; this.lines.length === before && this.state !== "stopped"; n++) {
      if (n > 10_000) throw new Error("it does not come back");
      this.pass(10);
    }
  }

  /** A tab watches. */
  watch(objects, { tab = "t", w = "w", cursor = undefined, waits = true } = {}) {
    const tell = () => {};
    const watch = new Watch(objects, () => {}, { cursor }, message => this.hear(tab, { w, ...message }), tell);
    this.watches.set(`${tab} ${w}`, { tab, w, watch });
    watch._join();
    // Those who join together are waited for.
    if (waits) this.pass(5);
    return watch;
  }

  /** The server says these. */
  says(...messages) {
    this.line.on("messages", messages);
  }

  hello(limits = {}) {
    this.says({ hello: { ping_ms: 25000, limits: { objects: 1000, frame_bytes: 262144, ...limits } } });
  }

  /** Answers the last page, with these versions. */
  answers(versions = {}) {
    const { subscribe, id } = this.line.sent.findLast(one => one.subscribe);
    const objects = subscribe.objects.map(entry => {
      const object = entry.object ?? entry;
      return { object, version: versions[object] ?? null };
    });
    this.says({ subscribed: { objects }, id });
  }

  /** Answers all pages. */
  answersAll() {
    for (let n = 0; n < 100 && this.line.sent.findLast(one => one.subscribe).id !== n; n++) {
      const { id } = this.line.sent.findLast(one => one.subscribe);
      this.answers();
      if (this.line.sent.findLast(one => one.subscribe).id === id) return;
    }
  }

  /** Greets, answers every page and gives a cursor. */
  lives(cursor = "c1", limits = {}) {
    this.hello(limits);
    this.answersAll();
    this.says({ cursor });
  }

  /** What a watch was told of this kind: changes, live (object and start), refused, resync (objects), cursor. */
  heard(kind, w = "w") {
    const facts = this.told.filter(one => one.w === w).flatMap(({ facts = [], cursor }) => [...facts, ...(cursor ? [{ cursor }] : [])]);
    const kinds = {
      changes: fact => "version" in fact && fact,
      refused: fact => "error" in fact && fact,
      resync: fact => "cause" in fact && fact.object,
      cursor: fact => fact.cursor,
      live: fact => "object" in fact && !("version" in fact || "error" in fact || "cause" in fact) && [fact.object, fact.start],
    };
    return facts.map(kinds[kind]).filter(Boolean);
  }

  errors() {
    return this.told.filter(one => one.error).map(one => one.error.code);
  }
}

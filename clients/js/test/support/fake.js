// A world for a hub in which a test is the server, the tabs and the clock.
import { Hub } from "../../tidings.js";

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

  constructor(options = {}) {
    this.hub = new Hub(
      {
        post: (to, message) => {
          this.told.push({ to, ...structuredClone(message) });
          if (message.number) this.onToken(message.number, to);
        },
        open: (transport, { body, token }, on) => {
          const number = this.lines.length + 1;
          const line = { transport, body: body && structuredClone(body), token, on, sent: [], closed: false, number };
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
          const timer = [this.now_ms + ms, run];
          this.timers.add(timer);
          return () => this.timers.delete(timer);
        },
        now: () => this.now_ms,
        random: () => this.random(),
        attend: (tab, gone) => this.gone.set(tab, gone),
      },
      options,
    );
  }

  get line() {
    return this.lines.at(-1);
  }

  get state() {
    return this.hub.state.state;
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
    for (let n = 0; this.state === "waiting"; n++) {
      if (n > 10_000) throw new Error("it does not come back");
      this.pass(10);
    }
  }

  /** A tab watches. */
  watch(objects, { tab = "t", w = "w", auth = false, cursor = undefined } = {}) {
    const join = cursor ? { cursor, covered: objects } : { add: objects.map(object => (Array.isArray(object) ? object : [object, 0])) };
    this.hub.hear(tab, { w, auth, ...join });
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
    const { subscribe, id } = this.line.sent.at(-1);
    const objects = subscribe.objects.map(entry => {
      const object = entry.object ?? entry;
      return { object, version: versions[object] ?? null };
    });
    this.says({ subscribed: { objects }, id });
  }

  /** Greets, answers every page and gives a cursor. */
  lives(cursor = "c1", limits = {}) {
    this.hello(limits);
    for (let n = 0; n < 100 && this.state !== "live"; n++) this.answers();
    this.says({ cursor });
  }

  /** What a watch was told of this kind. */
  heard(kind, w = "w") {
    return this.told.filter(one => one.w === w && kind in one).flatMap(one => one[kind]);
  }

  errors() {
    return this.told.filter(one => one.error).map(one => one.error.code);
  }
}

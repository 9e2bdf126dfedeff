// The hub's rules one by one, on a clock and a transport that the test moves.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FakeWorld } from "./support/fake.js";

const subscribes = line => line.sent.filter(one => one.subscribe).map(one => one.subscribe);
const ids = n => Array.from({ length: n }, (_, i) => `object:${i}`);
const closed = (code, reason = "") => ["closed", { code, reason }];

describe("asking", () => {
  it("asks in pages, and only the last one says that no more follow", () => {
    const world = new FakeWorld();
    world.watch(ids(2500));
    world.hello();
    assert.equal(subscribes(world.line).length, 1, "one page waits for its answer at a time");
    world.answers();
    world.answers();
    world.answers();
    const pages = subscribes(world.line);
    assert.deepEqual(pages.flatMap(page => page.objects), ids(2500));
    assert.deepEqual(pages.map(page => !!page.more), pages.map((_, n) => n < pages.length - 1));
    assert.equal(world.state, "live");
  });

  it("paging skips nothing that was never delivered: no cursor counts before the last page is answered", () => {
    const world = new FakeWorld();
    world.watch(ids(1500));
    world.hello();
    world.says({ cursor: "too early" });
    world.answers();
    world.says({ cursor: "too early as well" });
    assert.deepEqual(world.heard("cursor"), []);
    world.line.on(...closed(1006));
    world.reconnects();
    world.hello();
    assert.ok(subscribes(world.line).every(page => !page.cursor), "it would skip what the second page never told");
    world.answers();
    world.answers();
    world.says({ cursor: "good" });
    assert.deepEqual(world.heard("cursor"), ["good"]);
  });

  it("a frame never exceeds the server's limit, whatever the objects are called", () => {
    for (const name of ["x", "ü", "\u{1f600}", "\\\"", "語"]) {
      const world = new FakeWorld();
      const objects = ids(300).map(id => [...(id + name.repeat(50))].slice(0, 60).join(""));
      const watch = world.watch(objects, { cursor: "c".repeat(2000) });
      world.lives("c1", { frame_bytes: 8192 });
      watch.remove(...objects.slice(1));
      assert.deepEqual(world.line.sent.flatMap(one => one.unsubscribe?.objects ?? []), objects.slice(1));
      const frames = world.line.sent.map(one => Buffer.byteLength(JSON.stringify(one)));
      assert.ok(frames.length > 3 && Math.max(...frames) <= 8192, `${name}: ${frames}`);
    }
  });

  it("a frame that is over the limit all the same is not repeated in a loop: it stops and says why", () => {
    const world = new FakeWorld();
    world.watch(["x".repeat(255)]);
    world.hello({ frame_bytes: 100 });
    assert.equal(subscribes(world.line).length, 1);
    world.line.on(...closed(1009, "too big"));
    world.pass(600_000);
    assert.equal(world.lines.length, 1);
    assert.deepEqual([world.state, world.said.reason], ["stopped", "protocol"]);
  });

  it("sends only the difference where the connection lives", () => {
    const world = new FakeWorld();
    const watch = world.watch(ids(1000));
    world.lives();
    const before = world.line.sent.length;
    watch.remove("object:3");
    watch.add("new");
    assert.deepEqual(world.line.sent.slice(before).map(({ id: _, ...rest }) => rest), [{ unsubscribe: { objects: ["object:3"] } }, { subscribe: { objects: ["new"] } }]);
  });

  it("comes back with the cursor, and with the version where the cursor does not speak yet", () => {
    const world = new FakeWorld();
    const watch = world.watch(["a", "b"]);
    world.lives("c1");
    watch.add("new");
    world.answers({ new: 77 });
    world.line.on(...closed(1006));
    world.reconnects();
    world.hello();
    world.answers();
    world.answers();
    const pages = subscribes(world.line);
    assert.deepEqual(pages.find(page => page.cursor).objects, ["a", "b"]);
    assert.equal(pages.find(page => page.cursor).cursor, "c1");
    assert.deepEqual(pages.find(page => !page.cursor).objects, [{ object: "new", version: 77 }]);
  });

  it("what is added while a page waits for its answer is asked for behind it", () => {
    const world = new FakeWorld();
    const watch = world.watch(["a"]);
    world.hello();
    watch.add("b");
    assert.deepEqual(subscribes(world.line).map(page => page.objects), [["a"]]);
    world.answers();
    assert.deepEqual(subscribes(world.line).map(page => page.objects), [["a"], ["b"]]);
    world.answers();
    assert.deepEqual(world.heard("live").map(([object]) => object), ["a", "b"]);
  });

  it("one that was asked for and let go meanwhile is taken back", () => {
    const world = new FakeWorld();
    const watch = world.watch(["a", "b"]);
    world.hello();
    watch.remove("a");
    world.answers();
    assert.deepEqual(world.line.sent.at(-1).unsubscribe, { objects: ["a"] });
    assert.deepEqual(world.heard("live").map(([object]) => object), ["b"]);
  });

  it("what is refused for now is asked for again from where it was, and the cursor does not speak for it", () => {
    const world = new FakeWorld();
    world.watch(["a", "b"], { cursor: "c0" });
    world.hello();
    const { id } = world.line.sent.at(-1);
    const error = { code: "no_owner", message: "none", retryable: true };
    world.says({ subscribed: { objects: [{ object: "a", version: null }, { object: "b", error }] }, id }, { cursor: "c1" });
    assert.deepEqual(world.heard("refused"), [{ object: "b", error }]);
    world.pass(2000);
    assert.deepEqual(subscribes(world.line).at(-1), { objects: ["b"], cursor: "c0" });
    world.answers();
    world.says({ cursor: "c2" });
    world.line.on(...closed(1006));
    world.reconnects();
    world.hello();
    assert.deepEqual(subscribes(world.line), [{ objects: ["a", "b"], cursor: "c2" }]);
  });

  it("what is refused for good is forgotten", () => {
    const world = new FakeWorld();
    world.watch(["a", "b"]);
    world.hello();
    const error = { code: "forbidden", message: "no", retryable: false };
    world.says({ subscribed: { objects: [{ object: "a", version: null }, { object: "b", error }] }, id: world.line.sent.at(-1).id });
    world.line.on(...closed(1006));
    world.reconnects();
    world.hello();
    assert.deepEqual(subscribes(world.line)[0].objects.map(entry => entry.object ?? entry), ["a"]);
  });
});

describe("coming back", () => {
  it("closes the old connection before it opens a new one, by every way a connection ends", () => {
    const ends = [
      world => world.line.on(...closed(1006)),
      world => world.line.on(...closed(4000)),
      world => world.says({ reconnect: { after_ms: 5, reason: "drain" } }),
      world => world.pass(100_000),
      world => world.line.on(...closed(1006)),
      world => world.hear("t", { online: true }) ?? world.pass(6000),
    ];
    for (const transport of ["websocket", "events", "poll"]) {
      const world = new FakeWorld({ transport });
      world.watch(["a"]);
      for (const end of ends) {
        world.reconnects();
        if (transport === "websocket") world.lives();
        else world.hello(), world.says({ cursor: "c" });
        end(world);
        world.pass(60_000);
      }
      world.reconnects();
      world.watch(["another"], { w: "v" });
      const open = new Set();
      for (const step of world.story) {
        const [what, number] = step.split(" ");
        if (what === "close") open.delete(number);
        else assert.equal(open.size, 0, `${transport}: ${world.story}`), open.add(number);
      }
      assert.ok(world.lines.length > 5, `${transport}: ${world.story}`);
    }
  });

  it("waits with full jitter under a ceiling that doubles, and begins anew after a good while", () => {
    const world = new FakeWorld({ transport: "websocket" });
    world.watch(["a"]);
    const waits = [];
    for (let n = 0; n < 7; n++) {
      world.random = () => 0.999999;
      world.line.on(...closed(1006));
      waits.push(Math.round(world.said.wait / 1000));
      world.reconnects();
    }
    assert.deepEqual(waits, [1, 2, 4, 8, 16, 30, 30]);
    world.lives();
    for (let n = 0; n < 3; n++) (world.pass(5000), world.says({ cursor: "c" }));
    world.random = () => 0;
    world.line.on(...closed(1006));
    assert.equal(world.said.wait, 0, "from nothing");
    world.reconnects();
    world.random = () => 0.999999;
    world.line.on(...closed(1006));
    assert.equal(Math.round(world.said.wait / 1000), 2, "the second in a row");
  });

  it("obeys the server's wish, but not for ever", () => {
    const world = new FakeWorld();
    world.watch(["a"]);
    world.lives();
    world.says({ reconnect: { after_ms: 1500, reason: "drain" } });
    assert.equal(world.said.wait, 1500);
    world.hear("t", { online: true });
    world.pass(1499);
    assert.equal(world.lines.length, 1, "also when somebody looks");
    world.pass(6);
    assert.equal(world.lines.length, 2);
    world.hello();
    world.says({ reconnect: { after_ms: 1e12, reason: "x" } });
    assert.equal(world.said.wait, 600_000);
  });

  it("leaves a node that is cut off", () => {
    const world = new FakeWorld();
    world.watch(["a"]);
    world.lives();
    const line = world.line;
    world.says({ reconnect: { after_ms: 300, reason: "cut_off", to: ["http://b:7400"] } });
    assert.deepEqual([world.said.state, world.said.message, world.said.wait], ["waiting", "cut_off", 300]);
    line.on(...closed(4006));
    assert.equal(world.said.wait, 300, "once is enough");
    world.pass(310);
    assert.equal(world.lines.length, 2);
  });

  it("obeys every close code: below 4500 it comes back, from there on it stops with a name", () => {
    for (const code of [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4000, 4001, 4002, 4003, 4004, 4005, 4006, 4010, 4499]) {
      const world = new FakeWorld();
      world.watch(["a"]);
      world.lives();
      world.line.on(...closed(code));
      assert.equal(world.state, "waiting", String(code));
      world.pass(31_000);
      assert.equal(world.lines.length > 1, true, String(code));
    }
    const stops = { 1002: "protocol", 1003: "protocol", 1007: "protocol", 1008: "forbidden", 1009: "protocol", 4500: "protocol", 4501: "unauthenticated", 4502: "forbidden", 4503: "revoked", 4504: "limit", 4505: "protocol", 4506: "operator", 4999: "closed" };
    for (const [code, reason] of Object.entries(stops)) {
      const world = new FakeWorld();
      world.watch(["a"]);
      world.lives();
      world.line.on(...closed(+code));
      world.pass(1e6);
      assert.deepEqual([world.state, world.said.reason, world.lines.length], ["stopped", reason, 1], code);
      world.hear("t", { retry: true });
      world.pass(5);
      assert.equal(world.lines.length, 2, "until it is told to");
    }
  });

  it("silence beyond ping_ms means a dead path", () => {
    const world = new FakeWorld();
    world.watch(["a"]);
    world.lives();
    world.pass(34_000);
    world.says({ cursor: "c2" });
    world.pass(34_000);
    assert.equal(world.lines.length, 1);
    world.pass(2000);
    assert.deepEqual([world.lines[0].closed, world.lines.length], [true, 2]);
  });

  it("while offline it does not try, and comes back when the network does", () => {
    const world = new FakeWorld();
    world.watch(["a"]);
    world.lives();
    world.hear("t", { online: false });
    world.line.on(...closed(1006));
    assert.equal(world.state, "offline");
    world.pass(1e6);
    assert.equal(world.lines.length, 1);
    world.hear("t", { online: true });
    world.reconnects();
    world.hello();
    assert.deepEqual(subscribes(world.line), [{ objects: ["a"], cursor: "c1" }]);
  });

  it("a wait is over when the network goes, too", () => {
    const world = new FakeWorld();
    world.watch(["a"]);
    world.line.on(...closed(0));
    assert.equal(world.state, "waiting");
    world.hear("t", { online: false });
    world.pass(1e6);
    assert.deepEqual([world.state, world.lines.length], ["offline", 1]);
  });

  it("when somebody looks it asks whether the path is one, and leaves it within seconds if not", () => {
    const world = new FakeWorld();
    world.watch(["a"]);
    world.lives();
    world.hear("t", { online: true });
    assert.ok(world.line.sent.at(-1).ping);
    world.says({ pong: {} });
    world.pass(20_000);
    assert.equal(world.lines.length, 1);
    world.hear("t", { online: true });
    world.pass(6000);
    assert.equal(world.lines.length, 2);
  });

  it("what an old connection still says is passed over", () => {
    const world = new FakeWorld();
    world.watch(["a"]);
    world.lives();
    const [old] = world.lines;
    world.says({ reconnect: { after_ms: 0, reason: "drain" } });
    world.pass(10);
    old.on("messages", [{ changes: [{ object: "a", version: 5 }] }, { cursor: "wrong" }]);
    old.on(...closed(4506));
    assert.deepEqual([world.heard("changes"), world.heard("cursor"), world.state], [[], ["c1"], "connecting"]);
  });
});

describe("transports", () => {
  const transports = world => world.lines.map(line => line.transport);
  const settled = world => world.reconnects();

  it("falls back by one when a path gives way twice, and comes back to the better one", () => {
    const world = new FakeWorld();
    world.watch(["a"], { cursor: "c0" });
    world.line.on(...closed(1006));
    settled(world);
    world.line.on(...closed(1006));
    settled(world);
    assert.deepEqual(transports(world), ["websocket", "websocket", "events"]);
    assert.deepEqual(world.line.body, { objects: ["a"], cursor: "c0" });
    world.hello();
    world.says({ cursor: "c1" });
    assert.deepEqual(world.said, { state: "live", transport: "events" });
    for (let n = 0; n < 4; n++) (world.pass(8000), world.says({ cursor: "c2" }));
    assert.equal(world.line.transport, "websocket", "after half a minute");
    world.line.on(...closed(1006));
    settled(world);
    assert.equal(world.line.transport, "events", "back without a second try");
    world.hello();
    world.says({ cursor: "c3" });
    for (let n = 0; n < 8; n++) (world.pass(8000), world.says({ cursor: "c4" }));
    assert.equal(world.line.transport, "websocket", "and twice as long the next time");
    world.lives("c5");
    assert.equal(subscribes(world.line)[0].cursor, "c4", "the same cursor throughout");
  });

  it("what cannot be had at all is left at once; where nothing can be had it stops", () => {
    const world = new FakeWorld();
    world.watch(["a"]);
    world.line.on(...closed(501));
    world.pass(5);
    world.line.on("closed", { code: 404 });
    world.pass(5);
    world.line.on("closed", { code: 404 });
    assert.deepEqual(transports(world), ["websocket", "events", "poll"]);
    assert.deepEqual([world.state, world.said.reason], ["stopped", "no_server"]);
  });

  it("a server that is away is no transport's fault", () => {
    const world = new FakeWorld();
    world.watch(["a"]);
    for (let n = 0; n < 9; n++) {
      if (world.line.transport === "websocket") world.line.on(...closed(1006));
      else world.line.on(...closed(0));
      settled(world);
    }
    assert.ok(!transports(world).includes("poll"), `${transports(world)}`);
  });

  it("begins with what worked last", () => {
    const world = new FakeWorld({ worked: "poll" });
    world.watch(["a"]);
    assert.equal(world.line.transport, "poll");
  });

  it("polls: the list once, then the session and the cursor; the first one does not wait", () => {
    const world = new FakeWorld({ transport: "poll" });
    world.watch(["a", "b"]);
    const answer = { changes: [], resync: null, refused: [], cursor: "p1", session: "s" };
    assert.deepEqual(world.line.body, { objects: ["a", "b"], wait_ms: 0 });
    world.line.on("answer", answer);
    assert.deepEqual(world.line.body, { session: "s", cursor: "p1", wait_ms: 25000 });
    world.pass(25_000);
    world.line.on("answer", { ...answer, changes: [{ object: "a", version: 9 }], cursor: "p2" });
    assert.deepEqual(world.heard("changes"), [{ object: "a", version: 9 }]);
    assert.deepEqual(world.line.body, { session: "s", cursor: "p2", wait_ms: 25000 });
    world.line.on("closed", { code: 410, ours: "session_unknown" });
    settled(world);
    assert.deepEqual(world.line.body, { objects: ["a", "b"], cursor: "p2", wait_ms: 0 });
  });

  it("polls that are answered at once without news do not spin", () => {
    const world = new FakeWorld({ transport: "poll" });
    world.watch(["a"]);
    const began = world.lines.length;
    let answered;
    for (let n = 0; n < 100; n++) {
      if (answered !== world.line) (answered = world.line).on("answer", { changes: [], resync: null, refused: [], cursor: `p${n}`, session: "s" });
      world.pass(50);
    }
    assert.ok(world.lines.length - began < 10, `${world.lines.length}`);
  });

  it("those who join at the same time cost an event stream one new request", () => {
    const world = new FakeWorld({ transport: "events" });
    world.watch(["a"]);
    world.hello();
    world.says({ cursor: "c1" });
    for (const w of ["x", "y", "z"]) world.watch([`of ${w}`], { w, waits: false });
    world.pass(100);
    assert.equal(world.lines.length, 2);
    assert.deepEqual(world.line.body.objects.toSorted(), ["a", "of x", "of y", "of z"]);
  });

  it("where one cursor cannot speak for a newcomer, it is told to fetch", () => {
    const world = new FakeWorld({ transport: "events" });
    world.watch(["a"]);
    world.hello();
    world.says({ cursor: "c1" });
    world.watch(["b"], { w: "other", cursor: "another" });
    world.pass(100);
    world.hello();
    world.says({ cursor: "c2" });
    const doubts = world.told.flatMap(({ w, facts = [] }) => facts.filter(fact => "cause" in fact).map(({ object, cause }) => [w, object, cause]));
    assert.deepEqual(doubts, [["other", "b", "added"]]);
  });

  it("says what HTTP statuses command", () => {
    for (const [status, state, reason] of [[401, "stopped", "unauthenticated"], [403, "stopped", "forbidden"], [413, "stopped", "limit"], [503, "waiting"], [429, "waiting"], [410, "waiting"]]) {
      const world = new FakeWorld({ transport: "poll" });
      world.watch(["a"]);
      world.line.on("closed", { code: status, after: 7 });
      assert.deepEqual([world.state, world.said.reason], [state, reason], String(status));
      if (state === "waiting") assert.ok(world.said.wait >= 7000);
    }
  });
});

describe("tokens", () => {
  const start = (options = {}) => {
    const world = new FakeWorld({ auth: true, ...options });
    const asked = [];
    world.onToken = (number, tab) => asked.push([number, tab]);
    world.watch(["a"]);
    const gives = token => world.hear(asked.at(-1)[1], { number: asked.at(-1)[0], token });
    return { world, asked, gives };
  };

  it("no connection is made before there is a token, and nothing is asked before it was taken", () => {
    const { world, gives } = start();
    assert.equal(world.lines.length, 0);
    gives("one");
    world.hello();
    assert.deepEqual(world.line.sent.map(one => one.auth?.token), ["one"]);
    world.says({ authenticated: { expires_in_ms: null }, id: world.line.sent[0].id });
    assert.equal(subscribes(world.line).length, 1);
  });

  it("a token that fails or is empty is never replaced by none", () => {
    for (const transport of ["websocket", "events", "poll"]) {
      const { world, asked } = start({ transport });
      for (let n = 0; n < 5; n++) {
        const [number, tab] = asked.at(-1);
        world.hear(tab, n % 2 ? { number, token: "" } : { number, error: "the session is over" });
        world.pass(31_000);
      }
      assert.equal(world.lines.length, 0);
      assert.ok(asked.length > 4 && world.errors().includes("token_failed"));
    }
  });

  it("the token of an old connection is not used for a new one", () => {
    const { world, asked, gives } = start();
    gives("one");
    world.hello();
    world.line.on(...closed(1006));
    world.pass(1000);
    const late = asked.at(-1);
    world.hear("t", { online: false });
    world.pass(20_000);
    world.hear("t", { online: true });
    world.pass(2000);
    assert.notEqual(asked.at(-1)[0], late[0]);
    world.hear("t", { number: late[0], token: "of somebody who has logged out" });
    assert.equal(world.lines.length, 1);
    gives("two");
    assert.equal(world.lines.length, 2);
    world.hello();
    assert.deepEqual(world.line.sent.map(one => one.auth.token), ["two"]);
  });

  it("a fresh token is sent before the old one expires, over the same connection", () => {
    const { world, asked, gives } = start();
    gives("one");
    world.hello();
    world.says({ authenticated: { expires_in_ms: 100_000 }, id: world.line.sent[0].id });
    world.answers();
    for (let n = 0; n < 8; n++) (world.pass(10_000), world.says({ cursor: `c${n}` }));
    assert.equal(asked.length, 2);
    gives("two");
    assert.equal(world.line.sent.at(-1).auth.token, "two");
    world.says({ authenticated: { expires_in_ms: 100_000 }, id: world.line.sent.at(-1).id });
    assert.deepEqual([world.lines.length, world.state, subscribes(world.line).length], [1, "live", 1]);
  });

  it("updates do not stop silently when a token expires: it comes back with a fresh one, or says what is wrong", () => {
    const { world, asked, gives } = start();
    gives("one");
    world.hello();
    world.says({ authenticated: { expires_in_ms: 100_000 }, id: world.line.sent[0].id });
    world.answers();
    world.says({ cursor: "c1" });
    for (let n = 0; n < 10; n++) {
      world.pass(9000);
      if (asked.length > 1 && world.line && !world.line.closed) {
        const [number, tab] = asked.at(-1);
        world.hear(tab, { number, error: "logged out" });
        world.says({ cursor: "c1" });
      }
    }
    assert.ok(world.errors().includes("token_failed"));
    world.line.on(...closed(4010));
    assert.equal(world.state, "waiting");
    world.pass(30_000);
    assert.equal(world.lines.length, 1, "not without a token");
    gives("two");
    world.hello();
    world.says({ authenticated: {}, id: world.line.sent[0].id });
    assert.deepEqual(subscribes(world.line), [{ objects: ["a"], cursor: "c1" }]);
  });

  it("after a refusal one fresh token is tried, then it stops; it never asks without", () => {
    for (const refuse of [world => world.line.on(...closed(4501)), world => world.says({ error: { code: "unauthenticated", message: "bad", retryable: false }, id: world.line.sent[0].id })]) {
      const { world, asked, gives } = start();
      gives("one");
      world.hello();
      refuse(world);
      world.pass(5);
      assert.equal(asked.length, 2);
      gives("two");
      world.hello();
      refuse(world);
      assert.deepEqual([world.state, world.said.reason], ["stopped", "unauthenticated"]);
      assert.ok(world.lines.every(line => subscribes(line).length === 0));
    }
  });

  it("streams and polls carry the token in their head, a fresh one each connect", () => {
    const { world, gives } = start({ transport: "events" });
    gives("one");
    assert.equal(world.line.token, "one");
    world.line.on("closed", { code: 401 });
    world.pass(5);
    gives("two");
    assert.equal(world.line.token, "two");
  });

  it("a tab that does not answer, or is gone, is not waited for", () => {
    const { world, asked, gives } = start();
    world.watch(["b"], { tab: "other", w: "v" });
    assert.equal(asked.at(-1)[1], "t");
    world.leaves("t");
    assert.equal(asked.at(-1)[1], "other");
    world.pass(11_000);
    world.pass(2000);
    assert.ok(asked.length > 2);
    gives("late");
    assert.equal(world.lines.length, 1);
  });
});

describe("tabs", () => {
  it("are told only of what they watch, and what is live already costs nothing", () => {
    const world = new FakeWorld();
    world.watch(["a", "b"]);
    world.lives();
    const before = world.line.sent.length;
    world.watch(["b"], { tab: "other", w: "v" });
    assert.equal(world.line.sent.length, before);
    assert.deepEqual(world.heard("live", "v"), [["b", "c1"]]);
    world.says({ changes: [{ object: "a", version: 1 }, { object: "b", version: 2 }] });
    assert.deepEqual(world.heard("changes", "v"), [{ object: "b", version: 2 }]);
  });

  it("that come with the hub's own cursor are told what others were told since it", () => {
    const world = new FakeWorld();
    world.watch(["a"]);
    world.lives("c1");
    world.says({ changes: [{ object: "a", version: 5 }] });
    world.watch(["a"], { tab: "late", w: "v", cursor: "c1" });
    assert.deepEqual(subscribes(world.line).at(-1), { objects: ["a"], cursor: "c1" });
    world.says({ cursor: "c2" });
    assert.deepEqual(world.heard("cursor", "v"), [], "not before that");
  });

  it("that have not said yet what they watch are given no cursor", () => {
    const world = new FakeWorld();
    world.watch(["a"]);
    world.lives("c1");
    // Of a tab that has yet to hear that the connection is another one.
    world.hear("slow", { w: "v", add: [["b", 0]] });
    world.answers();
    world.says({ cursor: "c2" });
    assert.deepEqual([world.heard("cursor"), world.heard("cursor", "v")], [["c1", "c2"], []]);
  });

  it("that resume elsewhere are caught up from their own cursor", () => {
    const world = new FakeWorld();
    world.watch(["a"]);
    world.lives("c5");
    world.watch(["a", "z"], { tab: "other", w: "v", cursor: "c3" });
    assert.deepEqual(subscribes(world.line).at(-1), { objects: ["a", "z"], cursor: "c3" });
    world.line.on(...closed(1006));
    world.reconnects();
    world.hello();
    world.answers();
    world.answers();
    assert.deepEqual(subscribes(world.line).map(page => page.cursor).sort(), ["c3", "c5"], "what one is owed is not paid by the cursor of another");
  });

  it("that begin now, while others are caught up, are told after a break what came since then", () => {
    const world = new FakeWorld();
    world.watch(["a"], { cursor: "c1" });
    world.watch(["a"], { tab: "other", w: "v" });
    world.hello();
    world.answers();
    assert.deepEqual(world.heard("live", "v"), [["a", "c1"]], "live by the page of another");
    world.line.on(...closed(1006));
    world.reconnects();
    world.hello();
    assert.deepEqual(subscribes(world.line), [{ objects: ["a"], cursor: "c1" }], "from now on would be too late");
  });

  it("that are gone are watched for no longer, and without any the connection ends", () => {
    const world = new FakeWorld();
    world.watch(["a", "b"]);
    world.watch(["b", "c"], { tab: "other", w: "v" });
    world.hello();
    world.answers();
    world.answersAll();
    world.leaves("other");
    assert.deepEqual(world.line.sent.at(-1).unsubscribe, { objects: ["c"] });
    world.leaves("t");
    assert.deepEqual([world.state, world.line.closed], ["idle", true]);
  });

  it("a resync of everything reaches everyone, each with what is theirs", () => {
    const world = new FakeWorld();
    world.watch(["a"]);
    world.watch(["b"], { w: "v" });
    world.lives();
    world.says({ resync: { all: true, cause: "versions_lost" } });
    assert.deepEqual([world.heard("resync"), world.heard("resync", "v")], [["a"], ["b"]]);
  });
});

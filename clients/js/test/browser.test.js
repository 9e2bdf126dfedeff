// The module in a real browser, against the real program.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Browser, withoutChromium } from "./support/chromium.js";
import { Front, endFronts } from "./support/front.js";
import { Program, endPrograms, withoutProgram } from "./support/program.js";
import { pause, until } from "./support/waiting.js";

/** A page that watches, and keeps what it is told. `told`: object → versions in order; `begin(objects, options)`. */
const PAGE = `
import { Tidings } from "/tidings.js";
Object.assign(window, {
  told: {}, states: [], errors: [], rejections: [], resyncs: 0, backwards: 0, Tidings,
  begin(objects, options = {}, watchOptions = {}) {
    window.tidings = new Tidings(location.origin, { firstMs: 50, longestMs: 500, ...options });
    tidings.addEventListener("state", ({ detail }) => states.push(detail));
    tidings.addEventListener("error", event => (errors.push(event.detail.code), event.preventDefault()));
    window.watch = tidings.watch(objects, async change => {
      if (window.slow) await new Promise(ok => setTimeout(ok, window.slow));
      const list = (told[change.object] ??= []);
      if (change.version === null) return void resyncs++;
      if (list.at(-1) >= change.version) backwards++;
      list.push(change.version);
    }, watchOptions);
    return true;
  },
  newest: object => told[object]?.at(-1) ?? 0,
  live: () => states.at(-1)?.state === "live" && states.at(-1),
});
addEventListener("unhandledrejection", event => rejections.push(String(event.reason)));
window.loaded = true;
`;

describe("in a browser", { skip: withoutProgram || withoutChromium, concurrency: 2 }, () => {
  /** @type {Browser} */ let browser;
  before(async () => (browser = await Browser.start()));
  after(() => (browser.end(), endFronts(), endPrograms()));

  /** A program, what stands before it, and pages of a profile of their own. */
  const world = async (settings = {}) => {
    const node = await Program.start(settings);
    const front = await Front.start(node.port);
    front.files["/page.js"] = ["text/javascript", PAGE];
    const profile = await browser.profile();
    const pages = [];
    return {
      node,
      front,
      async page(path = "/") {
        const page = await browser.open(front.url + path, profile);
        await page.until("window.loaded");
        pages.push(page);
        return page;
      },
      async end() {
        for (const page of pages) {
          assert.deepEqual(page.thrown, [], "nothing is thrown and no rejection unhandled");
          await page.close().catch(() => {});
        }
        front.end();
        node.end();
      },
    };
  };

  it("tells a change, over one WebSocket", async () => {
    const { node, page, end } = await world();
    const one = await page();
    await one.run(`begin(["a", "b"], { share: false })`);
    await one.run("watch.ready()");
    const version = await node.publish("a");
    await one.until(`newest("a") === ${version}`);
    assert.equal((await one.run("live()")).transport, "websocket");
    await end();
  });

  for (const [how, share] of [["a SharedWorker", "true"], ["a leading tab", `"tabs:"`]]) {
    it(`five tabs share one connection through ${how}`, async () => {
      const { node, front, page, end } = await world();
      const pages = await Promise.all(Array.from({ length: 5 }, () => page()));
      await Promise.all(pages.map((one, n) => one.run(`begin(["all", "only${n}"], { share: ${share} })`)));
      await Promise.all(pages.map(one => one.run("watch.ready()")));
      assert.equal((await node.connections()).length, 1);
      const { targetInfos } = await browser.send("Target.getTargets");
      const workers = targetInfos.filter(({ type, url }) => type === "shared_worker" && url.startsWith(front.url));
      assert.equal(workers.length, share === "true" ? 1 : 0);
      const version = await node.publish("all");
      await Promise.all(pages.map(one => one.until(`newest("all") === ${version}`)));
      const own = await node.publish("only3");
      await pages[3].until(`newest("only3") === ${own}`);
      assert.equal(await pages[2].run(`newest("only3")`), 0, "others do not hear of it");
      await end();
    });
  }

  it("closing the leading tab loses nothing", async () => {
    const { node, page, end } = await world();
    const leader = await page();
    await leader.run(`begin(["x"], { share: "tabs:" })`);
    await leader.run("watch.ready()");
    const others = await Promise.all([page(), page()]);
    for (const one of others) await one.run(`begin(["x", "y"], { share: "tabs:" })`).then(() => one.run("watch.ready()"));
    let over = false;
    const versions = [];
    const publishing = (async () => {
      while (!over) versions.push(await node.publish("x"), await node.publish("y"));
    })();
    await pause(100);
    await leader.close();
    await pause(400);
    over = true;
    await publishing;
    const [x, y] = versions.slice(-2);
    for (const one of others) {
      await one.until(`newest("x") === ${x} && newest("y") === ${y}`);
      assert.equal(await one.run("backwards + resyncs"), 0);
    }
    await until(async () => (await node.connections()).length === 1, "one connection");
    await end();
  });

  it("a server that is killed and started again is caught up with, exactly", async () => {
    const { node, page, end } = await world();
    const one = await page();
    const objects = Array.from({ length: 40 }, (_, n) => `o${n}`);
    await one.run(`begin(${JSON.stringify(objects)})`);
    await one.run("watch.ready()");
    const newest = {};
    for (let round = 0; round < 3; round++) {
      for (const object of objects.slice(0, 20)) newest[object] = await node.publish(object);
      await node.kill();
      await node.start();
      for (const object of objects.slice(10, 30)) newest[object] = await node.publish(object);
    }
    await one.until(`Object.entries(${JSON.stringify(newest)}).every(([object, version]) => newest(object) === version)`);
    const told = await one.run("told");
    assert.equal(await one.run("backwards + resyncs"), 0);
    assert.deepEqual(Object.keys(told).sort(), Object.keys(newest).sort(), "nothing is told of what did not change");
    await end();
  });

  it("offline and back: nothing is tried meanwhile, and nothing is lost", async () => {
    const { node, front, page, end } = await world();
    const one = await page();
    await one.run(`begin(["a"], { share: false, graceMs: 500 })`);
    await one.run("watch.ready()");
    await one.offline(true);
    front.cut();
    await one.until(`states.at(-1).state === "offline"`);
    const tried = front.upgrades;
    const version = await node.publish("a");
    await pause(500);
    assert.equal(front.upgrades, tried);
    await one.offline(false);
    await one.until(`newest("a") === ${version}`);
    assert.equal(await one.run("backwards + resyncs"), 0);
    await end();
  });

  it("a path that swallows everything is noticed and left", async () => {
    const { node, front, page, end } = await world();
    const one = await page();
    await one.run(`begin(["a"], { share: false, graceMs: 300, openingMs: 1000 })`);
    await one.run("watch.ready()");
    front.darken();
    const version = await node.publish("a");
    await one.until(`states.some(one => one.message?.startsWith("nothing was heard"))`);
    front.lighten();
    await one.until(`newest("a") === ${version}`);
    await end();
  });

  for (const [how, webSockets, events, transport] of [["refused", "refuse", "pass", "events"], ["cut", "cut", "pass", "events"], ["swallowed", "swallow", "pass", "events"], ["refused, and streams too", "refuse", "refuse", "poll"]]) {
    it(`a proxy by which WebSockets are ${how}: ${transport}, remembered, and back when it can`, async () => {
      const { node, front, page, end } = await world();
      Object.assign(front, { webSockets, events });
      const one = await page();
      const options = `{ share: false, openingMs: 400, pollMs: 300, betterMs: 60000 }`;
      await one.run(`begin(["a"], ${options})`);
      await one.run("watch.ready()");
      assert.equal((await one.run("live()")).transport, transport);
      const version = await node.publish("a");
      await one.until(`newest("a") === ${version}`);
      const two = await page();
      await two.run(`begin(["a"], ${options.replace("60000", "50")})`);
      await two.until(`states.some(one => one.state === "live" && one.transport === "${transport}")`);
      const began = await two.run(`states.find(one => one.state === "connecting").transport`);
      assert.equal(began, transport, "it begins with what worked");
      Object.assign(front, { webSockets: "pass", events: "pass" });
      await two.until(`live()?.transport === "websocket"`);
      const later = await node.publish("a");
      await two.until(`newest("a") === ${later}`);
      assert.equal(await two.run("backwards + resyncs"), 0);
      await end();
    });
  }

  it("a clock that jumps, there and back, changes nothing", async () => {
    const { node, page, end } = await world();
    const one = await page();
    await one.run(`begin(["a"], { share: false })`);
    await one.run("watch.ready()");
    for (const hours of [1000, -1000, 0]) {
      await one.run(`(window.realNow ??= Date.now, Date.now = () => realNow() + ${hours} * 3600000)`);
      const version = await node.publish("a");
      await one.until(`newest("a") === ${version}`);
      await pause(100);
    }
    assert.deepEqual(await one.run("[states.map(one => one.state), backwards + resyncs]"), [["idle", "connecting", "live"], 0]);
    await end();
  });

  it("a machine that slept: the first look finds out whether the path still is one", async () => {
    const { node, front, page, end } = await world();
    const one = await page();
    // Timers stand still, as in sleep.
    await one.run(`(window.realTimeout = setTimeout, window.setTimeout = (run, ms) => (window.asleep ? 0 : realTimeout(run, ms)), begin(["a"], { share: false }))`);
    await one.run("watch.ready()");
    await one.run("window.asleep = true");
    front.darken();
    const version = await node.publish("a");
    await pause(100);
    front.lighten();
    await one.run(`(window.asleep = false, dispatchEvent(new Event("online")))`);
    await one.until(`newest("a") === ${version}`);
    await end();
  });

  it("5,000 objects are live, and each is told", async () => {
    const { node, page, end } = await world();
    const one = await page();
    const ms = await one.run(`(async () => {
      const objects = Array.from({ length: 5000 }, (_, n) => "object:" + n);
      const began = performance.now();
      begin(objects);
      await watch.ready();
      return performance.now() - began;
    })()`);
    console.log(`# 5,000 objects live after ${Math.round(ms)} ms`);
    assert.equal((await node.connections()).length, 1);
    const objects = Array.from({ length: 5000 }, (_, n) => `object:${n}`);
    for (let n = 0; n < 5000; n += 1000) await node.publish(objects.slice(n, n + 1000));
    await one.until("Object.keys(told).length === 5000");
    assert.equal(await one.run("backwards + resyncs"), 0);
    await end();
  });

  it("a strict Content-Security-Policy is enough, with workers and without", async () => {
    for (const workers of ["'self'", "'none'"]) {
      const { node, front, page, end } = await world();
      front.headers = { "content-security-policy": `default-src 'none'; script-src 'self'; connect-src 'self'; worker-src ${workers}; img-src data:; require-trusted-types-for 'script'; trusted-types 'none'` };
      const one = await page();
      await one.run(`begin(["a"])`);
      await one.run("watch.ready()");
      const version = await node.publish("a");
      await one.until(`newest("a") === ${version}`);
      await end();
    }
  });

  it("without the library: EventSource and WebSocket as they are", async () => {
    const { node, front, page, end } = await world();
    front.files["/page.js"][1] = `
      window.heard = [];
      const source = new EventSource("/v1/events?object=a");
      source.onmessage = ({ data }) => heard.push(["events", JSON.parse(data).version]);
      source.addEventListener("hello", () => (window.hello = true));
      const socket = new WebSocket(location.origin.replace("http", "ws") + "/v1/ws");
      socket.onopen = () => socket.send(JSON.stringify({ subscribe: { objects: ["a"] }, id: 1 }));
      socket.onmessage = ({ data }) => {
        for (const line of data.split("\\n")) {
          const message = JSON.parse(line);
          if (message.subscribed) window.subscribed = true;
          for (const change of message.changes ?? []) heard.push(["socket", change.version]);
        }
      };
      window.loaded = true;`;
    const one = await page();
    await one.until("window.hello && window.subscribed");
    const first = await node.publish("a");
    await one.until("heard.length === 2");
    assert.deepEqual((await one.run("heard")).sort(), [["events", first], ["socket", first]]);
    await node.kill();
    await node.start();
    const second = await node.publish("a");
    await one.until(`heard.some(([how, version]) => how === "events" && version === ${second})`, "EventSource comes back by itself");
    await end();
  });

  it("the program serves the module and a page that works", async () => {
    const { node, page, end } = await world();
    const one = await page();
    await one.send("Page.navigate", { url: `${node.url}/example` });
    await one.until(`document.querySelector("#state")?.dataset.state === "live"`);
    await one.run(`document.querySelector("#objects button").click()`);
    await one.until(`document.querySelector("#log li")?.textContent.startsWith("order:42")`);
    await node.publish("doc:7", { kind: "edited" });
    await one.until(`document.querySelector("#log").textContent.includes("doc:7edited")`);
    assert.deepEqual(one.logged, []);
    await end();
  });

  it("what a token callback cannot give is an error, and nothing is asked without it", async () => {
    const { node, page, end } = await world();
    const one = await page();
    await one.run(`begin(["a"], { token: async () => { if (!window.loggedIn) throw new Error("log in"); return "secret"; } })`);
    await one.until(`errors.includes("token_failed")`);
    assert.equal((await node.connections()).length, 0);
    await one.run("window.loggedIn = true");
    await one.run("tidings.retry()");
    await one.run("watch.ready()");
    const version = await node.publish("a");
    await one.until(`newest("a") === ${version}`);
    await end();
  });
});

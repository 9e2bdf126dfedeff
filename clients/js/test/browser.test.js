// The module in a real browser, against the real program.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Browser, withoutChromium } from "./support/chromium.js";
import { Front } from "./support/front.js";
import { Program, withoutProgram } from "./support/program.js";
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
  after(() => browser.end());

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
      const { node, page, end } = await world();
      const pages = await Promise.all(Array.from({ length: 5 }, () => page()));
      await Promise.all(pages.map((one, n) => one.run(`begin(["all", "only${n}"], { share: ${share} })`)));
      await Promise.all(pages.map(one => one.run("watch.ready()")));
      assert.equal((await node.connections()).length, 1);
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
});

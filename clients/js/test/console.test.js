// The console in a real browser: one real node, and three that are a cluster. With TIDINGS_SHOTS=folder, pictures of it all.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Browser, withoutChromium } from "./support/chromium.js";
import { Cluster, endClusters } from "./support/cluster.js";
import { DESKTOP, PHONE, obstacles, shoot, tooWide, view, withoutAxe } from "./support/looking.js";
import { Program, endPrograms, withoutProgram } from "./support/program.js";
import { until } from "./support/waiting.js";

const LOOKS = [["desktop-light", DESKTOP], ["desktop-dark", { ...DESKTOP, dark: true }], ["phone-light", PHONE], ["phone-dark", { ...PHONE, dark: true }]];
/** Looks in which it is checked what stands in somebody's way: each colour and each size once. */
const AXE = ["desktop-light", "phone-dark"];
if (withoutAxe) console.log(`# accessibility of the console: ${withoutAxe}`);

/** Answers in the server's place: `answers(url, method)` gives `[status, body]`, or nothing to let it pass. */
async function instead(page, answers) {
  const hear = page.hear;
  page.hear = (method, params) => {
    if (method !== "Fetch.requestPaused") return hear.call(page, method, params);
    const { requestId, request } = params;
    const [status, body] = answers(new URL(request.url).pathname, request) ?? [];
    const type = [{ name: "content-type", value: status < 400 ? "application/json" : "application/problem+json" }];
    page.send(...(status ? ["Fetch.fulfillRequest", { requestId, responseCode: status, responseHeaders: type, body: Buffer.from(JSON.stringify(body)).toString("base64") }] : ["Fetch.continueRequest", { requestId }])).catch(() => {});
  };
  await page.send("Fetch.enable", { patterns: [{ urlPattern: "*/v1/*" }] });
}

/** A subscriber, and what it heard. */
async function subscriber(node, objects) {
  const socket = new WebSocket(`ws://127.0.0.1:${node.port}/v1/ws`);
  const heard = [];
  socket.onmessage = ({ data }) => heard.push(...data.split("\n").map(line => JSON.parse(line)));
  await until(() => heard.some(one => one.hello), "hello");
  socket.send(JSON.stringify({ subscribe: { objects }, id: 1 }));
  await until(() => heard.some(one => one.subscribed), "subscribed");
  return { socket, heard, name: heard.find(one => one.hello).hello.connection };
}

describe("the console", { skip: withoutProgram || withoutChromium }, () => {
  /** @type {Browser} */ let browser;
  before(async () => (browser = await Browser.start()));
  after(() => (browser.end(), endClusters(), endPrograms()));

  /** The console of a node, in a profile of its own; `shown(text)` waits until the page says so. */
  async function console_(url, hash = "#now") {
    const page = await browser.open("about:blank", await browser.profile());
    const hear = page.hear;
    page.hear = (method, params) => {
      // What the policy refuses is an error of ours; what a server refuses is not.
      if (method === "Log.entryAdded" && params.entry.source === "security") page.thrown.push(params.entry.text);
      hear.call(page, method, params);
    };
    await view(page, DESKTOP);
    await page.send("Page.navigate", { url: `${url}/console${hash}` });
    page.go = async next => {
      await page.run(`location.hash = ${JSON.stringify(next)}`);
      await page.until(`document.querySelector("#page h1")`);
    };
    page.text = selector => page.run(`document.querySelector(${JSON.stringify(selector)})?.innerText ?? ""`);
    page.shown = (text, selector = "main") => page.until(`document.querySelector(${JSON.stringify(selector)})?.innerText.includes(${JSON.stringify(text)})`, `${selector} says ${text}`);
    page.press = selector => page.run(`document.querySelector(${JSON.stringify(selector)}).click()`);
    page.button = text => page.run(`[...document.querySelectorAll("dialog[open] button, main button")].find(one => one.innerText.trim() === ${JSON.stringify(text)} || one.ariaLabel === ${JSON.stringify(text)}).click()`);
    page.write = (selector, text) => page.run(`(() => { const one = document.querySelector(${JSON.stringify(selector)}); one.value = ${JSON.stringify(text)}; one.dispatchEvent(new Event("input", { bubbles: true })); one.dispatchEvent(new Event("change", { bubbles: true })); })()`);
    /** As it is, in every size and colour: it fits, nothing is thrown, and nothing stands in anybody's way. */
    page.judge = async name => {
      for (const [look, how] of LOOKS) {
        await view(page, how);
        await page.run("new Promise(ok => requestAnimationFrame(() => requestAnimationFrame(ok)))");
        await shoot(page, `${name}-${look}`);
        assert.deepEqual(await tooWide(page), [], `${name}, ${look}: it scrolls sideways`);
        if (!withoutAxe && AXE.includes(look)) assert.deepEqual(await obstacles(page), [], `${name}, ${look}`);
      }
      await view(page, DESKTOP);
      assert.deepEqual(page.thrown, [], name);
    };
    await page.until(`document.querySelector("#whose").dataset.state !== "waiting"`);
    return page;
  }

  it("an empty node: every page says honestly that there is nothing", async () => {
    const node = await Program.start();
    const page = await console_(node.url);
    for (const [hash, text] of [["#now", "ready"], ["#cluster", "a node that is alone"], ["#connections", "Nobody is connected"], ["#connection?id=0-9-0", "This connection is gone"], ["#why", "Name an object"], ["#why?object=a", "Nobody watches it"], ["#why?object=a&connection=0-9-0", "This connection is gone"]]) {
      await page.go(hash);
      await page.shown(text);
      await page.judge(`empty-${hash.replace(/\W+/g, "-")}`);
    }
    await page.go("#try");
    await page.shown("live, WebSocket");
    await page.judge("empty-try");
    assert.equal(await page.run(`document.querySelectorAll(".chain, .legend + .banner").length`), 0);
    node.end();
  });

  it("a busy node: figures move, and the past is there at once", async () => {
    const node = await Program.start();
    const objects = Array.from({ length: 30 }, (_, n) => `order:${n}`);
    const subscribers = await Promise.all(Array.from({ length: 20 }, () => subscriber(node, objects)));
    const timer = setInterval(() => node.publish(objects).catch(() => {}), 100).unref();
    const page = await console_(node.url);
    const figure = n => page.run(`document.querySelectorAll(".figure .value b")[${n}].textContent`);
    await until(async () => /[1-9]/.test(await figure(0)) && /[1-9]/.test(await figure(1)) && /[1-9]/.test(await figure(2)), "publishes, deliveries and their delay");
    assert.equal(await page.run(`document.querySelector(".share i.a").style.getPropertyValue("--part")`), "20");
    await until(() => page.run(`fetch("/v1/live").then(one => one.json()).then(one => one.series.at_ms.length > 6)`), "some history");
    await page.judge("busy-now");
    const points = await page.run(`fetch("/v1/live").then(one => one.json()).then(one => one.series.at_ms.length)`);
    const second = await console_(node.url);
    await second.until(`document.querySelector(".plot .line").getAttribute("d").split("L").length >= ${points - 2}`, "history that was there before the page");
    await page.run(`document.querySelector(".plot").focus()`);
    for (const key of ["ArrowLeft", "ArrowLeft"]) await page.send("Input.dispatchKeyEvent", { type: "keyDown", key });
    await page.until(`document.querySelector(".moment").classList.contains("past")`, "the keys go back in time");
    assert.match(await page.run(`document.activeElement.ariaValueText`), /\/s at \d\d:\d\d:\d\d/);
    await page.press("input[value=hour]");
    await page.shown("ready");
    clearInterval(timer);
    for (const { socket } of subscribers) socket.close();
    assert.deepEqual(page.thrown, []);
    node.end();
  });

  it("connections: found, looked into, explained, closed", async () => {
    const node = await Program.start();
    const all = await Promise.all(Array.from({ length: 60 }, (_, n) => subscriber(node, n === 7 ? ["rare", "order:1"] : ["order:1"])));
    const page = await console_(node.url, "#connections");
    await page.shown("the first 50");
    await page.judge("connections");
    await page.button("Next page");
    await page.shown("10 more");
    await page.go("#connections?watching=rare");
    await page.shown("1 in all");
    const { name, heard, socket } = all[7];
    assert.equal(await page.text("tbody code"), name);
    await page.go("#connections?order=objects");
    await page.shown("50 of 60");
    assert.equal(await page.text("tbody code"), name, "who watches most comes first");
    await page.press("tbody a");
    await page.shown("What it watches");
    await page.shown("rare");
    await page.shown("2", ".facts");
    await page.judge("connection");
    const version = await node.publish("rare");
    await until(() => heard.some(one => one.changes?.some(change => change.version === version)));
    await page.run(`[...document.querySelectorAll("tbody tr")].find(one => one.innerText.includes("rare")).querySelector("td a").click()`);
    await page.shown("Told: the subscriber knows version");
    assert.equal(await page.run(`document.querySelectorAll(".chain li").length`), 8);
    await page.until(`document.querySelector(".chain [data-health]") && ![...document.querySelectorAll(".chain [data-health=broken]")].length`);
    await page.judge("why-told");
    await page.go(`#why?connection=${name}&object=another`);
    await page.shown("Not subscribed");
    assert.equal(await page.run(`document.querySelector(".chain [data-health=broken] h3").textContent`), "Subscription, broken");
    await page.judge("why-not");
    await page.go("#why?object=rare");
    await page.shown("Who watches rare");
    assert.equal(await page.text(".rows code"), name);
    await page.go(`#connection?id=${name}`);
    await page.until(`document.querySelector(".head button:not(:disabled)")`, "what is closed is known first");
    const closed = new Promise(ok => (socket.onclose = ({ code }) => ok(code)));
    await page.button("Close it");
    await page.shown("do not come back", "dialog");
    await page.judge("close-dialog");
    await page.run(`document.querySelector("dialog button[type=submit]").click()`);
    assert.equal(await closed, 4506);
    await page.shown("the first 50");
    assert.equal((await node.connections()).length, 59);
    for (const { socket } of all) socket.close();
    node.end();
  });

  it("somebody who does not read stands out", async () => {
    const node = await Program.start();
    const { socket, heard } = await node.slow(Array.from({ length: 40 }, (_, n) => `large:${n}`));
    const page = await console_(node.url, "#connections?order=pending");
    const data = "x".repeat(50_000);
    await until(async () => {
      for (let n = 0; n < 40; n++) await node.publish(`large:${n}`, { data });
      return (await node.connections()).some(one => one.busy && one.pending > 0);
    }, "its socket is full", 60_000);
    await page.button("Look again");
    await page.shown("does not read");
    await page.judge("connections-slow");
    await page.press("tbody a");
    await page.shown("does not read");
    await page.press("input[type=checkbox]");
    await page.until(`[...document.querySelectorAll("tbody tr")].every(one => one.innerText.includes("to be told"))`, "only what it has yet to hear");
    await page.run(`document.querySelector("tbody td a").click()`);
    await page.shown("its socket does not take more");
    await page.judge("why-slow");
    assert.equal(heard, undefined);
    socket.destroy();
    node.end();
  });

  it("try: publishes, is told of it, and says what curl would", async () => {
    const node = await Program.start();
    const page = await console_(node.url, "#try");
    await page.shown("live, WebSocket");
    assert.match(await page.text(".command code"), /^curl -X POST '?http:.*\/v1\/publish\?object=order/);
    await page.write("[name=kind]", "updated");
    await page.write("[name=data]", `{"total": 12}`);
    assert.match(await page.text(".command code"), /-d '{"object":"order:42","kind":"updated","data":{"total":12}}'/);
    await page.run(`document.querySelector("form").requestSubmit()`);
    await page.shown("Accepted", ".answer");
    await page.shown("updated ·", ".log");
    await page.judge("try");
    await page.write("[name=data]", "{");
    await page.run(`document.querySelector("form").requestSubmit()`);
    assert.match(await page.run(`document.querySelector("[name=data]").validationMessage`), /no JSON/);
    await page.write("[name=data]", "");
    await page.write("[name=ack]", "durable");
    await page.write("[name=object]", "x".repeat(300));
    await page.run(`document.querySelector("form").requestSubmit()`);
    await page.shown("invalid_object", ".answer");
    await node.publish("order:43", { kind: "from outside" });
    await page.shown("from outside", ".log");
    assert.deepEqual(page.thrown, []);
    node.end();
  });

  it("errors: a node that is gone, one that refuses, a page that is gone", async () => {
    const node = await Program.start();
    const page = await console_(node.url);
    await page.shown("ready");
    await node.kill();
    await page.shown("The node cannot be reached.");
    await page.shown("no answer", "#whose");
    await page.judge("error-unreachable");
    await page.go("#connections");
    await page.shown("The node does not tell");
    await node.start();
    await page.until(`!document.querySelector("#trouble").innerText`, "the trouble is over");
    for (const [status, code, detail] of [[503, "forming", "this node waits for others"], [429, "too_many", "too many requests (limits.requests)"], [500, "internal", "something broke"], [400, "invalid_field", "that makes no sense"]]) {
      await instead(page, path => (path === "/v1/live" ? [status, { code, detail, retryable: status !== 400 }] : undefined));
      await page.shown(`The node refuses: ${code}`);
      await page.shown(detail);
      await page.judge(`error-${status}`);
      await page.send("Fetch.disable");
      await page.until(`!document.querySelector("#trouble").innerText`, "the trouble is over");
    }
    node.end();
  });

  it("a key: asked for, sent, expired, not enough, forgotten", async () => {
    const node = await Program.start();
    const page = await console_(node.url);
    await page.shown("ready");
    let good = "right";
    const sent = [];
    await instead(page, (path, { headers }) => {
      const { authorization } = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
      sent.push(authorization);
      if (authorization === `Bearer ${good}`) return undefined;
      if (authorization === "Bearer reader") return [403, { code: "forbidden", detail: "this key may subscribe, and nothing else" }];
      return [401, authorization ? { code: "unauthenticated", detail: "the key has expired" } : { code: "unauthenticated", detail: "an operator's key is needed" }];
    });
    await page.shown("An operator's key is needed", "#sign-in");
    await page.shown("key needed", "#whose");
    await page.judge("key-needed");
    const signIn = async key => {
      await page.write("#sign-in input", key);
      await page.run(`document.querySelector("#sign-in").requestSubmit()`);
    };
    await signIn("reader");
    await page.shown("may not look here", "#sign-in");
    await page.judge("key-forbidden");
    await signIn(good);
    await page.until(`!document.querySelector("#sign-in")`);
    await page.shown("ready");
    assert.equal(await page.run(`sessionStorage.getItem("tidings.key")`), good);
    await page.go("#why?object=a");
    await page.shown("Nobody watches it");
    good = "another";
    await page.shown("the key has expired", "#sign-in");
    await page.shown("does not count any more", "#sign-in");
    await page.judge("key-expired");
    await page.button("Forget the key");
    await page.shown("An operator's key is needed", "#sign-in");
    assert.equal(await page.run(`sessionStorage.getItem("tidings.key")`), null);
    assert.equal(sent.at(-1), undefined);
    node.end();
  });

  it("hundreds of nodes and thousands of shards: found, told apart, and whoever needs to be looked at comes first", async () => {
    const node = await Program.start();
    const page = await console_(node.url);
    await page.shown("ready");
    const { stamp } = await page.run(`fetch("/v1/live").then(one => one.json())`);
    const nodes = Array.from({ length: 300 }, (_, n) => ({ node: `node-${n}`, id: `${n}`.padStart(4, "0"), address: `10.0.${n >> 8}.${n & 255}:7400`, client_url: `http://10.0.${n >> 8}.${n & 255}:7400`, roles: ["edge", "owner"], release: "0.1.0", zone: `zone-${n % 3}`, alive: n !== 217, voter: n < 5, leader: n === 2, draining: n === 101, member: true }));
    const each = of => Array.from({ length: 4096 }, (_, n) => of(n));
    const map = { ids: nodes.map(({ id }) => id), owner: each(n => n % 300), epoch: each(() => 3), floor: each(() => 1), copies: each(n => [(n + 1) % 300, (n + 2) % 300]), filling: each(n => (n % 500 === 0 ? [(n + 3) % 300] : [])), moving: each(n => (n % 1000 === 0 ? (n + 3) % 300 : -1)), owned: each(n => n % 300 !== 217) };
    const whole = { cluster: "1", name: "large", node: "node-0", nodes, shards: [], revision: 9, leader: "0002", confirmed: true, copies: 3, map, stamp };
    await instead(page, path => (path === "/v1/cluster/map" ? [200, whole] : undefined));
    await page.go("#cluster");
    await page.shown("node-217 does not answer.");
    assert.equal(await page.run(`document.querySelectorAll(".shards [role=option]").length`), 4096);
    assert.equal(await page.run(`document.querySelectorAll("tbody tr").length`), 25, "a page of nodes");
    assert.match(await page.text("tbody tr"), /^node-217/);
    await page.judge("large-cluster");
    await page.write("input[type=search]", "zone-1");
    await page.shown("25 of 100");
    await page.button("Show more");
    await page.until(`document.querySelectorAll("tbody tr").length === 100`);
    await page.run(`(one => ((one.value = "0042"), one.dispatchEvent(new Event("change"))))(document.querySelector(".legend select"))`);
    assert.equal(await page.run(`document.querySelectorAll(".shards [data-lit]").length`), map.owner.filter((owner, n) => owner === 42 || map.copies[n].includes(42) || map.filling[n].includes(42)).length);
    const ms = await page.run(`new Promise(ok => { const began = performance.now(); document.querySelector(".shards").dispatchEvent(new KeyboardEvent("keydown", { key: "End" })); requestAnimationFrame(() => ok(performance.now() - began)); })`);
    await page.shown("Shard 4095", ".shard");
    console.log(`# the last of 4,096 shards is shown after ${Math.round(ms)} ms`);
    assert.deepEqual(page.thrown, []);
    node.end();
  });

  it("keys alone are enough, and nothing is hidden from readers", async () => {
    const node = await Program.start();
    const page = await console_(node.url, "#cluster");
    await page.shown("256 shards");
    const key = async (name, code = name) => {
      await page.send("Input.dispatchKeyEvent", { type: "keyDown", key: name, code, windowsVirtualKeyCode: { Tab: 9, Enter: 13 }[name] });
      await page.send("Input.dispatchKeyEvent", { type: "keyUp", key: name, code });
    };
    await key("Tab");
    assert.equal(await page.run("document.activeElement.className"), "skip");
    await page.run(`document.querySelector(".shards").focus()`);
    await key("ArrowRight");
    await key("ArrowDown");
    const chosen = await page.run(`document.getElementById(document.querySelector(".shards").getAttribute("aria-activedescendant")).ariaLabel`);
    assert.match(chosen, /^shard \d+, owner node-\d+, epoch 1/);
    await page.shown(`Shard ${/\d+/.exec(chosen)[0]}`, ".shard");
    assert.notEqual(chosen.split(",")[0], "shard 0");
    await page.go("#why");
    assert.equal(await page.run("document.activeElement.id"), "main", "a new page takes the focus");
    node.end();
  });
});

describe("the console of a cluster", { skip: withoutProgram || withoutChromium }, () => {
  /** @type {Browser} */ let browser;
  before(async () => (browser = await Browser.start()));
  after(() => (browser.end(), endClusters()));

  it("three nodes: owners, a failover as it happens, what was agreed, guarded actions", async () => {
    const cluster = await Cluster.start();
    const [first] = cluster.nodes;
    const page = await browser.open("about:blank", await browser.profile());
    await view(page, DESKTOP);
    await page.send("Page.navigate", { url: `${first.url}/console#cluster` });
    const shown = (text, selector = "main") => page.until(`document.querySelector(${JSON.stringify(selector)})?.innerText.includes(${JSON.stringify(text)})`, `${selector} says ${text}`);
    const judge = async name => {
      for (const [look, how] of LOOKS) {
        await view(page, how);
        await shoot(page, `${name}-${look}`);
        assert.deepEqual(await tooWide(page), [], `${name}, ${look}`);
        if (!withoutAxe && AXE.includes(look)) assert.deepEqual(await obstacles(page), [], `${name}, ${look}`);
      }
      await view(page, DESKTOP);
    };
    await shown("3 of 3 nodes answer");
    await page.until(`document.querySelectorAll(".shards [data-state=owned]").length === 256`, "every shard has an owner");
    await page.until(`[...document.querySelectorAll("[data-name=Lease]")].filter(one => /left|ran out/.test(one.innerText)).length === 3`, "the lease of each node");
    await judge("cluster");

    // A guarded action that the server refuses, in its own words.
    await page.run(`document.querySelector("[aria-label^='Drain ']").click()`);
    await shown("gives up its", "dialog");
    await judge("cluster-drain");
    await page.run(`document.querySelector("dialog").close()`);
    const answers = { drain: [409, { code: "conflict", detail: "no other node could own its shards", retryable: true }], remove: [202, { removed: false, shards: 3 }] };
    await instead(page, path => answers[path.replace("/v1/cluster/", "")]);
    await page.run(`document.querySelector("[aria-label^='Drain ']").click()`);
    await page.run(`document.querySelector("dialog button[type=submit]").click()`);
    await shown("no other node could own its shards", "dialog");
    await shown("It may work later.", "dialog");
    await judge("cluster-refused");
    await page.run(`document.querySelector("dialog").close()`);
    await page.run(`document.querySelector("[aria-label='Remove n3']").click()`);
    assert.equal(await page.run(`document.querySelector("dialog button[type=submit]").disabled`), true, "its name has to be typed");
    await judge("cluster-remove");
    await page.run(`(one => ((one.value = "n3"), one.dispatchEvent(new Event("input"))))(document.querySelector("dialog input:not([type])"))`);
    await page.run(`document.querySelector("dialog button[type=submit]").click()`);
    await shown("3 shards still name it", "dialog");
    await page.run(`document.querySelector("dialog").close()`);
    await page.send("Fetch.disable");

    // One page shows what is at any node: figures of all, subscribers wherever they are, why, and the end of one.
    const elsewhere = await Promise.all(cluster.nodes.slice(1).map(({ url }) => subscriber({ port: new URL(url).port }, ["far", "near"])));
    const [{ name: id, socket }] = elsewhere;
    await page.run(`location.hash = "#now?node=*"`);
    await shown("3 of 3 nodes told their figures");
    await page.until(`document.querySelector(".share i.a")?.style.getPropertyValue("--part") === "2"`, "subscribers of all nodes are added up");
    await judge("now-whole");
    await page.run(`location.hash = "#why?object=far"`);
    await shown("2 subscribers in all");
    await judge("why-everywhere");
    await page.run(`location.hash = "#why?object=far&connection=${id}"`);
    await page.until(`/Nothing to tell|are called/.test(document.querySelector("main").innerText)`, "it is found wherever it is");
    await page.run(`location.hash = "#why?object=far&connection=${id}&node=n2"`);
    await shown("Lane ");
    await shown("of n2 holds the connection");
    await judge("why-elsewhere");
    await page.run(`location.hash = "#connections"`);
    await shown("of 3 nodes");
    await page.until(`document.querySelectorAll("td[data-name=Node]").length === 2`, "those of all nodes");
    await judge("connections-everywhere");
    await page.run(`location.hash = "#connection?id=${id}&node=n2"`);
    await page.until(`document.querySelector(".head button:not(:disabled)")`, "what is closed is known first");
    const closed = new Promise(ok => (socket.onclose = ({ code }) => ok(code)));
    await page.run(`document.querySelector(".head button").click()`);
    await page.run(`document.querySelector("dialog button[type=submit]").click()`);
    assert.equal(await closed, 4506);
    await page.until(`location.hash === "#connections"`, "the page goes back to the list");
    for (const { socket } of elsewhere) socket.close();
    await page.run(`location.hash = "#cluster"`);
    await shown("3 of 3 nodes answer");

    // Now and its figures of a cluster's node, then a failover while somebody looks.
    cluster.kill("n3");
    await shown("n3 does not answer", ".timeline");
    await shown("no answer", "table");
    await page.until(`[...document.querySelectorAll(".page.cluster table")][1].innerText.includes("no answer")`, "its figures are missing");
    await judge("cluster-failover");
    await page.until(`/took over \\d+ shards? of n3/.test(document.querySelector(".timeline").innerText)`, "what became of its shards");
    await page.until(`!document.querySelector(".shards [data-state=lost]")`, "every shard has an owner that lives");
    await judge("cluster-after");
    await page.run(`location.hash = "#now"`);
    await shown("1 node of the cluster does not answer");
    await judge("now-after");
    assert.deepEqual(page.thrown, []);
    cluster.end();
  });
});

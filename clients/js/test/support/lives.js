// One random life of a few tabs: the server is killed, the network goes, tabs are opened and closed, paths are cut, while
// somebody publishes. In the end every tab has been told the newest version of everything that it watches, nothing went
// back, and nobody said "fetch" but where a stranger's cursor made it so.
import { Front } from "./front.js";
import { Program } from "./program.js";
import { pause, seeded, until } from "./waiting.js";

export const PAGE = `
import { Tidings } from "/tidings.js";
Object.assign(window, { told: {}, states: [], errors: [], resyncs: 0, backwards: 0, rejections: [] });
addEventListener("unhandledrejection", event => rejections.push(String(event.reason)));
window.begin = (objects, options) => {
  window.tidings = new Tidings(location.origin, { firstMs: 30, longestMs: 300, graceMs: 1500, openingMs: 2000, pollMs: 300, betterMs: 1000, ...options });
  tidings.addEventListener("state", ({ detail }) => states.push(detail.state));
  tidings.addEventListener("error", event => (errors.push(event.detail.code + ": " + event.detail.message), event.preventDefault()));
  window.watch = tidings.watch(objects, async ({ object, version }) => {
    if (Math.random() < 0.2) await new Promise(ok => setTimeout(ok, 5));
    if (Math.random() < 0.02) throw new Error("on purpose");
    if (version === null) return void resyncs++;
    if (told[object] >= version) backwards++;
    told[object] = version;
  }, { againMs: 20, tries: 50 });
  return true;
};
window.loaded = true;
`;

/** @param {import("./chromium.js").Browser} browser @param {number} seed */
export async function life(browser, seed) {
  const random = seeded(seed);
  const pick = list => list[Math.floor(random() * list.length)];
  const node = await Program.start();
  const front = await Front.start(node.port);
  front.files["/page.js"] = ["text/javascript", PAGE];
  const profile = await browser.profile();
  const objects = Array.from({ length: 12 }, (_, n) => `o${n}`);
  const share = pick(["true", `"tabs:"`, "false"]);
  const blocked = random();
  if (blocked < 0.2) front.webSockets = pick(["refuse", "cut"]);
  if (blocked < 0.08) front.events = "refuse";
  /** @type {{ page: any, objects: Set<string>, begun: Record<string, number> }[]} */
  const tabs = [];
  /** The newest acknowledged version of each object. */
  const newest = {};
  const story = [];
  const counts = { kills: 0, offline: 0, closings: 0, cuts: 0, published: 0, told: 0 };
  let up = true;
  const publish = async () => {
    const object = pick(objects);
    try {
      const version = await node.publish(object);
      newest[object] = Math.max(newest[object] ?? 0, version);
      counts.published++;
    } catch (error) {
      if (up) throw error;
    }
  };
  const open = async () => {
    const page = await browser.open(`${front.url}/`, profile);
    await page.until("window.loaded");
    const mine = new Set(objects.filter(() => random() < 0.6).concat(pick(objects)));
    await page.run(`begin(${JSON.stringify([...mine])}, { share: ${share} })`);
    await page.run("watch.ready().catch(() => {})");
    // From here on, nothing may be missed.
    tabs.push({ page, objects: mine, begun: { ...newest } });
  };
  const judge = async tab => {
    const { told, resyncs, backwards, rejections, errors, states } = await tab.page.run("({ told, resyncs, backwards, rejections, errors, states })");
    const unexpected = errors.filter(one => !one.startsWith("handler_failed"));
    const lost = [...tab.objects].filter(object => newest[object] > (tab.begun[object] ?? 0) && !(told[object] >= newest[object]));
    counts.told += Object.keys(told).length;
    return { lost, resyncs, backwards, rejections, errors: unexpected, thrown: tab.page.thrown, states: states.slice(-4), mine: tab.objects.size };
  };
  const acts = {
    publish: async () => {
      for (let n = 0; n < 15; n++) await publish();
    },
    kill: async () => {
      counts.kills++;
      up = false;
      await node.kill();
      if (random() < 0.5) await pause(random() * 300);
      await node.start();
      up = true;
    },
    offline: async () => {
      counts.offline++;
      const { page } = pick(tabs);
      await page.offline(true);
      if (random() < 0.5) front.cut();
      await publish();
      await pause(random() * 200);
      await page.offline(false);
    },
    cut: async () => {
      counts.cuts++;
      front.cut();
    },
    close: async () => {
      if (tabs.length < 2) return;
      counts.closings++;
      // The first one leads, if one does.
      const [tab] = tabs.splice(random() < 0.6 ? 0 : Math.floor(random() * tabs.length), 1);
      await tab.page.close();
    },
    open: async () => {
      if (tabs.length < 4) await open();
    },
    add: async () => {
      const tab = pick(tabs);
      const object = pick(objects);
      if (tab.objects.has(object)) return;
      await tab.page.run(`(watch.add(${JSON.stringify(object)}), watch.ready().catch(() => {}))`);
      tab.begun[object] = newest[object];
      tab.objects.add(object);
    },
    remove: async () => {
      const tab = pick(tabs);
      const object = pick([...tab.objects]);
      if (tab.objects.size < 2) return;
      tab.objects.delete(object);
      await tab.page.run(`(watch.remove(${JSON.stringify(object)}), delete told[${JSON.stringify(object)}])`);
    },
  };
  try {
    await open();
    await open();
    for (let step = 0; step < 14; step++) {
      const act = pick(["publish", "publish", "publish", "kill", "offline", "cut", "close", "open", "add", "remove"]);
      story.push(act);
      await Promise.all([acts[act](), act === "publish" ? undefined : publish().catch(() => {})]);
    }
    for (let n = 0; n < 5; n++) await publish();
    let verdicts = [];
    const fine = async () => {
      verdicts = await Promise.all(tabs.map(judge));
      return verdicts.every(verdict => !verdict.lost.length);
    };
    await until(fine, "all is told", 20_000).catch(() => {});
    const bad = verdicts.filter(({ lost, backwards, rejections, errors, thrown }) => lost.length || backwards || rejections.length || errors.length || thrown.length);
    return { seed, share, blocked: `${front.webSockets}/${front.events}`, story: story.join(" "), counts, bad, all: bad.length ? verdicts : undefined, resyncs: verdicts.reduce((sum, { resyncs }) => sum + resyncs, 0) };
  } finally {
    for (const { page } of tabs) await page.close().catch(() => {});
    await browser.send("Target.disposeBrowserContext", { browserContextId: profile }).catch(() => {});
    front.end();
    node.end();
  }
}

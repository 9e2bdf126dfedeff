// What became of nodes and shards, newest first. The node remembers it, so that whoever opens the page sees it at once.
import { ask, path } from "./ask.js";
import { make, nothing, refill } from "./make.js";
import { ranges, span, when } from "./say.js";

const WEIGHTS = { good: "good", plain: "", warning: "look: ", bad: "trouble: " };

function item({ id, at_ms, until_ms, weight, says, shards }, fresh) {
  const lasted = until_ms - at_ms;
  return make("li", { data: { weight, id }, class: fresh ? "told" : "" },
    make("time", { dateTime: new Date(at_ms).toISOString() }, when(at_ms)),
    make("span", { class: "weight", ariaHidden: "true" }),
    make("div", {}, make("span", { class: "says" }, WEIGHTS[weight] && weight !== "good" && make("span", { class: "heard" }, WEIGHTS[weight]), says), lasted >= 1000 && make("small", {}, ` over ${span(lasted)}`),
      shards?.length > 0 && make("details", {}, make("summary", {}, "which shards"), ranges(shards), shards.length >= 64 && " and more")));
}

export function timeline() {
  let next = 0, seen = -1, lived = 0, asking = false, most = 30;
  const events = new Map();
  const items = make("ol", { class: "timeline" });
  const more = make("div", { class: "more" });
  const element = make("div", {}, items, more);

  function show(fresh) {
    const all = [...events.values()].sort((a, b) => b.id - a.id);
    // What somebody has opened stays open.
    const opened = new Set([...items.querySelectorAll("details[open]")].map(one => one.closest("li").dataset.id));
    refill(items, all.slice(0, most).map(event => item(event, fresh.has(event.id))));
    for (const one of items.querySelectorAll("details")) one.open = opened.has(one.closest("li").dataset.id);
    if (all.length === 0) refill(items, make("li", {}, nothing("Nothing has happened yet")));
    refill(more, all.length > most && make("button", { type: "button", class: "plain", data: { key: "older" }, onclick: () => (most += 100, show(new Set())) }, "Show older"));
  }

  return {
    element,
    /** @param {number} number of the newest event that there is @param {number} life of the node */
    async update(number, life) {
      if (asking || (number === seen && life === lived)) return;
      asking = true;
      try {
        // A node that started again counts from zero.
        if (life !== lived) (next = 0), events.clear();
        const told = await ask(path("/v1/cluster/events", { after: next, limit: 500 }));
        const fresh = new Set(next ? told.events.map(event => event.id) : []);
        for (const event of told.events) events.set(event.id, event);
        [next, seen, lived] = [told.next, number, life];
        show(fresh);
      } catch {
        // Asked again with the next figures.
      } finally {
        asking = false;
      }
    },
  };
}

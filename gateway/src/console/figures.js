// What each node does, side by side: the node that is asked gathers it, and tells a page of it.
import { ask, path } from "./ask.js";
import { EACH_NODE_MS, live } from "./live.js";
import { make, nothing, pill, refill, table } from "./make.js";
import { bytes, count, delay, joined, list, percent, short, span } from "./say.js";

const EVERY_MS = 2_000;
const LIMIT = 25;
const COLUMNS = [["published", "Publishes", value => `${joined(short(value))}/s`], ["told", "Deliveries", value => `${joined(short(value))}/s`], ["p99_us", "Delay p99", value => joined(delay(value))],
  ["open", "Connections", count], ["pending", "Waiting", count], ["cpu_percent", "Processor", value => joined(percent(value))], ["memory", "Memory", value => joined(bytes(value))]];

function row({ node, answered, ready, reasons, lease_left_ms, fullest, figures }) {
  const name = make("th", { scope: "row" }, answered ? make("a", { href: path("#now", { node }), data: { key: `figures-${node}` } }, node) : node);
  const cell = (name, ...children) => make("td", { class: "number", data: { name } }, children);
  if (!answered) return make("tr", {}, name, make("td", { colSpan: COLUMNS.length + 3, data: { name: "State" } }, pill("bad", "no answer")));
  const full = fullest && fullest.most ? fullest.used / fullest.most : 0;
  const lease = lease_left_ms === null ? "–" : lease_left_ms > 0 ? `${span(lease_left_ms)} left` : pill("bad", "ran out");
  return make("tr", {}, name, make("td", { data: { name: "State" } }, ready ? pill("good", "ready") : pill("bad", `not ready: ${list(reasons)}`)),
    COLUMNS.map(([of, label, says]) => cell(label, figures[of] === null || figures[of] === undefined ? "–" : of === "open" ? make("a", { href: path("#connections", { node }), ariaLabel: `connections of ${node}: ${count(figures[of])}` }, count(figures[of])) : says(figures[of]))),
    make("td", { class: "number", data: { name: "Lease" } }, lease),
    make("td", { data: { name: "Fullest limit" } }, full < 0.01 ? make("span", { class: "quiet" }, "none over 1 %") : [pill(full >= 0.95 ? "bad" : full >= 0.8 ? "warning" : "plain", `${Math.round(full * 100)} %`), " ", make("code", {}, fullest.limit)]));
}

/** @returns {{ element: HTMLElement, close: () => void }} */
export function nodeFigures() {
  const leaving = new AbortController();
  let timer;
  const order = make("select", { ariaLabel: "Which nodes come first", onchange: () => look() }, COLUMNS.map(([of, label]) => make("option", { value: of }, `most: ${label}`)));
  const search = make("input", { type: "search", ariaLabel: "Find a node by its name", placeholder: "name", onchange: () => look() });
  const tools = make("div", { class: "buttons" });
  const body = make("tbody");
  const more = make("div", { class: "more" });
  const wrong = make("div");
  const columns = [{ name: "Node" }, { name: "State" }, ...COLUMNS.map(([, name]) => ({ name, class: "number" })), { name: "Lease", class: "number" }, { name: "Fullest limit" }];
  const element = make("section", { class: "card" }, make("div", { class: "title" }, make("h2", {}, "What each node does"), tools), wrong, table("What each node does", columns, body), more);

  async function look() {
    clearTimeout(timer);
    let nodes = live.now?.cluster.nodes ?? 1;
    try {
      if (!document.hidden) {
        const told = await ask(path("/v1/cluster/figures", { order: order.value, search: search.value.trim(), limit: LIMIT }), { signal: leaving.signal });
        nodes = Math.max(nodes, told.found);
        if (nodes > 9 && !tools.firstChild) refill(tools, order, search);
        // In a few nodes each has its place.
        if (told.found <= 9) told.nodes.sort((a, b) => a.node.localeCompare(b.node, "en", { numeric: true }));
        refill(wrong);
        refill(body, told.nodes.map(row), told.nodes.length === 0 && make("tr", {}, make("td", { colSpan: columns.length }, nothing("No node is called that"))));
        refill(more, told.found > told.nodes.length && make("span", { class: "quiet" }, `${told.nodes.length} of ${count(told.found)}: those that need to be looked at, and then those with most`));
      }
    } catch (problem) {
      if (leaving.signal.aborted) return;
      if (!problem.locked) refill(wrong, make("p", { class: "banner warning" }, `What is shown is old: ${problem.message}`));
    }
    if (!leaving.signal.aborted) timer = setTimeout(look, Math.max(EVERY_MS, EACH_NODE_MS * nodes));
  }
  look();
  return { element, close: () => (leaving.abort(), clearTimeout(timer)) };
}

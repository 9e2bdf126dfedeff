// Connections: found among many, a page at a time. The node looks through them; the page never holds more than it shows.
import { ask, path } from "./ask.js";
import { field, make, nothing, pill, refill, table } from "./make.js";
import { live } from "./live.js";
import { count, list as listed, plural, span, time } from "./say.js";

const LIMIT = 50;
const ORDERS = [["", "as they are kept"], ["pending", "most to be told"], ["lag", "cursor furthest behind"], ["objects", "most objects"], ["told", "told most"], ["oldest", "oldest first"]];
export const TRANSPORTS = { websocket: "WebSocket", sse: "event stream", poll: "long-poll", session: "session, away" };
const select = (name, options, value) => {
  const element = make("select", { name }, options.map(([value, label]) => make("option", { value }, label)));
  element.value = value ?? "";
  return element;
};

/** How far its cursor is behind, and what that means. A poll brings its cursor along: the node does not keep it. */
export function cursor({ transport, cursor_lag_ms }) {
  if (transport === "poll" || transport === "session") return ["with the client", "each poll brings it along"];
  if (cursor_lag_ms === null) return ["none yet", "it would be told everything anew"];
  return [span(cursor_lag_ms), "what it need not hear again"];
}

/** What it is called in a cluster, where each node counts its own. */
export const at = (page, { connection, node }, more = {}) => path(page, { id: page === "#connection" ? connection : "", connection: page === "#connection" ? "" : connection, node, ...more });

export const states = one => [one.busy && pill("warning", "does not read"), one.resync > 0 && pill("warning", `${count(one.resync)} to fetch again`)].filter(Boolean);

function row(one, anywhere) {
  const cell = (name, ...children) => make("td", { data: { name } }, children);
  const number = (name, value) => make("td", { class: "number", data: { name } }, value);
  return make("tr", {},
    make("th", { scope: "row" }, make("a", { href: at("#connection", one), data: { key: `${one.connection} ${one.node ?? ""}` } }, make("code", {}, one.connection)), " ", states(one)),
    anywhere && cell("Node", one.node),
    cell("Transport", TRANSPORTS[one.transport] ?? one.transport),
    cell("Address", one.address ?? "–"),
    number("Connected", span(one.connected_ms)),
    number("Objects", count(one.objects)),
    number("To be told", one.pending ? make("b", {}, count(one.pending)) : "0"),
    number("Told", count(one.told)),
    number("Cursor behind", cursor(one)[0]));
}

/** @param {HTMLElement} root @param {URLSearchParams} query */
export function open(root, query) {
  const leaving = new AbortController();
  const search = make("input", { type: "search", name: "search", value: query.get("search") ?? "", placeholder: "name or address" });
  const watching = make("input", { type: "search", name: "watching", value: query.get("watching") ?? "", placeholder: "order:42" });
  const transport = select("transport", [["", "any"], ...Object.entries(TRANSPORTS)], query.get("transport"));
  const order = select("order", ORDERS, query.get("order"));
  const here = live.now?.node.name ?? "this node";
  const clustered = live.now?.node.clustered ?? true;
  const named = query.get("node") ?? (clustered ? "*" : "");
  const node = select("node", [["*", "all nodes"], ["", here], ...(["*", "", here].includes(named) ? [] : [[named, named]])], named === here ? "" : named);
  const behind = make("input", { type: "checkbox", name: "behind", checked: query.get("behind") === "1" });
  const state = make("p", { class: "state" });
  const found = make("div", { ariaLive: "polite" }), wrong = make("div");
  const values = () => ({ search: search.value.trim(), watching: watching.value, transport: transport.value, order: order.value, behind: behind.checked ? "1" : "" });
  const where = () => (clustered ? node.value : "");
  const form = make("form", { class: "filters", role: "search", onsubmit: event => {
    event.preventDefault();
    // Without a node in it, the address means all of them.
    let next = path("#connections", { ...values(), node: node.value === "*" ? "" : node.value || here });
    if (!clustered) next = path("#connections", values());
    if (next === (location.hash || "#connections")) look();
    else location.hash = next;
  } },
    field("Name or address", search), field("Watches the object", watching), field("Transport", transport), field("Order", order), clustered && field("Node", node),
    make("label", { class: "check" }, behind, "only those behind"), make("div", {}, make("button", { type: "submit" }, "Look")));
  for (const one of [transport, order, node, behind]) one.addEventListener("change", () => form.requestSubmit());
  root.append(make("header", { class: "head" }, make("div", {}, make("h1", {}, "Connections"), state)), make("section", { class: "card" }, form), wrong, make("section", { class: "card" }, found));

  const columns = anywhere => [
    ...["Connection", anywhere && "Node", "Transport", "Address"].filter(Boolean).map(name => ({ name })),
    ...["Connected", "Objects", "To be told", "Told", "Cursor behind"].map(name => ({ name, class: "number" })),
  ];

  async function look(after) {
    const asked = values();
    try {
      const told = await ask(path("/v1/connections", { ...asked, after, limit: LIMIT, node: where() }), { signal: leaving.signal });
      const any = Object.entries(asked).some(([name, value]) => value && name !== "order");
      const list = told.connections;
      const anywhere = where() === "*";
      for (const one of list) one.node ??= where() || undefined;
      state.textContent = `of ${anywhere ? plural(told.nodes, "node") : where() || (clustered ? here : "this node")}, as of ${time(Date.now())}`;
      refill(wrong, told.silent?.length > 0 && make("p", { class: "banner warning" }, `${listed(told.silent.slice(0, 6))}${told.silent.length > 6 ? " and others" : ""} did not answer: whoever is connected there is not among these.`));
      if (list.length === 0) {
        if (after) return refill(found, nothing("There are no more"));
        if (any) return refill(found, nothing("None is like that", anywhere || !clustered ? "Clear a field to see others." : "Clear a field to see others, or look at all nodes."));
        return refill(found, nothing(anywhere ? "Nobody is connected to any node" : `Nobody is connected to ${where() || "this node"}`,
          "Whoever subscribes shows up here: by WebSocket, event stream or long-poll.", "The page “Try” subscribes from this browser."));
      }
      const whole = table("Connections", columns(anywhere), make("tbody", {}, list.map(one => row(one, anywhere))));
      const said = told.found !== undefined ? `${count(list.length)} of ${count(told.found)}` : after ? `${count(list.length)} more` : told.after || told.more ? `the first ${count(list.length)}${anywhere ? ": choose one node to go through all" : ""}` : `${count(list.length)} in all`;
      refill(found, whole, make("div", { class: "more" },
        told.after && make("button", { type: "button", class: "plain", data: { key: "next" }, onclick: () => look(told.after) }, "Next page"),
        after && make("button", { type: "button", class: "plain", data: { key: "first" }, onclick: () => look() }, "From the beginning"),
        make("button", { type: "button", class: "plain", data: { key: "again" }, onclick: () => look(after) }, "Look again"), make("span", { class: "quiet" }, said)));
    } catch (problem) {
      if (leaving.signal.aborted) return;
      state.textContent = "";
      refill(found, nothing(problem.code === "not_found" ? "That page is gone" : "The node does not tell", problem.message), make("div", { class: "more" }, make("button", { type: "button", class: "plain", onclick: () => look() }, "Look again")));
    }
  }
  look();
  return () => leaving.abort();
}

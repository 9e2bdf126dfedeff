// Why: did this subscriber hear of this object, and if not, where the way ends.
import { ask, locked, path } from "./ask.js";
import { TRANSPORTS } from "./connections.js";
import { command, field, make, nothing, refill } from "./make.js";
import { plural, quoted, span, time, typed } from "./say.js";

const SIGNS = { fine: ["✓", "fine"], waiting: ["…", "waiting"], broken: ["✕", "broken"], idle: ["–", "says nothing"] };
const TITLES = { subscription: "Subscription", edge: "Edge", interest: "Interest", owner: "Owner", version: "Version", closed: "Closed", cursor: "Cursor", socket: "Socket" };
const tone = chain => (chain.some(link => link.health === "broken") ? "bad" : chain.some(link => link.health === "waiting") ? "warning" : "good");

function link({ link, health, figure, says }) {
  const [sign, word] = SIGNS[health];
  return make("li", { data: { health } },
    make("span", { class: "sign", ariaHidden: "true" }, sign),
    make("h3", {}, TITLES[link] ?? link, make("span", { class: "heard" }, `, ${word}`)),
    make("p", { class: "is" }, figure), make("p", { class: "says" }, says));
}

/** @param {HTMLElement} root @param {URLSearchParams} query */
export function open(root, query) {
  const leaving = new AbortController();
  const object = make("input", { name: "object", value: query.get("object") ?? "", placeholder: "order:42", required: true, spellcheck: false, autocomplete: "off" });
  const connection = make("input", { name: "connection", value: query.get("connection") ?? "", placeholder: "0-1-0", spellcheck: false, autocomplete: "off" });
  const state = make("p", { class: "state" }, "Did this subscriber hear of this object, and if not, why not?");
  const result = make("div", { ariaLive: "polite" });
  root.append(make("header", { class: "head" }, make("div", {}, make("h1", {}, "Why"), state)),
    make("section", { class: "card" }, make("form", { class: "filters", onsubmit: event => {
      event.preventDefault();
      const next = path("#why", { connection: connection.value.trim(), object: object.value });
      if (next === location.hash) look();
      else location.hash = next;
    } }, field("Object", object), field("Connection", connection, "Its name is in its hello. Left empty: who watches the object."), make("div", {}, make("button", { type: "submit" }, "Explain")))), result);

  async function watchers() {
    const { signal } = leaving;
    const [told, known] = await Promise.all([
      ask(path("/v1/connections", { watching: object.value, limit: 50 }), { signal }),
      ask(path("/v1/object", { object: object.value }), { signal }).catch(problem => ({ problem })),
    ]);
    const about = known.problem ? make("p", { class: "banner" }, known.problem.message) : make("p", { class: "quiet" },
      known.version === null ? "No change of it is known" : `Its last change was at ${time(known.version / 1000)}, version ${known.version}`, `. Shard ${known.shard}, owned by ${known.owner} in epoch ${known.epoch}.`);
    const items = told.connections.map(one => make("div", {},
      make("dt", {}, make("a", { href: path("#why", { connection: one.connection, object: object.value }) }, make("code", {}, one.connection)),
        ` ${TRANSPORTS[one.transport] ?? one.transport}`),
      make("dd", {}, one.address ?? "", make("small", {}, ` for ${span(one.connected_ms)}`))));
    refill(result, make("section", { class: "card" }, make("h2", {}, `Who watches ${object.value} on this node`), about,
      items.length ? [make("dl", { class: "rows" }, items), told.after && make("p", { class: "quiet" }, "These are the first ", items.length, ".")] : nothing("Nobody on this node", "Whoever watches it is connected to another node, or is not connected.")));
  }

  async function explain() {
    const target = path("/v1/explain", { connection: connection.value.trim(), object: object.value });
    const told = await ask(target, { signal: leaving.signal });
    const shown = command(`curl ${quoted(typed(location.origin + target))}${locked()}`);
    const weak = told.chain.filter(link => link.health === "broken" || link.health === "waiting").length;
    const [first, ...rest] = told.verdict.split(": ");
    refill(result, make("div", { class: "verdict", data: { tone: tone(told.chain) } }, make("p", {}, first[0].toUpperCase() + first.slice(1), rest.length > 0 && `: ${rest.join(": ")}`, "."),
      make("small", {}, `${told.object} at `, make("a", { href: `#connection?id=${told.connection.connection}` }, told.connection.connection), `, ${TRANSPORTS[told.connection.transport]}, as of ${time(Date.now())}`)),
      make("section", { class: "card" },
        make("div", { class: "title" }, make("h2", {}, "The way of a change"),
          make("span", { class: "quiet" }, weak ? `${plural(weak, "link")} to look at` : "every link holds"),
          make("button", { type: "button", class: "plain small", data: { key: "again" }, onclick: look }, "Look again")),
        make("ol", { class: "chain" }, told.chain.map(link)), shown.element));
  }

  async function look() {
    if (!object.value) return refill(result, make("section", { class: "card" }, nothing("Name an object", "With a connection too, the way of its changes is shown link by link: from the subscription to the owner and back to the socket.")));
    try {
      await (connection.value.trim() ? explain() : watchers());
    } catch (problem) {
      if (leaving.signal.aborted) return;
      const gone = nothing("This connection is gone", "It has ended, or it is at another node: each node knows its own. Leave the field empty to see who watches the object here.");
      refill(result, make("section", { class: "card" }, problem.status === 404 ? gone : nothing("The node does not tell", problem.message)));
    }
  }
  look();
  return () => leaving.abort();
}

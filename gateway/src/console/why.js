// Why: did this subscriber hear of this object, and if not, where the way ends.
import { ask, locked, path } from "./ask.js";
import { TRANSPORTS, at } from "./connections.js";
import { live } from "./live.js";
import { command, field, make, nothing, refill } from "./make.js";
import { count, list, plural, quoted, span, time, typed } from "./say.js";

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
  const node = make("input", { name: "node", value: query.get("node") ?? "", placeholder: "any", spellcheck: false, autocomplete: "off" });
  const state = make("p", { class: "state" }, "Did this subscriber hear of this object, and if not, why not?");
  const result = make("div", { ariaLive: "polite" });
  root.append(make("header", { class: "head" }, make("div", {}, make("h1", {}, "Why"), state)),
    make("section", { class: "card" }, make("form", { class: "filters", onsubmit: event => {
      event.preventDefault();
      const next = path("#why", { connection: connection.value.trim(), node: node.value.trim(), object: object.value });
      if (next === location.hash) look();
      else location.hash = next;
    } }, field("Object", object), field("Connection", connection, "Its name is in its hello. Left empty: who watches the object."), (live.now?.node.clustered ?? true) && field("Node", node, "In its hello too. Left empty: wherever it is."), make("div", {}, make("button", { type: "submit" }, "Explain")))), result);

  const clustered = () => live.now?.node.clustered ?? true;
  /** Connections of the whole cluster, and who did not tell. */
  const everywhere = parameters => ask(path("/v1/connections", { ...parameters, limit: 50, node: clustered() ? "*" : "" }), { signal: leaving.signal });
  const silent = told => told.silent?.length > 0 && make("p", { class: "banner warning" }, `${list(told.silent.slice(0, 6))}${told.silent.length > 6 ? " and others" : ""} did not answer: whoever is connected there is not among these.`);
  const items = told => make("dl", { class: "rows" }, told.connections.map(one => make("div", {},
    make("dt", {}, make("a", { href: at("#why", one, { object: object.value }) }, make("code", {}, one.connection)), ` ${one.node ? `at ${one.node}, ` : ""}${TRANSPORTS[one.transport] ?? one.transport}`),
    make("dd", {}, one.address ?? "", make("small", {}, ` for ${span(one.connected_ms)}`)))));

  async function watchers() {
    const { signal } = leaving;
    const [told, known] = await Promise.all([
      everywhere({ watching: object.value, order: "pending" }),
      ask(path("/v1/object", { object: object.value }), { signal }).catch(problem => ({ problem })),
    ]);
    const about = known.problem ? make("p", { class: "banner" }, known.problem.message) : make("p", { class: "quiet" },
      known.version === null ? "No change of it is known" : `Its last change was at ${time(known.version / 1000)}, version ${known.version}`, `. Shard ${known.shard}, owned by ${known.owner} in epoch ${known.epoch}.`);
    const shown = told.connections.length;
    refill(result, silent(told), make("section", { class: "card" }, make("h2", {}, `Who watches ${object.value}`), about,
      shown ? [items(told), make("p", { class: "quiet" }, told.found > shown ? `These are ${count(shown)} of ${count(told.found)}: those who have most to be told.` : `${plural(told.found, "subscriber")} in all.`)]
        : nothing("Nobody watches it", "Whoever should hear of it is not connected, or did not subscribe to this object.")));
  }

  /** On which node the connection is, if that was not said: each node counts its own, so several may be called alike. */
  async function find() {
    const id = connection.value.trim();
    const told = await everywhere({ search: id });
    told.connections = told.connections.filter(one => one.connection === id);
    if (told.connections.length === 1 && !told.silent.length) return told.connections[0].node;
    const some = told.connections.length > 0;
    refill(result, silent(told), make("section", { class: "card" }, some ? [make("h2", {}, plural(told.connections.length, "connection is", "connections are"), ` called ${id}`), make("p", { class: "quiet" }, "Which node it is at was said in its hello."), items(told)]
      : nothing("This connection is gone", "It has ended: no node that answers knows it. Leave the field empty to see who watches the object.")));
    return undefined;
  }

  async function explain() {
    if (clustered() && !node.value.trim()) {
      const found = await find();
      if (found) location.replace(path("#why", { connection: connection.value.trim(), node: found, object: object.value }));
      return;
    }
    const at = clustered() ? node.value.trim() : "";
    const target = path("/v1/explain", { connection: connection.value.trim(), object: object.value, node: at });
    const told = await ask(target, { signal: leaving.signal });
    const shown = command(`curl ${quoted(typed(location.origin + target))}${locked()}`);
    const weak = told.chain.filter(link => link.health === "broken" || link.health === "waiting").length;
    const [first, ...rest] = told.verdict.split(": ");
    refill(result, make("div", { class: "verdict", data: { tone: tone(told.chain) } }, make("p", {}, first[0].toUpperCase() + first.slice(1), rest.length > 0 && `: ${rest.join(": ")}`, "."),
      make("small", {}, `${told.object} at `, make("a", { href: path("#connection", { id: told.connection.connection, node: at }) }, told.connection.connection), `${at ? ` of ${at}` : ""}, ${TRANSPORTS[told.connection.transport]}, as of ${time(Date.now())}`)),
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
      const gone = nothing("This connection is gone", "It has ended, or it is at another node. Leave its field empty to see who watches the object.");
      refill(result, make("section", { class: "card" }, problem.status === 404 && !problem.message.startsWith("`node`") ? gone : nothing("The node does not tell", problem.message)));
    }
  }
  look();
  return () => leaving.abort();
}

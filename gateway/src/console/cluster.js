// Cluster: who is there, who owns what, and what became of it.
import { ask } from "./ask.js";
import { act } from "./actions.js";
import { nodeFigures } from "./figures.js";
import { live } from "./live.js";
import { make, nothing, pill, refill, table } from "./make.js";
import { list, plural } from "./say.js";
import { hue, shardMap } from "./shards.js";
import { timeline } from "./timeline.js";

/** Rows shown before more are asked for. */
const ROWS = 25;

/** The answer, with names instead of places and with counts by node. */
export function read(told) {
  const { ids, owner, epoch, floor, copies, filling, moving, owned } = told.map;
  const nodes = told.nodes.map((node, n) => ({ ...node, id: node.id ?? "", hue: hue(n), shards: 0, held: 0 }));
  const byId = new Map(nodes.map(node => [node.id, node]));
  const places = ids.map(id => byId.get(id) ?? { node: id.slice(0, 8), id, alive: false, gone: true, hue: hue(nodes.length), shards: 0, held: 0 });
  const at = place => (place < 0 ? undefined : places[place]);
  const wanted = Math.max(0, Math.min(told.copies, nodes.filter(node => node.alive && node.roles.includes("owner")).length) - 1);
  const shards = owner.map((place, shard) => {
    const one = { shard, owner: at(place), epoch: epoch[shard], floor: floor[shard], copies: copies[shard].map(at), filling: filling[shard].map(at), moving: at(moving[shard]), owned: owned[shard] };
    if (one.owner) one.owner.shards++;
    for (const node of one.copies) node.held++;
    one.whole = one.copies.filter(node => node.alive).length;
    one.state = !one.owner ? "none" : one.owned ? "owned" : "lost";
    one.thin = one.state === "owned" && one.whole < wanted;
    return one;
  });
  return { ...told, nodes, shards, wanted, me: nodes.find(node => node.node === told.node) };
}

/** What is wrong, the worst first. */
function troubles({ nodes, shards, wanted, confirmed, leader }, clustered) {
  const found = [];
  const silent = nodes.filter(node => node.member && !node.alive).map(node => node.node);
  const lost = shards.filter(shard => shard.state === "lost").length;
  const thin = shards.filter(shard => shard.thin).length;
  if (clustered && !leader) found.push(["bad", "Nobody leads the control plane: nothing can be agreed until a majority of voters is there."]);
  if (lost) found.push(["bad", `${plural(lost, "shard")} ${lost === 1 ? "has" : "have"} no owner that answers: publishes there wait or are refused.`]);
  if (silent.length) found.push(["bad", `${silent.length > 6 ? plural(silent.length, "node") : list(silent)} ${silent.length === 1 ? "does" : "do"} not answer.`]);
  if (thin) found.push(["warning", `${plural(thin, "shard")} ${thin === 1 ? "has" : "have"} fewer than ${plural(wanted + 1, "whole copy", "whole copies")}.`]);
  if (confirmed === false) found.push(["warning", "This node waits for a majority to confirm its map."]);
  return found;
}

function states(node) {
  const found = [];
  if (!node.member) found.push(pill("warning", "on its way in"));
  else found.push(node.alive ? pill("good", "answers") : pill("bad", "no answer"));
  if (node.draining) found.push(pill("warning", "gives up its shards"));
  if (node.leader) found.push(pill("accent", "leads", "It leads the control plane"));
  return found;
}

function buttons(node, clustered) {
  if (!clustered || !node.member) return [];
  const drain = make("button", { type: "button", class: "plain small", data: { key: `drain-${node.id}` }, ariaLabel: `${node.draining ? "End drain" : "Drain"} ${node.node}`, onclick: () => act.drain(node) }, node.draining ? "End drain" : "Drain");
  const remove = make("button", { type: "button", class: "plain grave small", data: { key: `remove-${node.id}` }, ariaLabel: `Remove ${node.node}`, onclick: () => act.remove(node) }, "Remove");
  return [make("div", { class: "buttons" }, drain, remove)];
}

function row(node, { me }, clustered) {
  const other = node.client_url && node !== me;
  const address = node.address || "–";
  const cell = (name, ...children) => make("td", { data: { name } }, children);
  return make("tr", {},
    make("th", { scope: "row" }, make("span", {}, make("i", { class: "owner", vars: { "--hue": node.hue } }), make("strong", {}, node.node), node === me && make("small", {}, "this node"))),
    cell("State", make("span", { class: "states" }, states(node))),
    cell("Roles", node.roles.join(", ") || "–"),
    cell("Zone", node.zone || "–"),
    cell("Release", node.release || "–"),
    make("td", { class: "number", data: { name: "Owns" } }, `${node.shards}`),
    make("td", { class: "number", data: { name: "Copies" } }, `${node.held}`),
    cell("Address", other ? make("a", { href: `${node.client_url}/console` }, address) : address),
    clustered && make("td", {}, buttons(node, clustered)));
}

/** @param {HTMLElement} root */
export function open(root) {
  let data, stamp, most = ROWS, asking = false, over = false;
  const clustered = () => live.now?.node.clustered ?? true;
  const state = make("p", { class: "state" }, "asking the node …");
  const wrong = make("div");
  const body = make("tbody");
  const search = make("input", { type: "search", placeholder: "name, zone or address", ariaLabel: "Find a node", oninput: () => (most = ROWS, rows()) });
  const more = make("div", { class: "more" });
  const head = make("div", { class: "title" });
  const map = shardMap();
  const line = timeline();
  const nodesCard = make("section", { class: "card" }, head);
  const figures = clustered() ? nodeFigures() : undefined;
  root.append(make("header", { class: "head" }, make("div", {}, make("h1", {}, "Cluster"), state)), wrong, nodesCard, figures?.element ?? "",
    make("section", { class: "card" }, make("h2", {}, "Shards"), map.element),
    make("section", { class: "card" }, make("h2", {}, "What happened"), line.element));

  function rows() {
    const text = search.value.trim().toLowerCase();
    const found = data.nodes.filter(node => !text || [node.node, node.zone, node.address].some(of => of.toLowerCase().includes(text)));
    // Who needs to be looked at comes first.
    const rank = node => (node.member && !node.alive ? 0 : node.draining || !node.member ? 1 : 2);
    const sorted = data.nodes.length > 9 ? found.toSorted((a, b) => rank(a) - rank(b)) : found;
    refill(body, sorted.slice(0, most).map(node => row(node, data, clustered())), found.length === 0 && make("tr", {}, make("td", { colSpan: 10 }, nothing("No node is called that"))));
    refill(more, sorted.length > most && [make("button", { type: "button", class: "plain", data: { key: "more" }, onclick: () => (most += 4 * ROWS, rows()) }, "Show more"), make("span", { class: "quiet" }, `${most} of ${sorted.length}`)]);
  }

  function built() {
    const names = [{ name: "Node" }, { name: "State" }, { name: "Roles" }, { name: "Zone" }, { name: "Release" }, { name: "Owns", class: "number" }, { name: "Copies", class: "number" }];
    names.push({ name: "Address" });
    if (clustered()) names.push({ name: "", ariaLabel: "Actions" });
    const whole = table("Nodes", names, body);
    refill(nodesCard, head, whole, more);
  }

  function show() {
    const { nodes, shards, name, cluster, copies } = data;
    const alive = nodes.filter(node => node.alive).length;
    const found = troubles(data, clustered());
    refill(state, pill(found.some(([tone]) => tone === "bad") ? "bad" : found.length ? "warning" : "good", found.length ? "look here" : "all is well"),
      ` ${name ? `${name} · ` : ""}${clustered() ? `${alive} of ${plural(nodes.length, "node")} answer · ` : "a node that is alone · "}${plural(shards.length, "shard")}, ${copies === 1 ? "one copy each" : `${copies} copies each`} · `,
      make("small", {}, "identity ", make("code", {}, cluster || "none yet")));
    refill(wrong, found.map(([tone, text]) => make("p", { class: `banner ${tone}` }, text)));
    refill(head, make("h2", {}, nodes.length > 1 ? "Nodes" : "Node"), nodes.length > 9 && search);
    if (!nodesCard.querySelector("table")) built();
    rows();
    map.update(data, clustered());
  }

  async function news() {
    line.update(live.now.events, live.life);
    const { life } = live;
    if (asking || stamp === `${life} ${live.now.stamp}`) return;
    asking = true;
    try {
      data = read(await ask("/v1/cluster/map"));
      stamp = `${life} ${data.stamp}`;
      if (!over) show();
    } catch {
      // The figures that are asked for every second say what is wrong.
    } finally {
      asking = false;
    }
  }
  live.addEventListener("news", news);
  if (live.now) news();
  return () => {
    over = true;
    figures?.close();
    live.removeEventListener("news", news);
  };
}

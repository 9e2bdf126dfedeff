// The map of shards: one square each, in its owner's colour. A list box, so that keys and readers find their way in it.
import { act } from "./actions.js";
import { make, pill, refill } from "./make.js";
import { list, plural, when } from "./say.js";

/** Nodes that get a button each. */
const BUTTONS = 24;
const FIRST = [250, 65, 150, 325, 200, 25, 110, 285];
/** The colour of the n-th node; beyond eight, colours repeat roughly and the legend tells apart. */
export const hue = n => FIRST[n] ?? Math.round((n * 137.5) % 360);

const names = nodes => (nodes.length ? list(nodes.map(node => node.node)) : "none");
const STATES = { owned: "", lost: "its owner does not answer", none: "nobody has owned it yet" };

function words(one) {
  const parts = [`shard ${one.shard}`, one.owner ? `owner ${one.owner.node}` : "no owner", `epoch ${one.epoch}`];
  if (one.state === "lost") parts.push(STATES.lost);
  if (one.copies.length) parts.push(`copies on ${names(one.copies)}`);
  if (one.filling.length) parts.push(`being copied to ${names(one.filling)}`);
  if (one.moving) parts.push(`moving to ${one.moving.node}`);
  return parts.join(", ");
}

export function shardMap() {
  let data, clustered = true, lit, chosen = 0, pinned = false, cells = [];
  const legend = make("div", { class: "legend", role: "group", ariaLabel: "Show one node's shards" });
  const box = make("div", { class: "shards", role: "listbox", tabIndex: 0, ariaLabel: "Shards" });
  const aside = make("section", { class: "shard", ariaLabel: "The shard that is looked at" });
  const key = make("p", { class: "key" });
  const element = make("div", {}, legend, make("div", { class: "around" }, make("div", {}, box, key), aside));

  const involves = (one, node) => one.owner === node || one.copies.includes(node) || one.filling.includes(node);
  const light = () => {
    const node = data.nodes.find(node => node.id === lit);
    box.classList.toggle("lit", Boolean(node));
    cells.forEach((cell, n) => cell.toggleAttribute("data-lit", Boolean(node) && involves(data.shards[n], node)));
  };

  function details() {
    const one = data.shards[chosen];
    if (!one) return refill(aside);
    const fact = (name, ...value) => make("div", {}, make("dt", {}, name), make("dd", {}, value));
    refill(aside, make("h3", {}, `Shard ${one.shard}`), make("dl", { class: "rows" },
      fact("Owner", one.owner ? one.owner.node : "nobody yet", one.state === "lost" && [" ", pill("bad", "no answer")]),
      fact("Epoch", `${one.epoch}`),
      fact("Vouches since", one.floor ? when(one.floor / 1000) : "ever"),
      fact("Copies", names(one.copies), one.thin && [" ", pill("warning", "too few")]),
      one.filling.length > 0 && fact("Being copied to", names(one.filling)),
      one.moving && fact("Moving to", one.moving.node)),
      clustered && one.owner && make("div", { class: "buttons" }, make("button", { type: "button", class: "plain small", data: { key: "move" }, onclick: () => act.move(one, data.nodes) }, "Move this shard")),
      make("p", { class: "quiet" }, make("small", {}, pinned ? "Chosen. Point at others to compare, arrow keys go through them." : "Point at a square, or go through them with the arrow keys.")));
  }

  function choose(n, pin) {
    cells[chosen]?.removeAttribute("data-chosen");
    if (pin) {
      cells.forEach(cell => cell.ariaSelected = "false");
      cells[n].ariaSelected = "true";
    }
    [chosen, pinned] = [n, pin];
    cells[n].setAttribute("data-chosen", "");
    box.setAttribute("aria-activedescendant", cells[n].id);
    details();
  }

  box.addEventListener("pointerover", ({ target }) => target.dataset.shard && choose(+target.dataset.shard, false));
  box.addEventListener("click", ({ target }) => target.dataset.shard && choose(+target.dataset.shard, true));
  box.addEventListener("keydown", event => {
    const columns = getComputedStyle(box).gridTemplateColumns.split(" ").length;
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    choose(Math.max(0, Math.min(cells.length - 1, chosen + by)), true);
    cells[chosen].scrollIntoView({ block: "nearest" });
  });

  const held = node => `${node.shards}${node.held ? ` + ${node.held}` : ""}`;
  const show = id => {
    lit = id;
    for (const button of legend.children) if (button.ariaPressed) button.ariaPressed = `${button.dataset.key === `lit-${id}`}`;
    light();
  };

  /** One node's shards can be shown alone: by a button for each, or of many by a list. */
  function legends() {
    const shown = data.nodes.filter(node => node.shards > 0 || node.held > 0 || node.roles.includes("owner"));
    if (shown.length > BUTTONS) {
      const select = make("select", { data: { key: "lit" }, onchange: ({ target }) => show(target.value === "" ? undefined : target.value) },
        make("option", { value: "" }, "of all nodes"), shown.map(node => make("option", { value: node.id, selected: node.id === lit }, `of ${node.node}: ${held(node)}`)));
      if (!legend.contains(document.activeElement)) refill(legend, make("label", { class: "check" }, "Shards", select));
    } else {
      refill(legend, shown.map(node => make("button", { type: "button", class: "plain", data: { key: `lit-${node.id}` }, ariaPressed: `${lit === node.id}`, onclick: () => show(lit === node.id ? undefined : node.id) },
        make("i", { class: "owner", vars: { "--hue": node.hue } }), node.node, make("small", {}, ` ${held(node)}`))));
    }
    const some = test => data.shards.some(test);
    refill(key, make("span", {}, "The number after a name: shards owned", some(one => one.copies.length > 0) && " + copies held"),
      some(one => one.state === "lost") && make("span", {}, make("b", {}, plural(data.shards.filter(one => one.state === "lost").length, "striped square")), ": no owner that answers"),
      some(one => one.thin) && make("span", {}, "dot: too few copies"),
      some(one => one.moving || one.filling.length) && make("span", {}, "frame: moving, or being copied"));
  }

  return {
    element,
    update(next, isClustered) {
      [data, clustered] = [next, isClustered];
      const { shards } = data;
      if (cells.length !== shards.length) {
        cells = shards.map(({ shard }) => make("div", { role: "option", id: `shard-${shard}`, ariaSelected: "false", data: { shard } }));
        box.style.setProperty("--cell", shards.length > 1024 ? ".72rem" : shards.length > 128 ? "1.15rem" : "1.6rem");
        box.replaceChildren(...cells);
      }
      shards.forEach((one, n) => {
        const cell = cells[n];
        const text = words(one);
        const look = `${text}${one.state}${one.owner?.hue}${one.thin}`;
        if (cell.look === look) return;
        cell.look = look;
        cell.ariaLabel = text;
        cell.className = one.state === "owned" ? "owner" : "";
        cell.dataset.state = one.state;
        if (one.owner) cell.style.setProperty("--hue", one.owner.hue);
        cell.toggleAttribute("data-thin", one.thin);
        cell.toggleAttribute("data-busy", Boolean(one.moving || one.filling.length));
      });
      legends();
      light();
      if (cells.length) choose(Math.min(chosen, cells.length - 1), pinned);
    },
  };
}

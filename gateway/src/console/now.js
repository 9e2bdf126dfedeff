// Now: what the node does at this moment, and how it came to that.
import { live, Live } from "./live.js";
import { make, pill, refill, table } from "./make.js";
import { cursor, plot } from "./plot.js";
import { bytes, count, delay, joined, list, percent, plural, short, span, time } from "./say.js";

const rate = value => `${joined(short(value))}/s`;
const FIGURES = [
  { label: "Publishes", unit: "/s", says: rate, lines: [{ of: "published", name: "publishes", tone: "a" }], short, large: true, about: "changes that got a version" },
  { label: "Deliveries", unit: "/s", says: rate, lines: [{ of: "told", name: "deliveries", tone: "a" }], short, large: true, about: "changes written to subscribers" },
  { label: "Delay", says: value => joined(delay(value)), lines: [{ of: "p50_us", name: "p50", tone: "a" }, { of: "p99_us", name: "p99", tone: "b" }], short: delay, large: true, about: "from the publish to the write; of several nodes, the slowest" },
  { label: "Connections", says: value => count(value), lines: [{ of: "open", name: "connections", tone: "a" }], short, large: true, about: "sockets open, this page's among them" },
  { label: "Coalesced", unit: "/s", says: rate, lines: [{ of: "coalesced", name: "coalesced", tone: "a" }], short, about: "replaced by a newer one before it was told" },
  { label: "Waiting", says: value => count(value), lines: [{ of: "pending", name: "waiting", tone: "a" }], short, about: "objects that subscribers have yet to hear of" },
  { label: "Fetch again", unit: "/s", says: rate, lines: [{ of: "resyncs", name: "resyncs", tone: "a" }], short, about: "objects that subscribers were told to fetch" },
  { label: "Refused", unit: "/s", says: rate, lines: [{ of: "refused", name: "refused", tone: "a" }], short, about: "because of a limit, or as bad input" },
  { label: "Closed", says: value => span(value), lines: [{ of: "lag_ms", name: "behind", tone: "a" }], short: value => span(value).split(" "), least: 500, about: "how far cursors are behind the clock" },
  { label: "Subscriptions", says: value => count(value), lines: [{ of: "subscriptions", name: "subscriptions", tone: "a" }], short, about: "objects watched, over all subscribers" },
  { label: "Processor", says: value => joined(percent(value)), lines: [{ of: "cpu_percent", name: "processor", tone: "a" }], short: percent, least: 10, about: "of one core" },
  { label: "Memory", says: value => joined(bytes(value)), lines: [{ of: "memory", name: "memory", tone: "a" }], short: bytes, binary: true, about: "that the process occupies" },
];

function figure(what) {
  const one = plot(what);
  const values = what.lines.map(({ name, tone }) => {
    const digits = make("b"), unit = make("i");
    return { digits, unit, element: make("span", { class: `value ${tone}` }, what.lines.length > 1 && make("small", {}, name), digits, unit) };
  });
  const element = make("section", { class: what.large ? "figure large" : "figure" },
    make("h2", {}, what.label), make("p", { class: "values" }, values.map(one => one.element)), one.element, make("p", { class: "about" }, what.about));
  const show = columns => {
    what.lines.forEach(({ of }, n) => {
      const all = columns[of] ?? [];
      const value = all[all.length - 1 - Math.min(cursor.at ?? 0, Math.max(0, all.length - 1))];
      const [digits, unit = ""] = value === undefined || value === null ? ["–"] : what.short(value);
      values[n].digits.textContent = digits;
      values[n].unit.textContent = digits === "–" ? "" : unit + (what.unit ?? "");
    });
  };
  return { element, show: columns => (show(columns), one.say()), update: (columns, most) => (one.update(columns, most), show(columns)) };
}

const TRANSPORTS = [["web_sockets", "WebSocket", "a"], ["event_streams", "Event stream", "b"], ["polls", "Long-poll, waiting", "c"], ["sessions", "Session, away", "d"]];

function transports(columns) {
  const of = name => columns[name]?.at(-1) ?? 0;
  const all = TRANSPORTS.reduce((sum, [name]) => sum + of(name), 0);
  const bar = make("div", { class: "share", ariaHidden: "true" }, all > 0 && TRANSPORTS.filter(([name]) => of(name) > 0).map(([name, , tone]) => make("i", { class: tone, vars: { "--part": of(name) } })));
  const rows = TRANSPORTS.map(([name, label, tone]) => make("div", {}, make("dt", {}, make("i", { class: `dot ${tone}` }), label), make("dd", {}, count(of(name)))));
  const busy = of("busy");
  return [bar, make("dl", { class: "rows" }, rows, make("div", {}, make("dt", {}, "of these, not reading"), make("dd", {}, busy ? pill("warning", count(busy)) : "0")))];
}

const isBytes = limit => limit.endsWith("_bytes");
const amount = (limit, value) => (isBytes(limit) ? joined(bytes(value)) : count(value));

function limits({ limits, refused }) {
  const rows = limits.map(one => ({ ...one, full: one.most ? one.used / one.most : 0 })).sort((a, b) => b.full - a.full);
  const body = make("tbody", {}, rows.map(({ limit, used, most, full, node }) => {
    const tone = full >= 0.95 ? "bad" : full >= 0.8 ? "warning" : "plain";
    const share = `${full > 0 && full < 0.01 ? "<1" : Math.round(full * 100)} %${tone === "plain" ? "" : ", close to full"}`;
    const times = refused[limit.replace("limits.", "")] ?? 0;
    return make("tr", {},
      make("th", { scope: "row" }, make("code", {}, limit), node && full > 0 && make("small", {}, ` at ${node}`)),
      make("td", { class: "number", data: { name: "In use" } }, amount(limit, used), make("small", {}, ` of ${amount(limit, most)}`)),
      make("td", { data: { name: "Share" } }, make("span", { class: "meter", data: { tone }, vars: { "--full": Math.min(1, full) } }, make("span", {}, share))),
      make("td", { class: "number", data: { name: "Refused" } }, times ? count(times) : make("span", { class: "quiet" }, "0")));
  }));
  const others = Object.entries(refused).filter(([name]) => !limits.some(one => one.limit === `limits.${name}`));
  const rest = others.length > 0 && make("p", { class: "quiet" }, "Also refused since the start, by other limits: ", others.flatMap(([name, times], n) => [n > 0 && ", ", make("code", {}, name), ` ${count(times)}`]), ".");
  return [table("How full the limits are", [{ name: "Limit" }, { name: "In use", class: "number" }, { name: "Share" }, { name: "Refused", class: "number" }], body), rest];
}

/** What is said of a node, or of all together. */
function about({ node, whole, cluster }) {
  if (!whole) {
    const parts = [`${node.name} has been up for ${span(node.uptime_ms)}`, plural(node.threads, "thread"), node.keeps ? "versions are kept on disk" : "versions are kept in memory only"];
    return [pill(node.ready ? "good" : "bad", node.ready ? "ready" : `not ready: ${list(node.reasons)}`), ` ${parts.join(" · ")}`];
  }
  const { nodes, silent, unready } = whole;
  const few = names => (names.length > 6 ? plural(names.length, "node") : list(names));
  const parts = [`${cluster.name ? `${cluster.name} · ` : ""}${nodes - silent.length} of ${plural(nodes, "node")} told their figures`];
  if (unready.length) parts.push(`not ready: ${few(unready.map(([name]) => name))}`);
  if (silent.length) parts.push(`without ${few(silent)}`);
  return [pill(silent.length || unready.length ? "warning" : "good", silent.length || unready.length ? "look here" : "all ready"), ` ${parts.join(" · ")}`];
}

/** @param {HTMLElement} root @param {URLSearchParams} query `node`: another one, or `*` for all together */
export function open(root, query) {
  const node = query.get("node") ?? undefined;
  const of = node === undefined ? live : new Live(node, live.span);
  const state = make("p", { class: "state" }, node && "asking the node …");
  const moment = make("output", { class: "moment" });
  const figures = FIGURES.map(figure);
  const by = make("div"), full = make("div"), wrong = make("div", { role: "alert" }), whose = make("div");
  const show = value => {
    live.show(value);
    if (of !== live) of.show(value);
  };
  const spans = [["minutes", "Last 5 minutes"], ["hour", "Last hour"]].map(([value, label]) =>
    make("label", {}, make("input", { type: "radio", name: "span", value, checked: live.span === value, onchange: () => show(value) }), make("span", {}, label)));
  root.append(
    make("header", { class: "head" }, make("div", {}, make("h1", {}, "Now"), state),
      make("div", { class: "tools" }, moment, whose, make("fieldset", { class: "choice" }, make("legend", { class: "heard" }, "Time shown"), spans))),
    wrong,
    make("div", { class: "figures" }, figures.map(one => one.element)),
    make("div", { class: "pair" },
      make("section", { class: "card" }, make("h2", {}, "Subscribers by transport"), by),
      make("section", { class: "card" }, make("h2", {}, node === "*" ? "Limits, where they are fullest" : "Limits"), full)));

  /** This node, another one that is looked at, or all together. */
  function choices() {
    if (whose.firstChild || !live.now?.node.clustered) return;
    const here = live.now.node.name;
    const all = [["", here], ...(node && node !== "*" && node !== here ? [[node, node]] : []), ["*", "Whole cluster"]];
    refill(whose, make("fieldset", { class: "choice" }, make("legend", { class: "heard" }, "Whose figures"), all.map(([value, label]) =>
      make("label", {}, make("input", { type: "radio", name: "whose", value, checked: (node ?? "") === value, onchange: () => (location.hash = value ? `#now?node=${encodeURIComponent(value)}` : "#now") }), make("span", {}, label)))));
  }
  const news = () => {
    choices();
    if (!of.now) return;
    refill(wrong);
    const { cluster, whole } = of.now;
    for (const one of figures) one.update(of.columns, of.most ?? 1);
    const missing = cluster.nodes - cluster.alive;
    refill(state, about(of.now), of.now.node.clustered && !whole && missing > 0 && make("a", { href: "#cluster", class: "aside" }, `${plural(missing, "node")} of the cluster ${missing === 1 ? "does" : "do"} not answer`));
    refill(by, transports(of.columns));
    if (!full.contains(document.activeElement)) refill(full, limits(of.now));
    move();
  };
  const move = () => {
    for (const one of figures) one.show(of.columns);
    const at = of.columns.at_ms?.at(-1 - (cursor.at ?? 0));
    moment.textContent = at === undefined ? "gathering" : cursor.at === null ? `as of ${time(at)}` : `at ${time(at)}`;
    moment.classList.toggle("past", cursor.at !== null);
  };
  const trouble = () => {
    if (!of.now) refill(state);
    refill(wrong, make("p", { class: "banner" }, make("strong", {}, "No figures"), ` ${of.trouble.message} `, make("a", { href: "#now" }, "This node's figures")));
  };
  of.addEventListener("news", news);
  live.addEventListener("news", choices);
  cursor.addEventListener("move", move);
  if (of !== live) {
    of.addEventListener("trouble", trouble);
    of.start();
    choices();
  } else if (live.now) news();
  return () => {
    of.removeEventListener("news", news);
    live.removeEventListener("news", choices);
    cursor.removeEventListener("move", move);
    if (of !== live) of.stop();
    cursor.move(null);
  };
}

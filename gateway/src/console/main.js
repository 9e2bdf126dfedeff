// The frame around the pages: which one is shown, whose figures they are, and what to do when nobody answers.
import { gate, key } from "./ask.js";
import { live } from "./live.js";
import { announce, field, make, refill } from "./make.js";
import { span } from "./say.js";
import * as now from "./now.js";
import * as cluster from "./cluster.js";
import * as connections from "./connections.js";
import * as connection from "./connection.js";
import * as why from "./why.js";
import * as trying from "./try.js";

const PAGES = { now: ["Now", now], cluster: ["Cluster", cluster], connections: ["Connections", connections], connection: ["Connection", connection], why: ["Why", why], try: ["Try", trying] };
const $ = id => document.getElementById(id);

let close = () => {};
/** `#page?name=value`: what is looked at can be sent to somebody. */
function show() {
  const [name, query] = location.hash.slice(1).split("?");
  const [title, page] = PAGES[name] ?? PAGES.now;
  const section = name === "connection" ? "connections" : name in PAGES ? name : "now";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${section}`) link.ariaCurrent = "page";
    else link.removeAttribute("aria-current");
  }
  close();
  const root = make("div", { class: `page ${name}` });
  $("page").replaceChildren(root);
  document.title = `${title} · ${live.now?.node.name ?? "Tidings"}`;
  close = page.open(root, new URLSearchParams(query)) ?? (() => {});
}
addEventListener("hashchange", () => {
  show();
  $("main").focus({ preventScroll: true });
  scrollTo(0, 0);
});

// Appearance.
const appearance = localStorage.getItem("tidings.theme") ?? "";
const dress = theme => (theme ? (document.documentElement.dataset.theme = theme) : delete document.documentElement.dataset.theme);
dress(appearance);
$("theme").value = appearance;
$("theme").addEventListener("change", ({ target }) => {
  localStorage.setItem("tidings.theme", target.value);
  dress(target.value);
});

// The operator's key.
function signIn(problem) {
  if ($("sign-in")) return;
  const input = make("input", { type: "password", name: "key", autocomplete: "off", spellcheck: false, required: true, value: "" });
  const had = key.get() !== "";
  const head = problem.status === 403 ? "This key may not look here" : had ? "This key does not count any more" : "An operator's key is needed";
  const form = make("form", { class: "card sign-in", id: "sign-in", onsubmit: event => {
    event.preventDefault();
    key.set(input.value.trim());
    refill($("trouble"));
    announce("Trying the key");
    show();
  } },
    make("h2", {}, head), make("p", {}, problem.message),
    field("API key", input, "Kept in this tab only, and sent to this node only."),
    make("div", { class: "buttons" }, make("button", { type: "submit" }, "Sign in"), had && make("button", { type: "button", class: "plain", onclick: () => (key.set(""), refill($("trouble")), show()) }, "Forget the key")));
  refill($("trouble"), form);
  input.focus();
}
gate.addEventListener("locked", ({ detail }) => signIn(detail));
const named = () => ($("key").textContent = key.get() ? "Forget the API key" : "API key");
gate.addEventListener("key", named);
named();
$("key").addEventListener("click", () => {
  if (!key.get()) return signIn({ status: 0, message: "With a key, the console asks as its operator." });
  key.set("");
  announce("The key is forgotten");
});

// Whose figures these are, and whether they still are.
function whose() {
  const { now, trouble } = live;
  const node = now?.node;
  const state = trouble ? "bad" : node?.ready ? "good" : "warning";
  $("whose").dataset.state = node || trouble ? state : "waiting";
  if (node) $("whose-name").textContent = node.name;
  $("whose-state").textContent = trouble ? (trouble.locked ? "key needed" : "no answer") : !node ? "connecting" : node.ready ? `${node.release}, up ${span(node.uptime_ms)}` : "not ready";
  $("page").toggleAttribute("data-stale", Boolean(trouble && node));
}
live.addEventListener("news", () => {
  whose();
  if ($("trouble").firstChild) refill($("trouble"));
});
live.addEventListener("trouble", () => {
  whose();
  const { trouble } = live;
  if (trouble.locked) return;
  const since = live.heardAt ? ` What is shown is ${span(Date.now() - live.heardAt)} old.` : "";
  const banner = $("trouble").querySelector(".banner") ?? make("div", { class: "banner" });
  refill(banner, make("strong", {}, trouble.status ? `The node refuses: ${trouble.code}` : "No answer"), ` ${trouble.message}${since} It is asked again every two seconds.`);
  if (!banner.isConnected) refill($("trouble"), banner);
});

// What is shown depends on whether the node is part of a cluster: it is asked first.
let begun = false;
const begin = () => begun || ((begun = true), show());
live.addEventListener("news", begin);
live.addEventListener("trouble", begin);
live.start();

// One connection: what it is, what it watches, how far it was told, and its end.
import { ask, path } from "./ask.js";
import { act } from "./actions.js";
import { TRANSPORTS, cursor } from "./connections.js";
import { make, nothing, pill, refill, table } from "./make.js";
import { count, span, time, when } from "./say.js";

const EVERY_MS = 2_000;
const LIMIT = 100;

function objectRow({ object, version, registered, pending, resync }, connection, node) {
  const state = resync ? pill("warning", "to fetch again") : pending ? pill("warning", "to be told") : registered ? pill("good", "told") : pill("plain", "not live yet");
  const cell = (name, ...children) => make("td", { data: { name } }, children);
  return make("tr", {},
    make("th", { scope: "row" }, make("code", {}, object)),
    cell("Last change", version === null ? make("span", { class: "quiet" }, "none known") : [when(version / 1000), make("small", {}, ` ${version}`)]),
    cell("State", state),
    make("td", { class: "number" }, make("a", { href: path("#why", { connection, node, object }), data: { key: object } }, "why?")));
}

/** @param {HTMLElement} root @param {URLSearchParams} query */
export function open(root, query) {
  const id = query.get("id") ?? "";
  const node = query.get("node") ?? undefined;
  const at = `/v1/connections/${encodeURIComponent(id)}`;
  const leaving = new AbortController();
  let timer, last, after;
  const state = make("p", { class: "state" });
  const facts = make("dl", { class: "facts" });
  const objects = make("div");
  const search = make("input", { type: "search", ariaLabel: "Find an object", placeholder: "part of an ID" });
  const behind = make("input", { type: "checkbox" });
  const close = make("button", { type: "button", class: "plain grave", disabled: true, onclick: () => act.close({ ...last, node }, () => (location.hash = "#connections")) }, "Close it");
  const whole = make("div", {},
    make("section", { class: "card" }, facts),
    make("section", { class: "card" },
      make("div", { class: "title" }, make("h2", {}, "What it watches"),
        make("form", { class: "buttons", onsubmit: event => (event.preventDefault(), page()) },
          search, make("label", { class: "check" }, behind, "only what it has yet to hear"))),
      objects));
  root.append(make("header", { class: "head" },
    make("div", {}, make("a", { class: "crumb", href: "#connections" }, "Connections"), make("h1", {}, make("code", {}, id || "none")), state),
    make("div", { class: "tools" }, close)), whole);
  search.addEventListener("change", () => page());
  behind.addEventListener("change", () => page());

  const gone = problem => {
    clearTimeout(timer);
    close.disabled = true;
    state.textContent = "";
    refill(whole, make("section", { class: "card" }, problem.status === 404 ? nothing("This connection is gone", node ? `It has ended: ${node} does not know it any more.` : "It has ended, or it is at another node.") : nothing("The node does not tell", problem.message)));
  };

  async function watch() {
    try {
      // What it watches is asked for in pages.
      last = await ask(path(at, { objects: 0, node }), { signal: leaving.signal });
      const fact = (name, value, more) => make("div", {}, make("dt", {}, name), make("dd", {}, value, more && make("small", {}, more)));
      close.disabled = false;
      const since = Date.now() - last.connected_ms;
      refill(state, node && `at ${node} · `, last.transport === "session" ? pill("plain", "away") : pill(last.busy ? "warning" : "good", last.busy ? "does not read" : "reads"), ` as of ${time(Date.now())}`);
      refill(facts,
        fact("Transport", TRANSPORTS[last.transport] ?? last.transport), fact("Address", last.address ?? "–"),
        fact("Connected since", when(since), `for ${span(last.connected_ms)}`), fact("Objects", count(last.objects)),
        fact("To be told", count(last.pending), last.pending ? "each once, its newest version" : "everything was told"), fact("To fetch again", count(last.resync)),
        fact("Told so far", count(last.told)), fact("Cursor behind", ...cursor(last)));
      timer = setTimeout(watch, EVERY_MS);
    } catch (problem) {
      if (leaving.signal.aborted) return;
      if (problem.status === 404 || problem.status === 400) return gone(problem);
      state.textContent = problem.message;
      timer = setTimeout(watch, EVERY_MS);
    }
  }

  async function page(from) {
    try {
      const told = await ask(path(`${at}/objects`, { search: search.value, behind: behind.checked ? "1" : "", after: from, limit: LIMIT, node }), { signal: leaving.signal });
      after = told.after;
      if (told.objects.length === 0) {
        const any = search.value || behind.checked;
        return refill(objects, any ? nothing(behind.checked ? "It has heard everything" : "It watches nothing like that") : nothing("It watches nothing"));
      }
      const found = table("Objects that it watches", [{ name: "Object" }, { name: "Last change" }, { name: "State" }, { name: "", ariaLabel: "Why" }], make("tbody", {}, told.objects.map(one => objectRow(one, id, node))));
      refill(objects, found, make("div", { class: "more" },
        after !== undefined && make("button", { type: "button", class: "plain", data: { key: "next" }, onclick: () => page(after) }, "Next page"),
        from !== undefined && make("button", { type: "button", class: "plain", data: { key: "first" }, onclick: () => page() }, "From the beginning"),
        make("button", { type: "button", class: "plain", data: { key: "again" }, onclick: () => page(from) }, "Look again")));
    } catch (problem) {
      if (!leaving.signal.aborted && problem.status !== 404 && problem.status !== 400) refill(objects, nothing("The node does not tell", problem.message));
    }
  }
  watch();
  page();
  return () => {
    leaving.abort();
    clearTimeout(timer);
  };
}

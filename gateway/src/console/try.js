// Try: publish, and watch objects live through the same library that pages use, with the same for a shell beside it.
import { ask, key, locked, path } from "./ask.js";
import { command, field, make, nothing, refill } from "./make.js";
import { quoted, time, typed } from "./say.js";

const LOG = 40;
const STATES = { idle: "idle", connecting: "connecting", waiting: "coming back", offline: "offline", stopped: "stopped" };
const NAMES = { websocket: "WebSocket", events: "event stream", poll: "long-poll" };

function publishing() {
  const object = make("input", { name: "object", required: true, value: "order:42", spellcheck: false, autocomplete: "off" });
  const kind = make("input", { name: "kind", placeholder: "updated", maxLength: 32, autocomplete: "off" });
  const revision = make("input", { name: "revision", inputMode: "numeric", pattern: "[0-9]*", placeholder: "none", autocomplete: "off" });
  const ack = make("select", { name: "ack" }, [["", "replicated (default)"], ["accepted", "accepted"], ["durable", "durable"]].map(([value, label]) => make("option", { value }, label)));
  const data = make("textarea", { name: "data", spellcheck: false, placeholder: `{"total": 12}` });
  const answer = make("p", { class: "answer", role: "status" });
  const shown = command("");
  const send = make("button", { type: "submit" }, "Publish");

  /** The change, or why there is none. */
  function read() {
    const change = { object: object.value };
    if (kind.value) change.kind = kind.value;
    if (revision.value) change.revision = Number(revision.value);
    if (data.value.trim()) change.data = JSON.parse(data.value);
    return change;
  }
  const target = () => path("/v1/publish", { ack: ack.value, trace: 1 });
  function show() {
    try {
      const change = read();
      data.setCustomValidity("");
      const url = query => quoted(typed(location.origin + path("/v1/publish", query)));
      if (Object.keys(change).length === 1) shown.set(`curl -X POST ${url({ object: object.value, ack: ack.value })}${locked()}`);
      else shown.set(`curl ${url({ ack: ack.value })} \\\n  -H 'Content-Type: application/json'${locked()} \\\n  -d ${quoted(JSON.stringify(change))}`);
    } catch (error) {
      data.setCustomValidity(`This is no JSON: ${error.message}`);
    }
  }
  async function publish(event) {
    event.preventDefault();
    send.disabled = true;
    const began = performance.now();
    try {
      const told = await ask(target(), { method: "POST", body: read() });
      const ms = Math.max(1, Math.round(performance.now() - began));
      refill(answer, make("strong", {}, told.duplicate ? "Had happened already" : "Accepted"), `, version ${told.version}, shard ${told.shard} in epoch ${told.epoch}, after ${ms} ms.`);
    } catch (problem) {
      refill(answer, make("span", { class: "banner" }, make("strong", {}, problem.code), `: ${problem.message}`, problem.retryable && " It may work later."));
    } finally {
      send.disabled = false;
    }
  }
  const form = make("form", { class: "form", onsubmit: publish, oninput: show },
    field("Object", object),
    make("div", { class: "pairs" }, field("Kind", kind), field("Revision", revision), field("Acknowledged when", ack)),
    field("Data, as JSON", data, "A hint of at most 64 KiB; subscribers may be told without it."), make("div", { class: "buttons" }, send));
  show();
  return { object, element: make("section", { class: "card" }, make("h2", {}, "Publish"), form, answer, shown.element) };
}

function watching(first) {
  const input = make("input", { ariaLabel: "Object to watch", placeholder: "order:42", spellcheck: false, autocomplete: "off", required: true });
  const state = make("span", { class: "pill" }, "idle");
  const watched = make("div", { class: "watched" });
  const log = make("ol", { class: "log", ariaLive: "polite", ariaRelevant: "additions" });
  const shown = command("");
  const objects = new Map();
  let tidings, watch, over = false;

  const say = (object, ...what) => {
    log.querySelector(".nothing")?.parentElement.remove();
    log.prepend(make("li", { class: "told" }, make("time", {}, time(Date.now())), make("b", {}, object), make("small", {}, what)));
    while (log.childElementCount > LOG) log.lastElementChild.remove();
  };
  const quiet = () => refill(log, make("li", {}, nothing("Nothing was told yet", "Publish one of the objects here, or with curl from a shell.")));
  const show = () => shown.set(`curl -N ${quoted(typed(location.origin + "/v1/events?" + [...objects.keys()].map(object => `object=${encodeURIComponent(object)}`).join("&")))}${locked()}`);

  function add(object) {
    if (!object || objects.has(object)) return;
    const button = make("button", { type: "button", class: "plain small", ariaLabel: `Stop watching ${object}`, onclick: () => {
      objects.delete(object);
      button.remove();
      watch?.remove(object);
      show();
    } }, object, " ×");
    objects.set(object, button);
    watched.append(button);
    watch?.add(object);
    show();
  }
  async function begin() {
    const { Tidings } = await import("/tidings.js");
    if (over) return;
    tidings = new Tidings(location.origin, { share: false, ...(key.get() ? { token: async () => key.get() } : {}) });
    tidings.addEventListener("state", ({ detail }) => {
      state.textContent = detail.state === "live" ? `live, ${NAMES[detail.transport]}` : STATES[detail.state];
      state.dataset.tone = { live: "good", stopped: "bad", offline: "bad", waiting: "warning" }[detail.state] ?? "";
      state.title = detail.message ?? "";
    });
    tidings.addEventListener("error", event => {
      event.preventDefault();
      say(event.detail.object ?? "connection", event.detail.message ?? event.detail.code);
    });
    watch = tidings.watch([...objects.keys()], change => {
      if (change.version === null) return say(change.object, `may have changed (${change.cause}): fetch it`);
      const data = change.data === undefined ? "" : ` · ${JSON.stringify(change.data).slice(0, 120)}`;
      say(change.object, `${change.kind ?? "changed"} · ${change.version}${data}`);
    });
  }
  const form = make("form", { class: "buttons", onsubmit: event => {
    event.preventDefault();
    add(input.value);
    form.reset();
  } }, make("div", {}, input), make("button", { type: "submit", class: "plain" }, "Watch"));
  quiet();
  add(first);
  add("order:43");
  begin().catch(() => say("library", "/tidings.js could not be loaded"));
  return {
    element: make("section", { class: "card" }, make("div", { class: "title" }, make("h2", {}, "Watch"), state), form, watched, log, shown.element),
    close: () => ((over = true), tidings?.close()),
  };
}

/** @param {HTMLElement} root */
export function open(root) {
  const left = publishing();
  const right = watching(left.object.value);
  root.append(make("header", { class: "head" }, make("div", {}, make("h1", {}, "Try"),
    make("p", { class: "state" }, "These are real changes on this server: whoever watches these objects hears of them."))), make("div", { class: "two" }, left.element, right.element));
  return right.close;
}

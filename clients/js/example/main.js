// The page at /example: cards of objects, told by the client that the same server serves.
import { Tidings } from "/tidings.js";

const $ = id => document.getElementById(id);
const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};
const time = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23" });

const cards = new Map();
let heard = 0;

const tidings = new Tidings(location.origin);
const words = { idle: "idle", connecting: "connecting", waiting: "coming back", offline: "offline", stopped: "stopped" };
const names = { websocket: "WebSocket", events: "event stream", poll: "long-poll" };
tidings.addEventListener("state", ({ detail: { state, transport, message } }) => {
  $("state").dataset.state = state;
  $("state").title = message ?? "";
  $("state").lastElementChild.textContent = words[state] ?? `live, ${names[transport]}`;
});
tidings.addEventListener("error", ({ detail }) => {
  if (detail.code === "object_refused") say(detail.object, detail.message);
});

const watch = tidings.watch([], change => {
  const card = cards.get(change.object);
  if (!card) return;
  // A real page fetches the object's state here. The next change waits until that has ended.
  card.times.firstChild.data = `${++card.heard} `;
  card.times.lastChild.textContent = card.heard === 1 ? "change heard" : "changes heard";
  card.when.textContent = change.version === null ? "may have changed" : `at ${time.format(change.version / 1000)}`;
  flash(card.item);
  say(change.object, change.kind ?? (change.version === null ? change.cause : "changed"));
});

function flash(item) {
  item.classList.remove("told");
  void item.offsetWidth;
  item.classList.add("told");
}

function say(object, what) {
  const row = element("li", { className: "told" }, element("span", { textContent: object }), element("b", { textContent: `${what} · ${time.format(Date.now())}` }));
  $("log").prepend(row);
  while ($("log").childElementCount > 8) $("log").lastElementChild.remove();
  $("count").textContent = `${++heard} so far`;
}

async function publish(object) {
  const headers = { "content-type": "application/json" };
  try {
    const answer = await fetch("/v1/publish", { method: "POST", headers, body: JSON.stringify({ object, kind: "clicked" }) });
    if (!answer.ok) say(object, (await answer.json()).detail);
  } catch {
    say(object, "not published: the server cannot be reached");
  }
}

function add(object) {
  if (cards.has(object)) return flash(cards.get(object).item);
  const times = element("div", { className: "times" }, "0 ", element("small", { textContent: "changes heard" }));
  const when = element("div", { className: "when", textContent: "watching" });
  const publishing = element("button", { type: "button", textContent: "Publish a change", onclick: () => publish(object) });
  const removing = element("button", { type: "button", className: "plain", textContent: "Remove", ariaLabel: `Stop watching ${object}`, onclick: () => remove(object) });
  const item = element("li", {}, element("div", { className: "top" }, element("strong", { textContent: object })), times, when, element("div", { className: "actions" }, publishing, removing));
  cards.set(object, { item, times, when, heard: 0 });
  $("objects").append(item);
  watch.add(object);
}

function remove(object) {
  cards.get(object)?.item.remove();
  cards.delete(object);
  watch.remove(object);
}

$("add").addEventListener("submit", event => {
  event.preventDefault();
  add($("object").value.trim());
  $("add").reset();
});
$("command").textContent = `curl -X POST \\\n  '${location.origin}/v1/publish?object=order:42'`;
$("code").textContent = `<script type="module">
  import { Tidings } from "${location.origin}/tidings.js";
  const tidings = new Tidings("${location.origin}");
  tidings.watch(["order:42"], async change => {
    await refresh(change.object);
  });
</` + `script>`;
$("copy").addEventListener("click", async () => {
  const said = await navigator.clipboard?.writeText($("command").textContent).then(() => "Copied", () => "Not allowed") ?? "Not allowed";
  $("copy").textContent = said;
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
});

for (const object of ["order:42", "order:43", "doc:7"]) add(object);

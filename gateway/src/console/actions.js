// What changes something: each is asked for twice, says what it does first, and shows the server's own words if it refuses.
import { ask, path } from "./ask.js";
import { announce, field, make, refill } from "./make.js";
import { plural } from "./say.js";

/**
 * @param {{ title: string, about: string[], fields?: { name: string, element: HTMLElement }[], typed?: string, grave?: boolean, label: string, done: string, run: (values: object) => Promise<any>, more?: (answer: any) => string | undefined }} what
 * `typed`: has to be typed before it can be done; `more`: what the answer says is still to do, so that it can be ordered again
 */
function confirm({ title, about, fields = [], typed, grave, label, done, run, more = () => undefined }) {
  const go = make("button", { type: "submit", class: grave ? "grave" : "", disabled: Boolean(typed) }, label);
  const back = make("button", { type: "button", class: "plain", onclick: () => dialog.close() }, "Cancel");
  const refused = make("div", { role: "alert" });
  const check = typed && make("input", { autocomplete: "off", spellcheck: false, oninput: ({ target }) => (go.disabled = target.value !== typed) });
  const form = make("form", { class: "form", onsubmit: async event => {
    event.preventDefault();
    go.disabled = true;
    refill(refused);
    try {
      const still = more(await run(Object.fromEntries(fields.map(({ name, element }) => [name, element.type === "checkbox" ? element.checked : element.value]))));
      if (still) {
        refill(refused, make("p", { class: "banner warning" }, still));
        go.disabled = false;
        return;
      }
      dialog.close();
      announce(done);
    } catch (problem) {
      const again = problem.retryable ? " It may work later." : "";
      refill(refused, make("p", { class: "banner" }, make("strong", {}, "Refused"), ` (${problem.code}). ${problem.message}${again}`));
      go.disabled = false;
    }
  } }, fields.map(({ label, element, hint }) => (element.type === "checkbox" ? make("label", { class: "check" }, element, label) : field(label, element, hint))), check && field(`Type ${typed} to go on`, check), refused, make("div", { class: "buttons" }, back, go));
  const dialog = make("dialog", { ariaLabel: title, onclose: () => dialog.remove() }, make("h2", {}, title), about.map(text => make("p", {}, text)), form);
  document.body.append(dialog);
  dialog.showModal();
}

const post = (target, body) => ask(target, { method: "POST", body });

export const act = {
  drain(node) {
    if (node.draining) {
      return confirm({
        title: `End the drain of ${node.node}`, about: [`${node.node} may own shards again. Those that were handed over come back only as they are placed anew.`],
        label: "End the drain", done: `${node.node} takes shards again`, run: () => post("/v1/cluster/drain", { node: node.node, undo: true }),
      });
    }
    confirm({
      title: `Drain ${node.node}`,
      about: [`It gives up its ${plural(node.shards, "shard")}, its copies and its vote, gets nothing new, and sends its subscribers to other nodes. You can end the drain at any time.`],
      label: "Drain it", done: `${node.node} gives up its shards`, run: () => post("/v1/cluster/drain", { node: node.node }),
    });
  },
  remove(node) {
    const alive = node.alive ? `${node.node} still answers: drain it first, or what only it knows is lost.` : `${node.node} does not answer. What only its disk holds is given up.`;
    confirm({
      title: `Remove ${node.node} from the cluster`, grave: true, typed: node.node,
      about: [`${alive} It owns ${plural(node.shards, "shard")} now. To come back it has to join again with an empty data directory.`],
      fields: [{ name: "force", label: "also if that loses what nobody else has", element: make("input", { type: "checkbox" }) }],
      label: "Remove it", done: `${node.node} is removed`, run: ({ force }) => post("/v1/cluster/remove", { node: node.node, ...(force && { force }) }),
      more: answer => (answer?.removed === false ? `${plural(answer.shards, "shard")} still ${answer.shards === 1 ? "names" : "name"} it and ${answer.shards === 1 ? "gets" : "get"} another owner first. Order it again in a moment.` : undefined),
    });
  },
  move(shard, nodes) {
    const others = nodes.filter(node => node.alive && node.member && node !== shard.owner && node.roles.includes("owner"));
    const select = make("select", { required: true }, others.map(node => make("option", { value: node.node }, `${node.node}${shard.copies.includes(node) ? ", has a copy" : ""}`)));
    confirm({
      title: `Move shard ${shard.shard}`,
      about: [others.length ? `${shard.owner.node} hands it over once the new owner has everything. Publishes of its objects pause for a moment; nobody has to fetch again.` : "There is no other node that could own it."],
      fields: [{ name: "to", label: "New owner", element: select }],
      label: "Move it", done: `Shard ${shard.shard} is to move`, run: ({ to }) => post("/v1/cluster/move", { shard: shard.shard, to }),
    });
  },
  close(connection, then) {
    confirm({
      title: `Close connection ${connection.connection}`, grave: true,
      about: [`It is closed with code 4506, "closed by an operator": clients take it as final and do not come back by themselves. It watches ${plural(connection.objects, "object")}.`],
      label: "Close it", done: `Connection ${connection.connection} is closed`,
      run: async () => {
        await ask(path(`/v1/connections/${connection.connection}`, { node: connection.node }), { method: "DELETE" });
        then();
      },
    });
  },
};

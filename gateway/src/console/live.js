// The node's figures, asked for again and again while somebody looks, and kept as far back as the node remembers.
import { ask, gate, path } from "./ask.js";

const EVERY_MS = 1_000;
const AGAIN_MS = 2_000;
export const EACH_NODE_MS = 20;

/** Events: `news` when something was told, `trouble` when not. */
export class Live extends EventTarget {
  /** Whose figures: a node's name, `*` for all together, or nothing for the node that is asked. */
  node;
  /** The last answer. */
  now;
  /** Column → values, oldest first. */
  columns = {};
  span = "minutes";
  /** Why there is no answer. @type {import("./ask.js").Problem | undefined} */
  trouble;
  heardAt = 0;
  /** Counts the starts of the node that were seen: what it said in another life does not go on in this one. */
  life = 0;
  #next = 0;
  #timer;
  #asking = false;
  #leaving = new AbortController();

  constructor(node, span = "minutes") {
    super();
    Object.assign(this, { node, span });
  }

  start() {
    const { signal } = this.#leaving;
    document.addEventListener("visibilitychange", () => document.hidden || this.#soon(0), { signal });
    gate.addEventListener("key", () => this.#soon(0), { signal });
    this.#soon(0);
  }

  stop() {
    this.#leaving.abort();
    clearTimeout(this.#timer);
  }

  /** The last minutes or the last hour. */
  show(span) {
    Object.assign(this, { span, columns: {} });
    this.#next = 0;
    this.#soon(0);
  }

  #soon(ms) {
    if (this.#leaving.signal.aborted) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), ms);
  }

  async #ask() {
    if (this.#asking) return this.#soon(50);
    if (document.hidden) return;
    this.#asking = true;
    const { span } = this;
    try {
      const told = await ask(path("/v1/live", { span, after: this.#next, node: this.node }), { signal: this.#leaving.signal });
      const again = told.node.uptime_ms < this.now?.node.uptime_ms;
      Object.assign(this, { now: told, trouble: undefined, heardAt: Date.now(), life: this.life + again });
      if (again) (this.#next = 0), (this.columns = {});
      else if (span === this.span) this.#take(told.series);
      this.dispatchEvent(new Event("news"));
      // All nodes are asked for their figures: with hundreds of them, less often.
      this.#soon(again ? 0 : Math.max(EVERY_MS, EACH_NODE_MS * (told.whole?.nodes ?? 0)));
    } catch (problem) {
      if (this.#leaving.signal.aborted) return;
      this.trouble = problem;
      this.dispatchEvent(new Event("trouble"));
      // With a wrong key there is nothing to hope for until there is another one.
      if (!problem.locked) this.#soon(AGAIN_MS);
    } finally {
      this.#asking = false;
    }
  }

  #take({ next, most, step_ms, ...columns }) {
    this.#next = next;
    for (const [name, values] of Object.entries(columns)) {
      this.columns[name] = [...(this.columns[name] ?? []), ...values].slice(-most);
    }
    Object.assign(this, { most, stepMs: step_ms });
  }
}

export const live = new Live();

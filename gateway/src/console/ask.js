// Questions to the node that served this page, with the operator's key if there is one. A refusal is a `Problem`.

const PATIENCE_MS = 10_000;
const KEY = "tidings.key";

/** What a node refused, or that nobody answered: `status` 0. Its words are those of the server. */
export class Problem extends Error {
  constructor(status, code, detail, retryable) {
    super(detail);
    Object.assign(this, { status, code, retryable });
  }
  /** A key is needed, or another one. */
  get locked() {
    return this.status === 401 || (this.status === 403 && !["host_refused", "origin_refused"].includes(this.code));
  }
}

/** Told of every answer: `locked` with the problem, `open` when a question was answered. */
export const gate = new EventTarget();

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set(text) {
    if (text) sessionStorage.setItem(KEY, text);
    else sessionStorage.removeItem(KEY);
    gate.dispatchEvent(new Event("key"));
  },
};

/** A path with those parameters that say something. */
export const path = (base, parameters) => {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== undefined && value !== "" && value !== false && value !== null));
  return query.size ? `${base}?${query}` : base;
};

/**
 * @param {string} target @param {{ method?: string, body?: object, signal?: AbortSignal }} options
 * @returns {Promise<any>} what the node answered; `undefined` where it has nothing to say
 */
export async function ask(target, { method = "GET", body, signal } = {}) {
  const headers = new Headers();
  if (key.get()) headers.set("authorization", `Bearer ${key.get()}`);
  if (body) headers.set("content-type", "application/json");
  const patience = AbortSignal.timeout(PATIENCE_MS);
  let answer;
  try {
    answer = await fetch(target, { method, headers, body: body && JSON.stringify(body), signal: signal ? AbortSignal.any([signal, patience]) : patience, cache: "no-store" });
    if (answer.ok) {
      gate.dispatchEvent(new Event("open"));
      return answer.status === 204 ? undefined : await answer.json();
    }
  } catch (error) {
    if (signal?.aborted) throw error;
    const why = patience.aborted ? `The node did not answer within ${PATIENCE_MS / 1000} seconds.` : "The node cannot be reached.";
    throw new Problem(0, "unreachable", why, true);
  }
  const told = await answer.json().catch(() => ({}));
  const problem = new Problem(answer.status, told.code ?? `status_${answer.status}`, told.detail ?? told.title ?? `The node answered ${answer.status}.`, told.retryable ?? answer.status >= 500);
  if (problem.locked) gate.dispatchEvent(new CustomEvent("locked", { detail: problem }));
  throw problem;
}

/** The same question for a shell. The key itself is never shown. */
export const locked = () => (key.get() ? ` \\\n  -H "Authorization: Bearer $TIDINGS_KEY"` : "");

// Elements, made from values. Text is always text: nothing here reads markup.

const fill = (element, properties, children) => {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.setAttribute("class", value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "vars") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else if (name in element && name !== "list" && !(element instanceof SVGElement)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter(child => child !== undefined && child !== null && child !== false));
  return element;
};

/** @param {string} name @param {object} properties `on…`: listeners, `data`: dataset, `vars`: CSS variables */
export const make = (name, properties = {}, ...children) => fill(document.createElement(name), properties, children);

export const draw = (name, properties = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", name), properties, children);

/** Puts other children into an element; what had the focus keeps it, if a child with the same `data-key` is there. */
export function refill(element, ...children) {
  const held = element.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  element.replaceChildren(...children.flat(3).filter(Boolean));
  if (held) element.querySelector(`[data-key="${CSS.escape(held)}"]`)?.focus();
  return element;
}

/** Something is said to those who listen instead of looking. */
export function announce(text) {
  document.getElementById("status").textContent = text;
}

/** A table with its head. @param {{ name: string, class?: string }[]} columns */
export const table = (caption, columns, body) =>
  make("div", { class: "scroll", tabIndex: 0, role: "region", ariaLabel: caption },
    make("table", { class: "stack" },
      make("caption", { class: "heard" }, caption),
      make("thead", {}, make("tr", {}, columns.map(({ name, ...rest }) => make("th", { scope: "col", ...rest }, name)))),
      body));

/** A word that stands for a state: its colour says the same as its text. */
export const pill = (tone, text, title) => make("span", { class: "pill", data: { tone }, title }, text);

/** What is there instead of nothing. */
export const nothing = (head, ...more) => make("div", { class: "nothing" }, make("strong", {}, head), ...more.map(text => make("p", {}, text)));

/** A text to be copied, as it would be typed. */
export function command(text) {
  const code = make("code", {}, text);
  const copy = make("button", { type: "button", class: "plain small", onclick: async () => {
    const done = await navigator.clipboard?.writeText(code.textContent).then(() => "Copied", () => "Not allowed") ?? "Not allowed";
    copy.textContent = done;
    announce(done);
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  } }, "Copy");
  const element = make("div", { class: "command" }, make("pre", { tabIndex: 0 }, code), copy);
  return { element, set: text => (code.textContent = text) };
}

/** A field with its label, and what it is good for. */
export const field = (label, input, hint) => make("label", { class: "field" }, make("span", {}, label), input, hint && make("small", {}, hint));

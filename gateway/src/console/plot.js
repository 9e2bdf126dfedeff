// Small plots over the same time. One cursor goes through all of them: where one is pointed at, the others show the same moment.
import { draw, make } from "./make.js";
import { time } from "./say.js";

const WIDTH = 300;
const HEIGHT = 64;

/** Told where the cursor is: `at`, an index from the newest (0) back; `null`: nowhere. */
export const cursor = Object.assign(new EventTarget(), {
  at: null,
  move(at) {
    if (at === cursor.at) return;
    cursor.at = at;
    cursor.dispatchEvent(new Event("move"));
  },
});

/** The next number above that people like: 1, 2, 5, 10 …; of bytes in powers of 1,024. */
function nice(value, binary) {
  if (!(value > 0)) return 1;
  if (binary && value >= 1024) {
    const unit = 1024 ** Math.floor(Math.log2(value) / 10);
    return nice(value / unit) * unit;
  }
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find(step => step * power >= value) * power;
}

/**
 * @param {{ label: string, lines: { of: string, name: string, tone: string }[], says: (value: number) => string, least?: number }} options
 * `of`: a column; `says`: a value in words; `least`: what the axis reaches at least.
 */
export function plot({ label, lines, says, least = 0, binary = false }) {
  const areas = lines.map(({ tone }) => draw("path", { class: `area ${tone}` }));
  const paths = lines.map(({ tone }) => draw("path", { class: `line ${tone}`, "vector-effect": "non-scaling-stroke" }));
  const mark = draw("line", { class: "mark", y1: 0, y2: HEIGHT, "vector-effect": "non-scaling-stroke", visibility: "hidden" });
  const floor = draw("line", { class: "floor", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT, "vector-effect": "non-scaling-stroke" });
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, floor, areas, paths, mark);
  const top = make("span", { class: "top" });
  const element = make("div", { class: "plot", tabIndex: 0, role: "slider", ariaLabel: `${label} over time`, ariaValueMin: "0" }, svg, top);
  let columns = {}, most = 1;

  const length = () => columns.at_ms?.length ?? 0;
  const say = () => {
    const at = Math.min(cursor.at ?? 0, Math.max(0, length() - 1));
    const index = length() - 1 - at;
    const words = lines.map(({ of, name }) => {
      const value = columns[of]?.[index];
      return `${lines.length > 1 ? `${name} ` : ""}${value === null || value === undefined ? "no figure" : says(value)}`;
    });
    element.ariaValueMax = `${Math.max(0, length() - 1)}`;
    element.ariaValueNow = `${Math.max(0, index)}`;
    element.ariaValueText = length() ? `${words.join(", ")} at ${time(columns.at_ms[index])}` : "nothing yet";
    mark.setAttribute("visibility", cursor.at === null ? "hidden" : "visible");
    const x = WIDTH * (1 - at / Math.max(1, most - 1));
    mark.setAttribute("x1", x);
    mark.setAttribute("x2", x);
  };

  const shape = (values, highest) => {
    let line = "", area = "", open = false, lastX = 0;
    const left = most - values.length;
    values.forEach((value, n) => {
      if (value === null) return void (open && (area += `L${lastX} ${HEIGHT}Z`), open = false);
      const x = +(((left + n) / Math.max(1, most - 1)) * WIDTH).toFixed(1);
      const y = +(HEIGHT - 1 - (value / highest) * (HEIGHT - 3)).toFixed(1);
      line += `${open ? "L" : "M"}${x} ${y}`;
      area += open ? `L${x} ${y}` : `M${x} ${HEIGHT}L${x} ${y}`;
      // A lone point would not be seen.
      if (!open && (values[n + 1] ?? null) === null) line += `h.6`;
      open = true;
      lastX = x;
    });
    if (open) area += `L${lastX} ${HEIGHT}Z`;
    return [line, area];
  };

  element.addEventListener("pointermove", ({ clientX }) => {
    const { left, width } = element.getBoundingClientRect();
    cursor.move(Math.max(0, Math.min(length() - 1, Math.round((1 - (clientX - left) / width) * (most - 1)))));
  });
  element.addEventListener("pointerleave", () => cursor.move(null));
  element.addEventListener("blur", () => cursor.move(null));
  element.addEventListener("keydown", event => {
    const by = { ArrowLeft: 1, ArrowRight: -1, PageUp: 20, PageDown: -20, Home: Infinity, End: -Infinity }[event.key];
    if (event.key === "Escape") cursor.move(null);
    if (by === undefined) return;
    event.preventDefault();
    cursor.move(Math.max(0, Math.min(length() - 1, (cursor.at ?? 0) + by)));
  });

  return {
    element,
    say,
    update(next, nextMost) {
      [columns, most] = [next, nextMost];
      const all = lines.flatMap(({ of }) => (columns[of] ?? []).filter(value => value !== null));
      const highest = nice(Math.max(least, ...all), binary);
      top.textContent = all.length ? says(highest) : "";
      lines.forEach(({ of }, n) => {
        const [line, area] = shape(columns[of] ?? [], highest);
        paths[n].setAttribute("d", line);
        areas[n].setAttribute("d", lines.length === 1 ? area : "");
      });
      say();
    },
  };
}

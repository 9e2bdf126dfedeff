// Figures as people read them. Digits have one width everywhere, so that nothing jumps.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

const scaled = (value, steps) => {
  for (const [from, by, unit] of steps) {
    if (value >= from) {
      const of = value / by;
      return [of >= 100 || (of >= 10 && unit === "") ? whole.format(of) : of.toFixed(of >= 10 ? 1 : 2).replace(/\.?0+$/, ""), unit];
    }
  }
  return ["0", steps.at(-1)[2]];
};

/** A number in few characters: 940, 12.4 k, 1.9 M. As [digits, unit]. */
export const short = value => (value < 10 && value > 0 && !Number.isInteger(value) ? [value.toFixed(1), ""] : scaled(Math.round(value), [[1e9, 1e9, "G"], [1e6, 1e6, "M"], [1e4, 1e3, "k"], [1, 1, ""]]));
export const count = value => whole.format(value);
export const bytes = value => scaled(value, [[2 ** 30, 2 ** 30, "GiB"], [2 ** 20, 2 ** 20, "MiB"], [2 ** 10, 2 ** 10, "KiB"], [0, 1, "B"]]);
/** Microseconds. */
export const delay = value => (value === null || value === undefined ? ["–", ""] : scaled(value, [[1e6, 1e6, "s"], [1e3, 1e3, "ms"], [0, 1, "µs"]]));
export const percent = value => [value >= 10 ? whole.format(value) : value.toFixed(1), "%"];
export const joined = ([digits, unit]) => (unit ? `${digits} ${unit}` : digits);

/** A time span in words: 43 s, 12 min, 3 h 20 min, 5 d. */
export function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 120) return ms < 950 ? `${Math.round(ms)} ms` : `${s} s`;
  const minutes = Math.floor(s / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export const time = ms => clock.format(ms);
export const when = ms => (Date.now() - ms < 12 * 3600e3 ? clock.format(ms) : day.format(ms));
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
export const list = items => new Intl.ListFormat("en").format(items);

/** Numbers as ranges: 1–4, 9. */
export function ranges(numbers) {
  const found = [];
  for (const n of [...numbers].sort((a, b) => a - b)) {
    const last = found.at(-1);
    if (last && last[1] === n - 1) last[1] = n;
    else found.push([n, n]);
  }
  return found.map(([from, to]) => (from === to ? `${from}` : `${from}–${to}`)).join(", ");
}

/** A query as people type it: what needs no escape has none. */
export const typed = url => url.replaceAll("%3A", ":").replaceAll("%2F", "/").replaceAll("%2C", ",");

/** A value for a shell, quoted only where it must be. */
export const quoted = text => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

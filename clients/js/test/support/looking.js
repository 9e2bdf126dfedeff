// Pages as people see them: sizes, dark and light, pictures, and what stands in the way of some.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** Where pictures go; without the variable none are taken. */
const shots = process.env.TIDINGS_SHOTS;
const axe = fileURLToPath(new URL("../console/node_modules/axe-core/axe.min.js", import.meta.url));
export const withoutAxe = existsSync(axe) ? false : "SKIPPED: axe-core is not installed (npm ci in clients/js/test/console)";

export const DESKTOP = { width: 1280, height: 860 };
export const PHONE = { width: 390, height: 844 };

/** @param {{ width: number, height: number, dark?: boolean }} how */
export async function view(page, { width, height, dark = false }) {
  await page.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: width < 600 });
  await page.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }, { name: "prefers-reduced-motion", value: "reduce" }] });
}

/** A picture of the whole page. */
export async function shoot(page, name) {
  if (!shots) return;
  const { cssContentSize } = await page.send("Page.getLayoutMetrics");
  const clip = { x: 0, y: 0, width: cssContentSize.width, height: Math.min(4000, cssContentSize.height), scale: 1 };
  const { data } = await page.send("Page.captureScreenshot", { format: "png", captureBeyondViewport: true, clip });
  mkdirSync(shots, { recursive: true });
  writeFileSync(join(shots, `${name}.png`), Buffer.from(data, "base64"));
}

/** What axe finds: serious and critical ones, in words. */
export async function obstacles(page) {
  if (!(await page.run("Boolean(window.axe)"))) await page.run(`${readFileSync(axe, "utf8")}; true`);
  return page.run(`axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => id + " at " + target + ": " + failureSummary.split("\\n").slice(1).join(" "))).slice(0, 5))`);
}

/** What does not fit beside the page: it would scroll sideways. */
export const tooWide = page =>
  page.run(`(() => {
    const width = document.documentElement.clientWidth;
    const inside = one => one.parentElement?.closest(".scroll, .command pre, .heard, .skip, svg");
    return document.documentElement.scrollWidth <= width ? [] : [...document.querySelectorAll("body *")].filter(one => !inside(one) && one.getBoundingClientRect().right > width + 1).map(one => one.outerHTML.slice(0, 120));
  })()`);

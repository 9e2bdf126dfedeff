// Random lives in a real browser: `npm run lives` runs a hundred, TIDINGS_SEED=17 replays one, TIDINGS_SEEDS=100 runs more.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Browser, withoutChromium } from "./support/chromium.js";
import { life } from "./support/lives.js";
import { endFronts } from "./support/front.js";
import { endPrograms, withoutProgram } from "./support/program.js";

const first = Number(process.env.TIDINGS_SEED ?? 1);
const count = Number(process.env.TIDINGS_SEEDS ?? (process.env.TIDINGS_SEED ? 1 : 5));

describe("random lives in a browser", { skip: withoutProgram || withoutChromium }, () => {
  it(`nothing is lost and nothing goes back (${count} from seed ${first} on)`, async () => {
    const browser = await Browser.start();
    const sum = {};
    const bad = [];
    let next = first;
    const run = async () => {
      while (next < first + count) {
        const seed = next++;
        const result = await life(browser, seed);
        for (const [what, times] of Object.entries(result.counts)) sum[what] = (sum[what] ?? 0) + times;
        sum.resyncs = (sum.resyncs ?? 0) + result.resyncs;
        if (process.env.TIDINGS_STORY) console.log(`# ${JSON.stringify(result)}`);
        if (result.bad.length) bad.push(JSON.stringify(result));
      }
    };
    try {
      await Promise.all([run(), run(), run()]);
    } finally {
      browser.end();
      endFronts();
      endPrograms();
    }
    console.log(`# ${count} lives: ${JSON.stringify(sum)}`);
    assert.deepEqual(bad, []);
    assert.ok(sum.kills + sum.offline + sum.closings >= count, "too little happened to mean anything");
  });
});

// Waiting for conditions, never for a while.

/** Until `check` gives something true; `what` for the report. */
export async function until(check, what = String(check), patienceMs = 30_000) {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    const found = await check();
    if (found) return found;
    if (performance.now() > deadline) throw new Error(`not in time: ${what}`);
    await new Promise(ok => setTimeout(ok, 10));
  }
}

export const pause = ms => new Promise(ok => setTimeout(ok, ms));

/** Numbers from a seed: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), upper bits. */
export function seeded(seed) {
  let state = BigInt(seed);
  return () => {
    state = BigInt.asUintN(64, state + 0x9e3779b97f4a7c15n);
    let z = state;
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
    return Number((z ^ (z >> 31n)) >> 11n) / 2 ** 53;
  };
}

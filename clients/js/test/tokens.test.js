// Tokens on real sockets and requests, against a server that lets them expire, refuses and revokes them.
import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { Tidings } from "../tidings.js";
import { Stub, endStubs } from "./support/stub.js";
import { until } from "./support/waiting.js";

const transports = globalThis.WebSocket ? ["websocket", "events", "poll"] : ["events", "poll"];
const open = [];

/** A stub, and a client whose token function gives what `give` says. */
const start = async (transport, give) => {
  const stub = await Stub.start();
  const heard = { versions: [], errors: [], states: [], resyncs: 0 };
  let calls = 0;
  const token = async () => give(++calls, stub);
  const tidings = new Tidings(stub.url, { transport, token, firstMs: 20, longestMs: 100, pollMs: 500 });
  open.push(tidings);
  tidings.addEventListener("state", ({ detail }) => heard.states.push(detail));
  tidings.addEventListener("error", event => (heard.errors.push(event.detail.code), event.preventDefault()));
  const watch = tidings.watch(["a"], ({ version }) => (version === null ? heard.resyncs++ : heard.versions.push(version)));
  const hears = async () => {
    const version = stub.change("a");
    await until(() => heard.versions.at(-1) === version);
  };
  return { stub, tidings, watch, heard, hears, calls: () => calls };
};
const good = ms => (n, stub) => (stub.grant(`token ${n}`, ms), `token ${n}`);

describe("tokens", () => {
  after(() => {
    for (const tidings of open) tidings.close();
    endStubs();
  });

  for (const transport of transports) {
    it(`${transport}: one is asked for at each connect, and everything that is asked bears it`, async () => {
      const { stub, watch, heard, hears, calls } = await start(transport, good());
      await watch.ready();
      await hears();
      assert.equal(calls(), 1);
      await until(() => stub.listeners.size);
      stub.endAll(4000);
      await until(() => calls() > 1);
      await hears();
      assert.ok(stub.asked.length > 1 && stub.asked.every(({ token }) => token?.startsWith("token ")), JSON.stringify(stub.asked));
      assert.equal(heard.resyncs, 0);
    });

    it(`${transport}: updates do not stop when tokens expire, however often, and none is lost`, async () => {
      const { stub, watch, heard, hears, calls } = await start(transport, good(150));
      await watch.ready();
      while (calls() < 5) await hears();
      assert.ok(stub.asked.every(({ token }) => token), "never anonymous");
      assert.deepEqual(heard.versions, [...heard.versions].sort((one, other) => one - other));
      await until(() => new Set(stub.shown).size === calls(), "each one that was given is shown");
      assert.equal(heard.resyncs, 0);
      assert.ok(stub.most <= 1, "and never were two sockets open");
    });

    it(`${transport}: what changed while no token could be had is told when there is one again`, async () => {
      let out = false;
      const { stub, tidings, watch, heard, hears } = await start(transport, (n, stub) => {
        if (out) throw new Error("logged out");
        return good()(n, stub);
      });
      await watch.ready();
      await hears();
      await until(() => stub.listeners.size);
      out = true;
      const asked = stub.asked.length;
      stub.tokens.clear();
      stub.endAll(4010);
      await until(() => heard.errors.filter(code => code === "token_failed").length > 2);
      const version = stub.change("a");
      assert.equal(stub.asked.length, asked, "nothing is asked without one");
      assert.notEqual(tidings.state.state, "live");
      out = false;
      tidings.retry();
      await until(() => heard.versions.at(-1) === version);
      assert.equal(heard.resyncs, 0);
    });

    it(`${transport}: after a refusal one fresh token is tried; a second refusal stops it by name`, async () => {
      const { stub, tidings, heard, calls } = await start(transport, n => `bad ${n}`);
      await until(() => tidings.state.state === "stopped");
      assert.deepEqual([tidings.state.reason, calls(), heard.errors], ["unauthenticated", 2, ["token_refused", "stopped"]]);
      assert.deepEqual(stub.shown, ["bad 1", "bad 2"]);
      stub.grant("bad 3");
      tidings.retry();
      await until(() => tidings.state.state === "live");
    });

    it(`${transport}: who may not listen is told so at once, and does not try again`, async () => {
      const { stub, tidings, watch, calls } = await start(transport, (_, stub) => ((stub.refusal = 4502), "of a stranger"));
      await assert.rejects(watch.ready(), { code: "forbidden" });
      assert.deepEqual([tidings.state.state, calls(), stub.shown.length], ["stopped", 1, 1]);
    });
  }

  it("websocket: a fresh one is sent well before the old one expires, over the same connection", { skip: !globalThis.WebSocket && "SKIPPED: there is no WebSocket" }, async () => {
    const { stub, watch, heard, hears, calls } = await start("websocket", good(4000));
    await watch.ready();
    await until(() => calls() === 3, "two more", 20_000);
    await until(() => stub.shown.length === 3);
    await hears();
    assert.deepEqual(stub.shown, ["token 1", "token 2", "token 3"]);
    assert.equal(stub.asked.length, 1, "nothing had to be asked again");
    assert.deepEqual(heard.states.map(({ state }) => state), ["idle", "connecting", "live"]);
    assert.deepEqual(heard.errors, []);
  });

  it("websocket: one that is revoked stops it by that name", { skip: !globalThis.WebSocket && "SKIPPED: there is no WebSocket" }, async () => {
    const { stub, tidings, watch, calls } = await start("websocket", good());
    await watch.ready();
    stub.endAll(4503);
    await until(() => tidings.state.state === "stopped");
    assert.deepEqual([tidings.state.reason, calls(), stub.asked.length], ["revoked", 1, 1]);
    await assert.rejects(watch.ready(), { code: "revoked" });
  });
});

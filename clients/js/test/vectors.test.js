// The golden frames of the protocol, which the server's tests hold the server to.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { readEvents } from "../tidings.js";
import { FakeWorld } from "./support/fake.js";

const vectors = (file, encoding) => JSON.parse(readFileSync(new URL(`../../../protocol/vectors/${file}.json`, import.meta.url))).filter(one => one.encoding === encoding);
const named = (file, encoding, name) => JSON.parse(vectors(file, encoding).find(one => one.name === name).text);

describe("golden frames", () => {
  it("every block of an event stream is read as it was meant", () => {
    const all = vectors("server", "text/event-stream");
    assert.ok(all.length > 5);
    for (const { name, text, message } of all) {
      const [messages, rest] = readEvents(text);
      assert.equal(rest, "", name);
      if (!Array.isArray(message)) continue;
      const meant = message.flatMap(({ event, data, id }) => [...(data === null || data === undefined ? [] : [event ? { [event]: data } : { changes: [data] }]), ...(id ? [{ cursor: id }] : [])]);
      assert.deepEqual(messages, meant, name);
    }
  });

  it("the hub takes every message of the server, alone and on any transport, without a fault", () => {
    for (const encoding of ["tidings.v1.json", "text/event-stream"]) {
      for (const { name, text } of vectors("server", encoding)) {
        const world = new FakeWorld({ transport: encoding === "text/event-stream" ? "events" : "websocket" });
        world.watch(["a", "order:42"]);
        world.hello();
        world.line.on("messages", encoding === "tidings.v1.json" ? text.split("\n").map(one => JSON.parse(one)) : readEvents(text)[0]);
        assert.ok(["connecting", "live", "waiting"].includes(world.state), name);
      }
    }
  });

  it("what the hub asks has the shape of the golden requests", () => {
    const world = new FakeWorld({ auth: true });
    const watch = world.watch(["a", { object: "b", version: 7 }]);
    world.hear("t", { number: world.told.find(one => one.number).number, token: "t" });
    world.hello();
    world.says({ authenticated: {}, id: world.line.sent[0].id });
    world.answers();
    watch.remove("a");
    world.hear("t", { online: true });
    const golden = { ...named("client", "tidings.v1.json", "subscribe").subscribe, ...named("client", "tidings.v1.json", "subscribe a page").subscribe };
    for (const frame of world.line.sent) {
      const [kind] = Object.keys(frame);
      assert.ok(["auth", "subscribe", "unsubscribe", "ping"].includes(kind));
      if (kind === "subscribe") assert.ok(Object.keys(frame.subscribe).every(key => key in golden), JSON.stringify(frame));
    }
    const unsubscribe = named("client", "tidings.v1.json", "unsubscribe");
    assert.deepEqual(world.line.sent.find(one => one.unsubscribe).unsubscribe, unsubscribe.unsubscribe);
  });
});

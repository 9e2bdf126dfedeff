// What a watch was told and has handled; and handlers, on promises that the test settles.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Tidings, Watch, createLedger, readEvents } from "../tidings.js";
import { until } from "./support/waiting.js";

const change = (object, version) => ({ object, version });
const live = (object, start) => ({ object, start });
/** From where on each object would be caught up by a new hub, which then speaks of all of them. */
const starts = ledger => {
  const { add } = ledger.join();
  ledger.hear(add.map(([object]) => live(object)));
  return Object.fromEntries(add);
};
const begin = (...objects) => {
  const ledger = createLedger();
  ledger.add(objects.map(object => [object]));
  ledger.hear(objects.map(object => live(object, 0)));
  return ledger;
};

describe("a ledger", () => {
  it("versions never go back, also behind a resync of the same cluster", () => {
    const ledger = begin("a");
    ledger.hear([change("a", 5)]);
    assert.equal(ledger.take().version, 5);
    ledger.settle("a");
    for (const version of [5, 4, 1]) ledger.hear([change("a", version)]);
    assert.equal(ledger.take(), undefined);
    ledger.hear([{ object: "a", cause: "versions_lost" }]);
    ledger.hear([change("a", 3)]);
    assert.deepEqual(ledger.take(), { object: "a", version: null, cause: "versions_lost" });
    ledger.settle("a");
    assert.equal(ledger.take(), undefined);
  });

  it("of another cluster versions begin anew, behind a resync", () => {
    const ledger = begin("a");
    ledger.hear([change("a", 500)]);
    ledger.take();
    ledger.settle("a");
    ledger.hear([{ object: "a", cause: "cursor_foreign" }]);
    ledger.hear([change("a", 3)]);
    assert.equal(ledger.take().version, null);
    ledger.settle("a");
    assert.equal(ledger.take().version, 3);
  });

  it("of another cluster, what is known by versions alone has to be fetched too; of the same one it has not", () => {
    for (const [cause, doubted] of [["cursor_foreign", ["a", "b"]], ["versions_lost", ["a"]]]) {
      const ledger = createLedger("c0");
      ledger.add([["a"]], true);
      ledger.add([["b", 500]]);
      ledger.hear([live("a"), live("b"), { object: "a", cause }]);
      const told = [ledger.take(), ledger.take()].filter(Boolean);
      assert.deepEqual(told, doubted.map(object => ({ object, version: null, cause })));
    }
  });

  it("changes coalesce, one object at a time, the oldest first", () => {
    const ledger = begin("a", "b");
    for (const version of [1, 2, 3]) ledger.hear([change("a", version)]);
    ledger.hear([change("b", 4)]);
    assert.deepEqual(ledger.take(), change("a", 3));
    ledger.hear([change("a", 9)]);
    assert.deepEqual(ledger.take(), change("b", 4));
    assert.equal(ledger.take(), undefined, "a is being handled");
    ledger.settle("a");
    assert.deepEqual(ledger.take(), change("a", 9));
  });

  it("the cursor is given out only when everything before it is handled, however busy it is", () => {
    const ledger = begin("a", "b");
    ledger.hear([change("a", 1)]);
    ledger.hear([], "c1");
    assert.equal(ledger.cursor(), undefined);
    ledger.take();
    ledger.hear([change("b", 2)]);
    ledger.hear([], "c2");
    ledger.hear([], "c3");
    assert.equal(ledger.cursor(), undefined, "taken is not handled");
    ledger.settle("a");
    assert.equal(ledger.cursor(), "c1");
    assert.equal(ledger.join().cursor, "c3", "a connection goes on from what was told");
    ledger.take();
    ledger.settle("b");
    assert.equal(ledger.cursor(), "c3");
  });

  it("what failed is told again, or what is newer, and holds the cursor back", () => {
    const ledger = begin("a");
    ledger.hear([change("a", 1)]);
    ledger.hear([], "c1");
    const first = ledger.take();
    ledger.hear([change("a", 2)]);
    ledger.hear([], "c2");
    ledger.again(first);
    ledger.hear([], "c3");
    assert.equal(ledger.cursor(), undefined);
    assert.equal(ledger.take().version, 2);
    ledger.settle("a");
    assert.equal(ledger.cursor(), "c3");
  });

  it("no cursor is given out while something is not live", () => {
    const ledger = begin("a");
    ledger.add([["b"]]);
    ledger.hear([], "c1");
    assert.equal(ledger.cursor(), undefined);
    assert.deepEqual(ledger.join(), { cursor: "c1", add: [["a", undefined], ["b", 0]] }, "and it does not speak for that");
    ledger.hear([live("a"), live("b", 3)]);
    ledger.hear([], "c2");
    assert.equal(ledger.cursor(), "c2");
  });

  it("where a new hub begins: at the version that is known, else where it was live first, else now", () => {
    const ledger = createLedger();
    ledger.add([["new"]]);
    assert.equal(starts(ledger)["new"], 0);
    ledger.add([["told"]]);
    ledger.hear([live("told", 0)]);
    assert.equal(starts(ledger)["told"], 1, "older than every change");
    ledger.hear([change("told", 7)]);
    assert.equal(starts(ledger)["told"], 7);
    ledger.add([["joined"]]);
    ledger.hear([live("joined", "c5")]);
    assert.equal(starts(ledger)["joined"], "c5");
    ledger.hear([], "c6");
    ledger.hear([{ object: "joined", error: { retryable: true } }]);
    ledger.hear([], "c7");
    assert.equal(starts(ledger)["joined"], "c6", "refused for now: from the cursor that spoke for it last");
  });

  it("joining keeps the place, also if a cursor comes that was on its way", () => {
    const ledger = createLedger("c0");
    ledger.add([["a"]], true);
    ledger.hear([live("a")]);
    ledger.join();
    ledger.hear([], "c9");
    assert.deepEqual(ledger.join().add, [["a", "c0"]]);
  });

  it("of an object for which the cursor speaks, a version that is said at its beginning hides no change", () => {
    const ledger = createLedger("c0");
    ledger.add([["a"]], true);
    ledger.hear([live("a", 50)]);
    ledger.hear([change("a", 40)]);
    assert.equal(ledger.take()?.version, 40);
  });

  it("nothing is told of what was let go", () => {
    const ledger = begin("a");
    ledger.hear([change("a", 1)]);
    ledger.remove("a");
    ledger.hear([change("a", 2)]);
    assert.equal(ledger.take(), undefined);
  });
});

/** A watch whose hub is the test. */
const watching = (objects, handler, options = {}) => {
  const sent = [];
  const told = [];
  const watch = new Watch(objects, handler, options, message => sent.push(message), (type, detail) => told.push({ type, ...detail }));
  watch._hear({ facts: objects.map(object => ({ object, start: 0 })) });
  return { watch, sent, told, errors: () => told.filter(one => one.type === "error") };
};

describe("a watch", () => {
  it("the version is not advanced before the handler ran: the cursor waits for its promise", async () => {
    const ends = [];
    const { watch, told } = watching(["a"], () => new Promise(ok => ends.push(ok)));
    watch._hear({ facts: [change("a", 1)] });
    watch._hear({ facts: [], cursor: "c1" });
    await until(() => ends.length === 1);
    assert.equal(watch.cursor, undefined);
    ends[0]();
    await until(() => watch.cursor === "c1");
    assert.deepEqual(told.map(one => one.type), ["cursor"]);
  });

  it("changes coalesce while the handler runs", async () => {
    const heard = [];
    let end;
    const { watch } = watching(["a"], one => (heard.push(one.version), new Promise(ok => (end = ok))));
    watch._hear({ facts: [change("a", 1)] });
    for (let version = 2; version < 100; version++) watch._hear({ facts: [change("a", version)] });
    end();
    await until(() => heard.length === 2);
    assert.deepEqual(heard, [1, 99]);
  });

  it("a handler that throws is told again, up to a limit, with an error each time", async () => {
    const heard = [];
    const fails = one => {
      heard.push(one.version);
      throw new Error("no");
    };
    const { watch, errors } = watching(["a", "b"], one => (one.object === "a" ? fails(one) : heard.push("b")), { againMs: 1, tries: 3 });
    watch._hear({ facts: [change("a", 1), change("b", 2)] });
    watch._hear({ facts: [], cursor: "c1" });
    await until(() => errors().length === 3);
    assert.deepEqual(errors().map(one => one.code), ["handler_failed", "handler_failed", "handler_gave_up"]);
    assert.deepEqual(heard.filter(one => one === 1), [1, 1, 1]);
    assert.ok(heard.indexOf("b") < 3, "others do not wait for it");
    await until(() => watch.cursor === "c1", "given up counts as handled");
  });

  it("handles as many at a time as it was told to, never two of one object", async () => {
    let running = 0;
    let most = 0;
    const busy = new Set();
    const handler = async ({ object }) => {
      assert.ok(!busy.has(object));
      busy.add(object);
      most = Math.max(most, ++running);
      await new Promise(ok => setTimeout(ok, 2));
      running--;
      busy.delete(object);
    };
    const objects = ["a", "b", "c", "d", "e"];
    const { watch, errors } = watching(objects, handler, { parallel: 3 });
    for (let version = 1; version < 20; version++) {
      watch._hear({ facts: objects.map(object => change(object, version)) });
      await new Promise(ok => setTimeout(ok, 1));
    }
    watch._hear({ facts: [], cursor: "end" });
    await until(() => watch.cursor === "end");
    assert.deepEqual([most, errors().length], [3, 0]);
  });

  it("for await: asking for the next one says that the last one is handled", async () => {
    const { watch } = watching(["a", "b"]);
    watch._hear({ facts: [change("a", 1), change("b", 2)] });
    watch._hear({ facts: [], cursor: "c1" });
    const heard = [];
    for await (const one of watch) {
      heard.push(one.version);
      assert.equal(watch.cursor, undefined);
      if (heard.length === 2) break;
    }
    assert.deepEqual(heard, [1, 2]);
    assert.equal(watch.cursor, undefined, "the last one was not handled to its end");
    const { value, done } = await watch[Symbol.asyncIterator]().next();
    assert.deepEqual([value, done], [undefined, true], "it is closed");
  });

  it("ready() fails with the reason of a stop, and nobody who did not ask is bothered", async () => {
    const { watch } = watching([]);
    watch.add("x");
    const ready = watch.ready();
    watch._become({ state: "stopped", reason: "forbidden", message: "no" });
    await assert.rejects(ready, { code: "forbidden" });
    await assert.rejects(watch[Symbol.asyncIterator]().next(), { code: "forbidden" });
  });

  it("an object that is refused is an error with its name, and is not waited for", async () => {
    const { watch, errors } = watching(["a"]);
    watch.add("b");
    watch._hear({ facts: [{ object: "b", error: { code: "forbidden", message: "no", retryable: false } }] });
    await watch.ready();
    assert.deepEqual(watch.objects, ["a"]);
    assert.deepEqual(errors().map(({ code, object, why }) => [code, object, why]), [["object_refused", "b", "forbidden"]]);
  });

  it("refuses what is no object ID, before anything happens", () => {
    const tidings = new Tidings("http://127.0.0.1:1");
    assert.throws(() => tidings.watch([42]), TypeError);
    for (const none of [null, "", "a\nb", "\x7f", "\x85", "x".repeat(256), "ü".repeat(128)]) assert.throws(() => tidings.watch([none]), TypeError);
    assert.throws(() => tidings.watch(["\ud800"]), URIError);
    new Watch(["x".repeat(255), "ü".repeat(127), "\u{1f600}"], undefined, {}, () => {}, () => {});
    tidings.close();
  });
});

describe("an event stream", () => {
  it("every character that JSON lets through unescaped is read: none ends a line that does not end it", () => {
    for (const odd of ["\u2028", "\u2029", "\u0085", "\ufeff", ": ", "data: "]) {
      const change = { object: `a${odd}b`, version: 1, data: odd };
      assert.deepEqual(readEvents(`data: ${JSON.stringify(change)}\n\n`), [[{ changes: [change] }], ""], JSON.stringify(odd));
    }
  });

  it("is read wherever it is cut", () => {
    const text = 'retry: 5\n\nevent: hello\ndata: {"ping_ms":1}\n\n: still here\n\ndata: {"object":"a\\n","version":1}\n\nid: c1\n\n';
    const [whole] = readEvents(text);
    assert.deepEqual(whole, [{ hello: { ping_ms: 1 } }, { changes: [{ object: "a\n", version: 1 }] }, { cursor: "c1" }]);
    for (const ends of ["\n", "\r\n"]) {
      const bytes = text.replaceAll("\n", ends);
      for (let cut = 0; cut <= bytes.length; cut++) {
        const [first, rest] = readEvents(bytes.slice(0, cut));
        const [second] = readEvents(rest + bytes.slice(cut));
        assert.deepEqual([...first, ...second], whole, `cut at ${cut}`);
      }
    }
  });
});

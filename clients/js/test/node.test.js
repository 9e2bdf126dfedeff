// The client in Node, against the real program.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, describe, it } from "node:test";
import { Tidings } from "../tidings.js";
import { Front, endFronts } from "./support/front.js";
import { Program, endPrograms, withoutProgram } from "./support/program.js";
import { until } from "./support/waiting.js";

const transports = globalThis.WebSocket ? ["websocket", "events", "poll"] : ["events", "poll"];

/** What is told, judged as it comes. */
const listen = (url, objects, options = {}, watchOptions = {}) => {
  const tidings = new Tidings(url, { firstMs: 30, longestMs: 300, ...options });
  open.push(tidings);
  const heard = { newest: {}, resyncs: [], backwards: 0, errors: [], count: 0 };
  tidings.addEventListener("error", event => {
    heard.errors.push(event.detail.code);
    event.preventDefault();
  });
  const handler = ({ object, version, cause }) => {
    heard.count++;
    if (version === null) heard.resyncs.push(cause);
    else if (version <= (heard.newest[object] ?? 0)) heard.backwards++;
    else heard.newest[object] = version;
  };
  const watch = tidings.watch(objects, handler, watchOptions);
  return { tidings, watch, heard };
};

const open = [];

describe("in Node", { skip: withoutProgram }, () => {
  after(() => {
    for (const tidings of open) tidings.close();
    endFronts();
    endPrograms();
  });

  for (const transport of transports) {
    it(`${transport}: changes, additions, removals and restarts, exactly`, async () => {
      const node = await Program.start();
      const { tidings, watch, heard } = listen(node.url, ["a", "b"], { transport, graceMs: 2000 });
      await watch.ready();
      const a = await node.publish("a", { kind: "paid", data: { total: 12 } });
      await until(() => heard.newest.a === a);
      watch.add("c");
      await watch.ready();
      const c = await node.publish("c");
      await until(() => heard.newest.c === c);
      watch.remove("a");
      await node.publish("a");
      await node.kill();
      await node.start();
      const b = await node.publish("b");
      await until(() => heard.newest.b === b);
      assert.deepEqual([heard.newest.a, heard.resyncs, heard.backwards, heard.count], [a, [], 0, 3]);
      tidings.close();
      await until(async () => (await node.connections()).every(one => one.transport === "poll" || one.kind === "poll" || transport === "poll"), "the connection is gone");
      node.end();
    });
  }

  it("a stored cursor goes on where it was; one of a cluster that is no more says so", async () => {
    const node = await Program.start();
    const first = listen(node.url, ["a", "b"]);
    await first.watch.ready();
    const a = await node.publish("a");
    await until(() => first.heard.newest.a === a);
    // The next cursor may be of a moment before the change: then the change would be told twice, which is allowed.
    const later = new Set([first.watch.cursor]);
    await until(() => later.add(first.watch.cursor).size > 4);
    const { cursor } = first.watch;
    first.tidings.close();
    const b = await node.publish("b");
    const second = listen(node.url, ["a", "b"], {}, { cursor });
    await until(() => second.heard.newest.b === b);
    assert.deepEqual([second.heard.count, second.heard.resyncs], [1, []]);
    second.tidings.close();
    const stranger = await Program.start();
    const third = listen(stranger.url, ["a", "b"], {}, { cursor });
    await until(() => third.heard.resyncs.length === 2);
    assert.deepEqual(third.heard.resyncs, ["cursor_foreign", "cursor_foreign"]);
    const anew = await stranger.publish("a");
    await until(() => third.heard.newest.a === anew);
    third.tidings.close();
    node.end();
    stranger.end();
  });

  it("for await tells changes one by one", async () => {
    const node = await Program.start();
    const tidings = new Tidings(node.url);
    const watch = tidings.watch(["doc:7"]);
    await watch.ready();
    const versions = [];
    const publishing = (async () => {
      while (versions.length < 3) await node.publish("doc:7");
    })();
    for await (const change of watch) {
      versions.push(change.version);
      if (versions.length === 3) break;
    }
    await publishing;
    assert.deepEqual(versions, [...versions].sort((x, y) => x - y));
    tidings.close();
    node.end();
  });

  it("falls back where WebSockets and streams are refused, remembers nothing wrong, and loses nothing", async () => {
    const node = await Program.start();
    const front = await Front.start(node.port);
    front.webSockets = "refuse";
    front.events = "refuse";
    const { tidings, watch, heard } = listen(front.url, ["a"], { pollMs: 300 });
    await watch.ready();
    assert.equal(tidings.state.transport, "poll");
    const version = await node.publish("a");
    await until(() => heard.newest.a === version);
    tidings.close();
    front.end();
    node.end();
  });

  it("objects that are refused are errors by name, and the rest is live", async () => {
    const node = await Program.start({ TIDINGS_LIMITS__OBJECTS_PER_CONNECTION: "2" });
    for (const transport of transports) {
      const { tidings, watch, heard } = listen(node.url, ["a", "b"], { transport });
      await watch.ready();
      watch.add("c");
      await until(() => heard.errors.length || tidings.state.state === "stopped");
      if (transport === "websocket") {
        assert.deepEqual([heard.errors, watch.objects], [["object_refused"], ["a", "b"]]);
        const version = await node.publish("b");
        await until(() => heard.newest.b === version);
      } else assert.deepEqual([tidings.state.state, tidings.state.reason], ["stopped", "limit"]);
      tidings.close();
    }
    node.end();
  });

  it("after close() nothing keeps the process alive", async () => {
    const node = await Program.start();
    const script = `import { Tidings } from ${JSON.stringify(new URL("../tidings.js", import.meta.url).href)};
      const tidings = new Tidings(${JSON.stringify(node.url)});
      const watch = tidings.watch(["a"], () => {});
      await watch.ready();
      tidings.close();
      console.log("closed");`;
    const said = await new Promise((ok, bad) => execFile(process.execPath, ["--input-type=module", "-e", script], { timeout: 20_000 }, (error, out) => (error ? bad(error) : ok(out))));
    assert.equal(said, "closed\n");
    node.end();
  });

  it("an operator's closing stops it with that reason", async () => {
    if (!globalThis.WebSocket) return;
    const node = await Program.start();
    const { tidings, watch, heard } = listen(node.url, ["a"]);
    await watch.ready();
    const [{ connection }] = await node.connections();
    await fetch(`${node.url}/v1/connections/${connection}`, { method: "DELETE" });
    await until(() => tidings.state.state === "stopped");
    assert.equal(tidings.state.reason, "operator");
    await assert.rejects(watch.ready(), { code: "operator" });
    assert.ok(heard.errors.includes("stopped"));
    tidings.retry();
    await watch.ready().catch(() => until(() => tidings.state.state === "live"));
    tidings.close();
    node.end();
  });
});

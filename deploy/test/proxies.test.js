// Real proxies in front of real nodes, with the files of deploy/proxies.
import assert from "node:assert/strict";
import { request } from "node:http";
import { after, describe, it } from "node:test";
import { Cluster, endClusters } from "../../clients/js/test/support/cluster.js";
import { Program, endPrograms, withoutProgram } from "../../clients/js/test/support/program.js";
import { until } from "../../clients/js/test/support/waiting.js";
import { Tidings } from "../../clients/js/tidings.js";
import { PROXIES, Proxy, endProxies } from "./support/proxies.js";

const transports = globalThis.WebSocket ? ["websocket", "events", "poll"] : ["events", "poll"];
const clients = [];
const client = (url, transport, more = {}) => {
  const tidings = new Tidings(url, { transport, firstMs: 20, longestMs: 200, ...more });
  tidings.addEventListener("error", event => event.preventDefault());
  clients.push(tidings);
  return tidings;
};
after(() => {
  for (const tidings of clients) tidings.close();
  endProxies();
  endClusters();
  endPrograms();
});

/** Publishes until it is acknowledged: a change that may have happened is published again. */
const publish = async (url, object) => {
  const body = JSON.stringify({ object });
  return until(async () => {
    const answer = await fetch(`${url}/v1/publish`, { method: "POST", headers: { "content-type": "application/json" }, body, signal: AbortSignal.timeout(10_000) }).catch(() => null);
    return answer?.ok ? (await answer.json()).version : null;
  }, `${object} is published`, 90_000);
};

/** A connection from another address of this machine, with what it says of itself. */
const from = (localAddress, url, headers = {}) =>
  new Promise((ok, bad) => request(url, { localAddress, headers }, ok).on("error", bad).end());

for (const [name, proxy] of Object.entries(PROXIES)) {
  const skip = withoutProgram || proxy.without();
  describe(`behind ${name}`, { skip }, () => {
    it("the file is valid as it stands", () => {
      const { fine, said } = Proxy.check(name);
      assert.ok(fine, said);
    });

    it("whom the proxy saw is believed where it is trusted, and nobody says of himself who he is", async () => {
      for (const trusted of [true, false]) {
        const node = await Program.start(trusted ? { TIDINGS_SERVER__TRUSTED_PROXIES: "127.0.0.1" } : {});
        const front = await Proxy.start(name, [node.url]);
        const stream = await from("127.0.0.77", `${front.url}/v1/events?object=a`, { "x-forwarded-for": "203.0.113.9" });
        assert.equal(stream.statusCode, 200);
        const seen = await until(async () => (await node.connections())[0], "it is connected");
        assert.match(JSON.stringify(seen), trusted ? /127\.0\.0\.77/ : /127\.0\.0\.1/);
        assert.doesNotMatch(JSON.stringify(seen), trusted ? /203\.0\.113/ : /203\.0\.113|127\.0\.0\.77/);
        stream.destroy();
        front.end();
        node.end();
      }
    });

    it("operators' routes are not passed on", async () => {
      const node = await Program.start();
      const front = await Proxy.start(name, [node.url]);
      for (const path of ["/metrics", "/v1/cluster", "/v1/connections", "/v1/connections/1", "/v1/explain", "/console"]) {
        assert.equal((await fetch(front.url + path)).status, 404, path);
      }
      const reload = await fetch(`${front.url}/v1/reload`, { method: "POST" });
      assert.equal(reload.status, 404);
      front.end();
      node.end();
    });

    it("a poll may wait, a stream is not gathered, and rest is not cut by anything before a ping", async () => {
      const node = await Program.start();
      const front = await Proxy.start(name, [node.url]);
      const first = await (await fetch(`${front.url}/v1/poll?object=a`)).json();
      const waited = await (await fetch(`${front.url}/v1/poll?object=a&wait_ms=1500&cursor=${first.cursor}`)).json();
      assert.deepEqual(waited.changes, []);
      const heard = transports.map(transport => {
        const told = [];
        const watch = client(front.url, transport, { pollMs: 5_000 }).watch(["a"], change => void told.push(change.version));
        return { told, watch };
      });
      for (const { watch } of heard) await watch.ready();
      for (let n = 0; n < 3; n++) {
        const version = await publish(front.url, "a");
        for (const [n, { told }] of heard.entries()) await until(() => told.at(-1) === version, `${transports[n]} hears of it`);
      }
      front.end();
      node.end();
    });

    const once = ["nginx", "haproxy"].includes(name) || process.env.TIDINGS_ALL_PROXIES ? false : "SKIPPED: takes a while (TIDINGS_ALL_PROXIES=1)";
    it("a node is killed: clients come back through the proxy, and each knows the last state of every object", { timeout: 240_000, skip: once }, async () => {
      const cluster = await Cluster.start(3);
      await until(async () => {
        const status = await (await fetch(`${cluster.nodes[0].url}/v1/cluster`)).json();
        return status.shards?.every(shard => shard.owner && shard.copies?.length !== 0);
      }, "every shard has an owner", 90_000);
      const front = await Proxy.start(name, cluster.nodes.map(node => node.url));
      const objects = Array.from({ length: 30 }, (_, n) => `object ${n}`);
      const watchers = Array.from({ length: 9 }, (_, n) => {
        const known = new Map();
        let resyncs = 0;
        const tidings = client(front.url, transports[n % transports.length], { pollMs: 2_000 });
        const watch = tidings.watch(objects, ({ object, version }) => void (version === null ? resyncs++ : known.set(object, version)));
        return { known, watch, resyncs: () => resyncs, transport: transports[n % transports.length] };
      });
      for (const { watch } of watchers) await watch.ready();
      const last = new Map();
      for (const object of objects) last.set(object, await publish(front.url, object));
      cluster.kill(cluster.nodes[1].name);
      for (const object of objects) last.set(object, await publish(front.url, object));
      for (const { known, transport, resyncs } of watchers) {
        await until(() => objects.every(object => known.get(object) === last.get(object)), `${transport}: ${[...known].length} known`, 90_000);
        assert.equal(resyncs(), 0, `${transport}: nobody has to fetch again while a copy lives`);
      }
      front.end();
      cluster.end();
    });
  });
}

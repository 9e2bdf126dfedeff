// The client against the real program with a policy: who is let in, for how long, and what becomes of it then.
import assert from "node:assert/strict";
import { createHash, createHmac } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Tidings } from "../tidings.js";
import { Program, endPrograms, withoutProgram } from "./support/program.js";
import { until } from "./support/waiting.js";

const transports = globalThis.WebSocket ? ["websocket", "events", "poll"] : ["events", "poll"];
const secret = "a secret of the tests, 32 bytes or more";
const apiKey = "key-of-the-publisher-and-operator-of-the-tests";
const text = value => Buffer.from(JSON.stringify(value)).toString("base64url");
const folder = mkdtempSync(join(tmpdir(), "tidings-policy-"));
const open = [];

/** A token that counts for so many seconds. */
const mint = (subject, seconds, more = {}) => {
  const now = Math.floor(Date.now() / 1000);
  const body = `${text({ alg: "HS256", typ: "JWT" })}.${text({ iss: "shop", sub: subject, iat: now, exp: now + seconds, ...more })}`;
  return `${body}.${createHmac("sha256", secret).update(body).digest("base64url")}`;
};

describe("with a policy", { skip: withoutProgram }, () => {
  let node;
  before(async () => {
    const policy = join(folder, "policy.toml");
    writeFileSync(join(folder, "secret"), secret);
    writeFileSync(
      policy,
      `[[issuer]]\nname = "shop"\nevery.subscribe = ["order:*"]\n[[issuer.key]]\nalgorithm = "HS256"\nfile = "secret"\n` +
        `[[key]]\nname = "backend"\nsha256 = ["${createHash("sha256").update(apiKey).digest("hex")}"]\npublish = ["*"]\nadmin = true\n`,
    );
    node = await Program.start({ TIDINGS_AUTH__POLICY_FILE: policy, TIDINGS_AUTH__LEEWAY_S: "0", TIDINGS_AUTH__GRACE_MS: "500" });
  });
  after(() => {
    for (const tidings of open) tidings.close();
    endPrograms();
    rmSync(folder, { recursive: true, force: true });
  });

  const post = async (path, body) => {
    const headers = { "content-type": "application/json", authorization: `Bearer ${apiKey}` };
    const answer = await fetch(`${node.url}${path}`, { method: "POST", headers, body: JSON.stringify(body) });
    const told = await answer.text();
    assert.ok(answer.ok, told);
    return told && JSON.parse(told);
  };
  const listen = (transport, objects, token) => {
    const heard = { newest: {}, resyncs: 0, errors: [], states: [], backwards: 0, calls: 0 };
    const give = async () => token(++heard.calls);
    const tidings = new Tidings(node.url, { transport, token: give, firstMs: 20, longestMs: 100, pollMs: 500 });
    open.push(tidings);
    tidings.addEventListener("error", event => (heard.errors.push(event.detail), event.preventDefault()));
    tidings.addEventListener("state", ({ detail }) => heard.states.push(detail));
    const watch = tidings.watch(objects, ({ object, version }) => {
      if (version === null) heard.resyncs++;
      else if (version <= (heard.newest[object] ?? 0)) heard.backwards++;
      else heard.newest[object] = version;
    });
    const hears = async object => {
      const { version } = await post("/v1/publish", { object });
      await until(() => heard.newest[object] === version, () => JSON.stringify(heard));
    };
    return { tidings, watch, heard, hears };
  };

  for (const transport of transports) {
    it(`${transport}: what is granted is heard, what is not is refused by name`, async () => {
      const { watch, heard, hears } = listen(transport, ["order:1", "secret:1"], () => mint("alice", 60));
      await watch.ready();
      await hears("order:1");
      const refused = heard.errors.filter(({ code }) => code === "object_refused");
      assert.deepEqual(refused.map(({ object, why }) => [object, why]), [["secret:1", "forbidden"]]);
      assert.equal(heard.newest["secret:1"], undefined);
    });

    it(`${transport}: tokens expire again and again, nothing is lost and nobody is ever anonymous`, async () => {
      const { watch, heard, hears } = listen(transport, ["order:2"], () => mint("alice", 2));
      await watch.ready();
      while (heard.calls < 4) await hears("order:2");
      await hears("order:2");
      assert.equal(heard.resyncs, 0);
      assert.equal(heard.backwards, 0);
      assert.ok(!heard.states.some(({ state }) => state === "stopped"), JSON.stringify(heard.states));
    });

    it(`${transport}: a token that never counts stops the client, with the reason`, async () => {
      const { heard } = listen(transport, ["order:3"], () => mint("alice", 60).slice(0, -4) + "AAAA");
      await until(() => heard.states.some(({ state }) => state === "stopped"), () => JSON.stringify(heard));
      assert.ok(heard.calls > 1, "it was asked for another one first");
      assert.deepEqual(heard.newest, {});
    });

    it(`${transport}: who is revoked hears no more, and a token of later lets in again`, async () => {
      let later = false;
      const subject = `bob-${transport}`;
      const { watch, heard, hears } = listen(transport, ["order:4"], () => mint(subject, 60, later ? {} : { iat: Math.floor(Date.now() / 1000) - 30 }));
      await watch.ready();
      await hears("order:4");
      await post("/v1/revocations", { subject, issued_to: Math.floor(Date.now() / 1000) - 10 });
      await until(() => heard.states.some(({ state }) => state === "stopped"), () => JSON.stringify(heard));
      later = true;
      const again = listen(transport, ["order:4"], () => mint(subject, 60));
      await again.watch.ready();
      await again.hears("order:4");
    });
  }
});

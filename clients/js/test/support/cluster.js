// Three real nodes as `tidings dev` starts them: processes that can be killed one by one.
import { spawn } from "node:child_process";
import { program } from "./program.js";

const running = new Set();
export const endClusters = () => {
  for (const cluster of running) cluster.end();
};
process.on("exit", endClusters);

export class Cluster {
  #child;
  /** @type {{ name: string, url: string, process: number }[]} */
  nodes = [];

  static async start(nodes = 3, more = []) {
    const cluster = new Cluster();
    running.add(cluster);
    const child = spawn(program, ["dev", "--nodes", `${nodes}`, "--port", "0", ...more], { stdio: ["ignore", "pipe", "pipe"] });
    cluster.#child = child;
    let said = "";
    await new Promise((ok, bad) => {
      const hear = text => {
        said += text;
        const lines = [...said.matchAll(/^ {2}(\S+) {2}(http:\S+) {2}process (\d+)$/gm)];
        if (lines.length < nodes || !said.includes("Ctrl-C")) return;
        cluster.nodes = lines.map(([, name, url, process]) => ({ name, url, process: +process }));
        ok();
      };
      child.stdout.setEncoding("utf8").on("data", hear);
      child.stderr.setEncoding("utf8").on("data", hear);
      child.once("exit", code => bad(new Error(`the cluster ended with ${code}: ${said}`)));
    });
    return cluster;
  }

  /** As power does. */
  kill(name) {
    process.kill(this.nodes.find(node => node.name === name).process, "SIGKILL");
  }

  /** The nodes end with who started them. */
  end() {
    this.#child?.kill("SIGINT");
    for (const { process: id } of this.nodes) {
      try {
        process.kill(id, "SIGKILL");
      } catch {
        // It is gone already.
      }
    }
    running.delete(this);
  }
}

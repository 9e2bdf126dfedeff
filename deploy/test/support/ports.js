// Ports that are still free when somebody begins to listen there, and when he does so again.
import { createServer } from "node:net";

/** A port on which nobody listens, not among those that the system gives to connections. */
export async function quietPort() {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 19_000);
    const server = createServer();
    const free = await new Promise(ok => server.once("error", () => ok(false)).listen(port, "127.0.0.1", () => ok(true)));
    await new Promise(ok => server.close(ok));
    if (free) return port;
  }
}

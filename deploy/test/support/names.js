// A name server for one zone, on port 53 of a loopback address that nobody else has.
import { createSocket } from "node:dgram";

/** The name that is asked for, and where the question ends. */
const question = bytes => {
  const labels = [];
  let at = 12;
  while (bytes[at]) {
    labels.push(bytes.toString("latin1", at + 1, at + 1 + bytes[at]));
    at += bytes[at] + 1;
  }
  return { name: labels.join(".").toLowerCase(), type: bytes.readUInt16BE(at + 1), end: at + 5 };
};

export class Names {
  /** Name to IPv4 addresses; may be changed at any time. */
  known = new Map();
  #socket = createSocket("udp4");

  static async start(address) {
    const names = new Names();
    names.#socket.on("message", (bytes, from) => names.#answer(bytes, from));
    await new Promise((ok, bad) => names.#socket.once("error", bad).bind(53, address, ok));
    return names;
  }

  #answer(bytes, from) {
    const { name, type, end } = question(bytes);
    const found = this.known.get(name);
    const addresses = type === 1 ? (found ?? []) : [];
    const head = Buffer.from(bytes.subarray(0, end));
    // A response with recursion, or that there is no such name; one question, so many answers, nothing else.
    head.writeUInt16BE(found ? 0x8180 : 0x8183, 2);
    head.writeUInt16BE(addresses.length, 6);
    head.writeUInt32BE(0, 8);
    const records = addresses.map(address => Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, ...address.split(".").map(Number)]));
    this.#socket.send(Buffer.concat([head, ...records]), from.port, from.address);
  }

  end() {
    this.#socket.close();
  }
}

/**
 * The blocks of an event stream, as the messages that a WebSocket would bring, and the rest that is not whole yet.
 * @param {string} text
 * @returns {[Message[], string]}
 */
export function readEvents(text: string): [Message[], string];
/**
 * The one connection of many watches: `hear` takes what tabs say, `World.open` gives what the server says. Pure: it has
 * no other way to the world than `World`.
 *
 * It keeps nothing that outlives a connection: for each one, every watch joins anew and says from where on it has to be
 * caught up. So a hub can die without a loss.
 * @param {World} world @param {Options & { worked?: Transport }} [options]
 */
export function createHub(world: World, options?: Options & {
    worked?: Transport;
}): {
    hear: (tab: string, message: Message) => void;
    close: (over?: boolean) => void;
    now: () => State;
};
/** An error with a stable name. */
export class TidingsError extends Error {
    /** @param {string} code @param {string} [message] */
    constructor(code: string, message?: string);
    code: string;
}
/**
 * What one watch was told and has handled. An object has at most one change and one resync that wait: a newer one takes
 * the place of the older. Pure.
 */
export class Ledger {
    /** @param {string} [cursor] */
    constructor(cursor?: string);
    /** @type {Map<string, { told?: number, from?: string, wait?: Change, doubt?: string }>} */
    held: Map<string, {
        told?: number;
        from?: string;
        wait?: Change;
        doubt?: string;
    }>;
    /** Objects for which `resume` does not speak. @type {Set<string>} */
    uncovered: Set<string>;
    /** Objects that are not live at the present hub. @type {Set<string>} */
    pending: Set<string>;
    /** Where a new connection goes on. */
    resume: string | undefined;
    /** Where a new process goes on: everything before it has been handled. */
    cursor: string | undefined;
    /** `covered`: the cursor of the beginning speaks for it. @param {string} object @param {number} [version] */
    add(object: string, version?: number, covered?: boolean): boolean;
    /** @param {string} object */
    remove(object: string): boolean;
    /** From where on a hub has to catch up: a version, a cursor, or 0: from now on. @param {string} object */
    start(object: string): string | number;
    /** The hub speaks of it from now on; `start`: from where on. @param {string} object @param {number | string} [start] */
    live(object: string, start?: number | string): void;
    /** The hub does not speak of it for now. @param {string} object */
    away(object: string): void;
    /** @param {Change} change */
    change(change: Change): void;
    /** It has to be fetched. @param {string} object @param {string} cause */
    fetch(object: string, cause: string): void;
    /** The server cannot vouch for these. @param {Iterable<string>} objects @param {string} cause */
    resync(objects: Iterable<string>, cause: string): void;
    /** Everything that is live was told up to here. @param {string} cursor */
    vouch(cursor: string): void;
    /** The next change to be handled. @returns {Change | undefined} */
    take(): Change | undefined;
    /** It has been handled. @param {string} object */
    settle(object: string): void;
    /** It has not been handled: it is told again, or what is newer. @param {Change} change */
    again(change: Change): void;
    #private;
}
/**
 * Objects that are watched. Without a handler, `for await` tells their changes one by one: asking for the next one says
 * that the last one is handled.
 */
export class Watch {
    /**
     * @internal
     * @param {Iterable<Entry>} objects @param {((change: Change, watch: Watch) => any) | undefined} handler
     * @param {WatchOptions} options @param {(message: Message) => void} send @param {(type: string, detail: Message) => void} tell
     */
    constructor(objects: Iterable<Entry>, handler: ((change: Change, watch: Watch) => any) | undefined, options: WatchOptions, send: (message: Message) => void, tell: (type: string, detail: Message) => void);
    /** What is watched. */
    get objects(): string[];
    /** A place that may be stored: everything before it has been handled. A later watch of the same objects goes on there. */
    get cursor(): string | undefined;
    /** Watches these too, from now on. @param {...Entry} objects */
    add(...objects: Entry[]): void;
    /** Watches these no longer: nothing more is told of them. @param {...string} objects */
    remove(...objects: string[]): void;
    /** Ends it. A handler that is running goes on; nothing more is told. */
    close(): void;
    /**
     * Everything that is watched is live, or refused: what changes from now on is told. Then is the time to fetch the first
     * state. It fails with a `TidingsError` if the connection has stopped or the watch is closed.
     * @returns {Promise<void>}
     */
    ready(): Promise<void>;
    /** What a new hub has to know. @internal */
    _join(): void;
    /** What the hub tells. @internal @param {Message} m */
    _hear({ live, changes, resync, fetch, refused, cause, cursor }: Message): void;
    /** @internal @param {TidingsError} [error] */
    _stop(error?: TidingsError): void;
    /** @returns {AsyncIterator<Change, undefined>} */
    [Symbol.asyncIterator](): AsyncIterator<Change, undefined>;
    #private;
}
/**
 * Watches objects of one server or cluster.
 *
 * Events: `state` (detail: a `State`), `cursor` (detail: `{ watch, cursor }`), and `error` (detail: `code`, `message` and
 * what belongs to it). The codes: `handler_failed`, `handler_gave_up`, `object_refused`, `token_failed`, `token_refused`,
 * `sharing_failed`, `stopped`, and those of the protocol. An error that nobody calls `preventDefault()` on is logged.
 */
export class Tidings extends EventTarget {
    /** @param {string | URL} url of the server @param {Options} [options] */
    constructor(url: string | URL, options?: Options);
    /** How the connection is doing. */
    get state(): State;
    /**
     * Calls `handler` when one of these has changed, and waits for its promise; changes meanwhile coalesce. If it throws, it
     * is told again. Without a handler, use `for await`.
     * @param {Iterable<Entry>} objects @param {((change: Change, watch: Watch) => any) | undefined} [handler] @param {WatchOptions} [options]
     */
    watch(objects: Iterable<Entry>, handler?: ((change: Change, watch: Watch) => any) | undefined, options?: WatchOptions): Watch;
    /** Comes back at once, also after a stop: for instance once somebody has logged in. */
    retry(): void;
    /** Ends all watches. */
    close(): void;
    #private;
}
/**
 * What the hub does in the world.
 */
export type World = {
    /**
     * to one tab, or to all
     */
    post: (to: string | undefined, message: Message) => void;
    /**
     * `on` is never called before this returns
     */
    open: (transport: Transport, ask: {
        body?: Message;
        token?: string;
    }, on: (kind: string, detail?: any) => void) => {
        send?: (text: string) => void;
        close: () => void;
    };
    /**
     * returns what stops it
     */
    timer: (ms: number, run: () => void) => () => void;
    /**
     * milliseconds of a clock that only goes forward
     */
    now: () => number;
    /**
     * from 0 to below 1
     */
    random: () => number;
    /**
     * says when the tab is gone
     */
    attend: (tab: string, gone: () => void) => void;
};
/**
 * A watch as the hub sees it.
 */
export type Member = {
    tab: string;
    w: string;
    objects: Set<string>;
    joined?: boolean;
};
/**
 * Objects by the cursor from where on they have to be caught up; under the empty one by a version (0: from now on).
 */
export type Debts = Map<string, Map<string, number>>;
/**
 * Something happened to an object.
 */
export type Change = {
    /**
     * its ID
     */
    object: string;
    /**
     * its newest version; `null`: it may have changed, nobody can say how (a resync): fetch it
     */
    version: number | null;
    /**
     * the publisher's tag: a hint that may be missing
     */
    kind?: string | undefined;
    /**
     * the publisher's data: a hint that may be missing
     */
    data?: any;
    /**
     * why the version is unknown: a stable word of the protocol, or `added`
     */
    cause?: string | undefined;
};
/**
 * An object's ID, or with the version of it that is known already: only newer ones are told.
 */
export type Entry = string | {
    object: string;
    version: number;
};
export type Transport = "websocket" | "events" | "poll";
/**
 * How the connection is doing. `reason` of a stop: `unauthenticated`, `forbidden`, `revoked`, `limit`, `protocol`,
 * `operator`, `no_server` or `closed`.
 */
export type State = {
    state: "idle" | "connecting" | "live" | "waiting" | "offline" | "stopped";
    transport?: Transport | undefined;
    /**
     * why it waits or has stopped: of a stop a stable word
     */
    reason?: string | undefined;
    /**
     * the same for people
     */
    message?: string | undefined;
    /**
     * how long it waits, in milliseconds
     */
    wait?: number | undefined;
    /**
     * the server is cut off from the owners of some objects: their changes come late
     */
    stale?: boolean | undefined;
};
export type Options = {
    /**
     * asked for a fresh token at each connect, before it expires, and after
     * a refusal; without one nothing is asked of the server
     */
    token?: (() => string | Promise<string>) | undefined;
    /**
     * whether tabs of this origin share one connection; a text: only those with the same
     * text do, for instance one for each user. Default: true. `"tabs"` in front of a colon forbids the SharedWorker
     */
    share?: string | boolean | undefined;
    /**
     * only this one. Default: the best that works
     */
    transport?: Transport | undefined;
    /**
     * the first wait before coming back is at most this. Default: 1,000
     */
    firstMs?: number | undefined;
    /**
     * and no wait is longer. Default: 30,000
     */
    longestMs?: number | undefined;
    /**
     * within this the server must have greeted. Default: 10,000
     */
    openingMs?: number | undefined;
    /**
     * added to the server's `ping_ms` before silence means a dead path. Default: 10,000
     */
    graceMs?: number | undefined;
    /**
     * how long a long-poll waits. Default: 25,000
     */
    pollMs?: number | undefined;
    /**
     * after how long a better transport is tried again; doubles. Default: 30,000
     */
    betterMs?: number | undefined;
    /**
     * where there is none, as in Node before 22
     */
    WebSocket?: {
        new (url: string | URL, protocols?: string | string[]): WebSocket;
        prototype: WebSocket;
        readonly CONNECTING: 0;
        readonly OPEN: 1;
        readonly CLOSING: 2;
        readonly CLOSED: 3;
    } | undefined;
    /**
     * another one
     */
    fetch?: typeof fetch | undefined;
};
export type WatchOptions = {
    /**
     * goes on where an earlier watch of the same objects came to
     */
    cursor?: string | undefined;
    /**
     * how many changes are handled at a time, of different objects. Default: 1
     */
    parallel?: number | undefined;
    /**
     * how often a change is told to a handler that throws. Default: 5
     */
    tries?: number | undefined;
    /**
     * the first wait before it is told again is at most this. Default: 1,000
     */
    againMs?: number | undefined;
};
/**
 * What tabs and hub say to each other.
 */
export type Message = Record<string, any>;

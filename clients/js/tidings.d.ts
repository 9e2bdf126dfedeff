/**
 * What one watch was told and has handled. An object has at most one change and one resync that wait: a newer one takes
 * the place of the older. Pure.
 * @param {string} [cursor] where it goes on
 */
export function createLedger(cursor?: string): {
    add: (entries: [string, number?][], covered?: boolean) => (Start | undefined)[][];
    join: () => {
        cursor: string | undefined;
        add: (Start | undefined)[][];
    };
    remove: (object: string) => boolean;
    hear: (facts: Fact[], told?: string) => void;
    take: () => Change | undefined;
    settle: (object: string) => void;
    again: (change: Change) => void;
    /** Where a new process goes on: everything before it has been handled. */
    cursor: () => string | undefined;
    objects: () => string[];
    /** Whether the hub speaks of everything. */
    live: () => boolean;
};
/**
 * The blocks of an event stream, as the messages that a WebSocket would bring, and the rest that is not whole yet.
 * @param {string} text
 * @returns {[Message[], string]}
 */
export function readEvents(text: string): [Message[], string];
/**
 * What the hub does in the world.
 * @typedef {object} World
 * @property {(to: string | undefined, message: Message) => void} post to one tab, or to all
 * @property {(transport: Transport, ask: { body?: Message, token?: string }, on: (messages: Message[], end?: Message) => void) =>
 *   { send?: (text: string) => void, close: () => void }} open `on` is never called before this returns
 * @property {(ms: number, run: () => void) => () => void} timer returns what stops it
 * @property {() => number} now milliseconds of a clock that only goes forward
 * @property {() => number} random from 0 to below 1
 * @property {(tab: string, gone: () => void) => void} attend says when the tab is gone
 */
/** A watch as the hub sees it, and what it has yet to be told. @typedef {{ tab: string, w: string, facts: Fact[] }} Member */
/**
 * The one connection of many watches: `hear` takes what tabs say, `World.open` gives what the server says. Pure: it has
 * no other way to the world than `World`.
 *
 * It keeps nothing that outlives a connection: for each one, every watch joins anew and says from where on it has to be
 * caught up. So a hub can die without a loss.
 * @param {World} world @param {HubOptions} [options]
 */
export function createHub(world: World, options?: HubOptions): {
    hear: (tab: string, message: Message) => void;
    close: () => void;
};
/** An error with a stable name. */
export class TidingsError extends Error {
    /** @param {string} code @param {string} [message] */
    constructor(code: string, message?: string);
    code: string;
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
    _hear({ facts, cursor }: Message): void;
    /** @internal @param {State} state of the connection */
    _become(state: State): void;
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
    }, on: (messages: Message[], end?: Message) => void) => {
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
 * A watch as the hub sees it, and what it has yet to be told.
 */
export type Member = {
    tab: string;
    w: string;
    facts: Fact[];
};
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
 * What is said of an object: a change; or that it may have changed (`cause`); that it is refused (`error`); or that it is
 * live, and from where on (`start`).
 */
export type Fact = {
    object: string;
    version?: number;
    cause?: string;
    error?: Message;
    start?: Start;
};
/**
 * From where on an object has to be caught up: a cursor, a version, or 0: from now on.
 */
export type Start = string | number;
/**
 * What a hub has to know; it can be sent elsewhere.
 */
export type HubOptions = Omit<Options, "token" | "share" | "WebSocket" | "fetch"> & {
    auth?: boolean;
    worked?: Transport;
};
/**
 * What tabs and hub say to each other.
 */
export type Message = Record<string, any>;

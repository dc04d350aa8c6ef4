// Asks the service: over a WebSocket while it is open, by single requests otherwise.

const LEAST = 60; // ms between two questions
const PATIENCE = 8000; // ms for an answer
const SLOW = 800; // ms after which it is said that the answer takes its time
const SILENT = 7000; // ms after which the service is said not to answer; the question still stands
const KEY = "digits-api-key";

export class Fault extends Error {
  constructor(status, detail, wait = 0) {
    super(detail);
    this.status = status; // 0: no answer at all
    this.wait = wait; // seconds after which to try again
  }
}

/** One question at a time; of those that come meanwhile, the newest is asked next. */
export class Reader {
  constructor({ onanswer, onfault, onlive, onbusy, onslow }) {
    Object.assign(this, { onanswer, onfault, onlive, onbusy, onslow });
    this.timers = []; // run while somebody waits for an answer
    this.model = ""; // the one that is asked; none is the default
    this.keyed = false; // whether the service asks for a key
    this.socket = null;
    this.waiting = null; // makes the newest picture, of which nothing is asked yet
    this.largest = Infinity; // bytes that the service takes
    this.busy = false;
    this.asked = 0; // answers to what was asked before `forget` do not count
    this.pause = 500; // ms before the socket is opened again
  }

  get live() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  get key() {
    return sessionStorage.getItem(KEY) ?? "";
  }

  set key(value) {
    sessionStorage.setItem(KEY, value);
    this.#reconnect();
  }

  /** Asks another model from now on. */
  choose(model) {
    if (model === this.model) return;
    this.forget();
    this.model = model;
    this.#reconnect();
  }

  #reconnect() {
    this.socket?.close();
    this.socket = null;
    this.connect();
  }

  #path(path) {
    if (!this.model) return path;
    return `${path}${path.includes("?") ? "&" : "?"}model=${encodeURIComponent(this.model)}`;
  }

  connect() {
    if (this.socket?.readyState < WebSocket.CLOSING || (this.keyed && !this.key)) return;
    const address = new URL(this.#path("predict/stream?image=true"), location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = (this.socket = new WebSocket(address));
    socket.addEventListener("open", () => {
      if (this.keyed) socket.send(JSON.stringify({ api_key: this.key }));
      this.pause = 500;
      this.onlive(true);
    });
    socket.addEventListener("close", (event) => {
      if (this.socket !== socket) return;
      this.onlive(false);
      if (event.code === 1008) return; // not allowed: single requests say why
      if (event.code === 1001) return (this.socket = null); // idle: the next question opens another
      setTimeout(() => this.connect(), this.pause);
      this.pause = Math.min(this.pause * 2, 15000);
    });
  }

  /** Reads what `make` makes once it is its turn, unless a newer one comes first; a draft does not count. */
  read(make, draft = false) {
    this.waiting = { make, draft };
    clearTimeout(this.retry);
    this.onbusy(true);
    this.#expect();
    this.#next();
  }

  /** Nobody wants to know any more. */
  forget() {
    this.waiting = null;
    this.asked++;
    clearTimeout(this.retry);
    this.#heard();
    this.onbusy(false);
  }

  async feedback(body) {
    return this.#json(this.#path("feedback"), JSON.stringify(body), "application/json");
  }

  /** Why a picture is read as it is; it was counted when it was read. */
  async explain(blob) {
    return this.#json(this.#path("explain"), await drafted(blob), "application/json");
  }

  async info() {
    return this.#json("api/info");
  }

  #expect() {
    if (this.timers.length) return;
    this.timers = [[SLOW, false], [SILENT, true]].map(([after, silent]) => setTimeout(() => this.onslow(silent), after));
  }

  #heard() {
    this.timers.splice(0).forEach(clearTimeout);
  }

  async #next() {
    if (this.busy) return;
    if (!this.waiting) return this.onbusy(false);
    const { make, draft } = this.waiting;
    const number = ++this.asked;
    this.waiting = null;
    this.busy = true;
    const began = performance.now();
    let answer, blob, fault;
    try {
      blob = await make();
      answer = await this.#ask(blob, draft ? await drafted(blob) : blob);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      fault = error;
    }
    const milliseconds = performance.now() - began;
    if (number === this.asked) {
      this.#heard();
      if (this.waiting) this.#expect();
      if (answer) this.onanswer(answer, milliseconds, blob);
      else this.#failed(fault, make, draft);
    }
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, LEAST - milliseconds)));
    this.busy = false;
    this.#next();
  }

  #failed(fault, make, draft) {
    this.onfault(fault);
    if (!fault.wait) return;
    this.retry = setTimeout(() => this.waiting ?? this.read(make, draft), fault.wait * 1000);
  }

  async #ask(blob, body) {
    if (blob.size > this.largest) throw new Fault(413, "too large");
    if (!this.socket) this.connect();
    if (this.live) {
      const answer = await this.#overSocket(body);
      if (answer?.status) throw fault(answer.status, answer.detail);
      if (answer) return answer;
    }
    return this.#json(this.#path("predict?image=true"), body, body === blob ? blob.type || "application/octet-stream" : "application/json");
  }

  /** The answer; nothing if the socket has none to give. */
  #overSocket(body) {
    const { socket } = this;
    return new Promise((resolve) => {
      const done = (answer) => {
        clearTimeout(timer);
        socket.removeEventListener("message", heard);
        socket.removeEventListener("close", closed);
        resolve(answer);
      };
      const heard = (event) => done(JSON.parse(event.data));
      const closed = () => done(null);
      const timer = setTimeout(() => {
        socket.close(); // an answer that comes late would be taken for the next one's
        done(null);
      }, PATIENCE);
      socket.addEventListener("message", heard);
      socket.addEventListener("close", closed);
      socket.send(body);
    });
  }

  async #json(path, body, type) {
    const headers = { ...(type && { "Content-Type": type }), ...(this.keyed && { "X-API-Key": this.key }) };
    let response, content;
    try {
      const signal = AbortSignal.timeout(4 * PATIENCE);
      response = await fetch(path, { method: body ? "POST" : "GET", headers, body, signal });
      content = await response.json();
    } catch {
      throw response && !response.ok
        ? fault(response.status, response.statusText)
        : new Fault(0, "the service does not answer", 2);
    }
    if (response.ok) return content;
    throw fault(response.status, content.detail, Number(response.headers.get("Retry-After")));
  }
}

export function dataUri(blob) {
  return new Promise((resolve) => {
    const file = new FileReader();
    file.onload = () => resolve(file.result);
    file.readAsDataURL(blob);
  });
}

/** The request for what does not count, as a drawing that is not finished: as text over the socket, too. */
async function drafted(blob) {
  return JSON.stringify({ image: await dataUri(blob), draft: true });
}

/** Too many requests, and no model yet: both pass. */
function fault(status, detail, after = 0) {
  const passes = status === 429 || status === 503;
  const seconds = after || Number(/in (\d+) s/.exec(detail)?.[1]) || 2;
  return new Fault(status, detail, passes ? seconds : 0);
}

// The drawing area: strokes or a picture, with undo, by pointer or by keys.

const SIDE = 280; // units along a side, whatever its size on the screen
const PEN = SIDE / 14; // as wide as in digits; other characters have finer lines
const MARGIN = 20; // around what is sent, so that no stroke runs into the edge
const STEP = 10; // of the pen that the arrow keys move
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Calls `onchange(finished)`: `finished` is false while a line is being drawn. */
export class Pad {
  constructor(canvas, onchange) {
    this.canvas = canvas;
    this.drawn = true; // whether lines may be drawn; pictures may always be shown
    this.pen = PEN;
    this.onchange = onchange;
    this.strokes = []; // each a list of [x, y]
    this.picture = null; // {blob, bitmap, name, width of what the blob shows, box: of the digit in it}
    this.past = [];
    this.pointer = null; // the one that draws
    this.cursor = null; // where the keys' pen is: [x, y]
    this.down = false; // whether it writes
    this.#listen();
  }

  get empty() {
    return !this.strokes.length && !this.picture;
  }

  /** The line in progress is too short to be read. */
  get begun() {
    const line = this.strokes.at(-1);
    return this.strokes.length === 1 && line.every(([x, y]) => Math.hypot(x - line[0][0], y - line[0][1]) < PEN);
  }

  /** Starts anew, with or without lines, of digits or of finer ones. */
  reset(drawn, digits) {
    Object.assign(this, { strokes: [], picture: null, past: [], cursor: null, drawn, pen: digits ? PEN : PEN / 2 });
    this.#lift();
    this.#changed();
  }

  undo() {
    if (!this.past.length) return;
    Object.assign(this, this.past.pop());
    this.#lift();
    this.#changed();
  }

  clear() {
    if (this.empty) return;
    this.#keep();
    Object.assign(this, { strokes: [], picture: null });
    this.#lift();
    this.#changed();
  }

  show(picture) {
    this.#keep();
    Object.assign(this, { strokes: [], picture });
    this.#lift();
    this.#changed();
  }

  /** Shows where in the picture the digit is: `{left, top, width, height}` in the blob's pixels. */
  mark(blob, box) {
    if (this.picture?.blob !== blob) return;
    this.picture.box = box;
    this.#paint();
  }

  /** What to send: the picture as it came, or the drawing as a PNG, black on white. */
  async blob() {
    if (this.picture) return this.picture.blob;
    const sheet = document.createElement("canvas");
    sheet.width = sheet.height = SIDE + 2 * MARGIN;
    const pen = sheet.getContext("2d");
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, sheet.width, sheet.height);
    pen.translate(MARGIN, MARGIN);
    this.#write(pen, "#000");
    return new Promise((resolve) => sheet.toBlob(resolve, "image/png"));
  }

  #keep() {
    this.past.push({ strokes: this.strokes, picture: this.picture });
  }

  #changed(finished = true) {
    this.#paint();
    this.onchange(finished);
  }

  #lift() {
    this.pointer = null;
    this.down = false;
  }

  /** Begins a line; a drawing takes the place of a picture. */
  #begin(point) {
    this.#keep();
    this.strokes = this.picture ? [[point]] : [...this.strokes, [point]];
    this.picture = null;
  }

  #listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.drawn || this.pointer !== null || event.button !== 0) return;
      canvas.blur(); // the ring around it is for those who came by keys
      canvas.setPointerCapture(event.pointerId);
      this.pointer = event.pointerId;
      this.cursor = null;
      this.#begin(this.#place(event));
      this.#changed(false);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.pointerId !== this.pointer) return;
      const events = event.getCoalescedEvents?.() ?? [];
      for (const move of events.length ? events : [event]) this.strokes.at(-1).push(this.#place(move));
      this.#changed(false);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => {
        if (event.pointerId !== this.pointer) return;
        this.#lift();
        this.#changed();
      });
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => {
      const drawing = this.down || this.pointer !== null;
      this.cursor = null;
      this.#lift();
      drawing ? this.#changed() : this.#paint();
    });
    new ResizeObserver(() => this.#paint()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paint());
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * SIDE, ((event.clientY - box.top) / box.height) * SIDE];
  }

  #key(event) {
    if (!this.drawn || event.ctrlKey || event.metaKey || event.altKey) return;
    const move = MOVES[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    this.cursor ??= [SIDE / 2, SIDE / 2];
    if (move) {
      const step = event.shiftKey ? STEP / 5 : STEP;
      this.cursor = this.cursor.map((place, axis) => Math.min(SIDE, Math.max(0, place + step * move[axis])));
      if (this.down) this.strokes.at(-1).push(this.cursor);
      this.down ? this.#changed(false) : this.#paint();
    } else {
      this.down = !this.down;
      if (this.down) this.#begin(this.cursor);
      this.#changed(!this.down);
    }
  }

  #paint() {
    const { canvas } = this;
    const side = Math.round(canvas.clientWidth * devicePixelRatio);
    if (!side) return;
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const pen = canvas.getContext("2d");
    const ink = getComputedStyle(canvas).color;
    pen.setTransform(side / SIDE, 0, 0, side / SIDE, 0, 0);
    pen.clearRect(0, 0, SIDE, SIDE);
    if (this.picture?.bitmap) {
      const { bitmap } = this.picture;
      const scale = Math.min(SIDE / bitmap.width, SIDE / bitmap.height);
      const [width, height] = [bitmap.width * scale, bitmap.height * scale];
      pen.imageSmoothingEnabled = scale < 2;
      pen.drawImage(bitmap, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
      if (this.picture.box) this.#frame(pen, width / this.picture.width, (SIDE - width) / 2, (SIDE - height) / 2);
    }
    this.#write(pen, ink);
    if (this.cursor) this.#point(pen);
  }

  /** The strokes, through the middles between their points: smooth, whatever the pointer's rate. */
  #write(pen, ink) {
    pen.strokeStyle = pen.fillStyle = ink;
    pen.lineWidth = this.pen;
    pen.lineCap = pen.lineJoin = "round";
    for (const line of this.strokes) {
      pen.beginPath();
      pen.moveTo(...line[0]);
      for (let i = 1; i < line.length - 1; i++) {
        const [x, y] = line[i];
        pen.quadraticCurveTo(x, y, (x + line[i + 1][0]) / 2, (y + line[i + 1][1]) / 2);
      }
      pen.lineTo(...line.at(-1)); // of a dot too: it has no length, but round ends
      pen.stroke();
    }
  }

  /** The box around the digit, in two colours: seen on dark and on light. */
  #frame(pen, scale, left, top) {
    const { box } = this.picture;
    const sides = [left + box.left * scale - 2, top + box.top * scale - 2, box.width * scale + 4, box.height * scale + 4];
    for (const [colour, wide] of [["#fff", 3.2], [getComputedStyle(this.canvas).accentColor, 1.6]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = wide;
      pen.strokeRect(...sides);
    }
  }

  #point(pen) {
    const [x, y] = this.cursor;
    pen.strokeStyle = getComputedStyle(this.canvas).accentColor;
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(x, y, PEN / 2 + 3, 0, 2 * Math.PI);
    pen.stroke();
  }
}

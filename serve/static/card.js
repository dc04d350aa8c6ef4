// The model card: as much Markdown as cards are written in, as elements that hold plain text.

const KINDS = [
  [/^#+ /, heading],
  [/^\|/, table],
  [/^- /, list],
  [/^ {4}/, code],
];

/** Elements for headings, tables, lists, indented code and paragraphs; the first heading is left out. */
export function elements(markdown) {
  const blocks = markdown.split(/\n{2,}/).map((block) => block.replace(/\s+$/, ""));
  return blocks
    .filter((block) => block && !block.startsWith("# "))
    .map((block) => {
      const [, build] = KINDS.find(([start]) => start.test(block)) ?? [null, (text) => make("p", ...spans(text))];
      return build(block);
    });
}

function make(kind, ...content) {
  const element = document.createElement(kind);
  element.append(...content);
  return element;
}

/** Text with what stands between backticks as code. */
function spans(text) {
  return text.split("`").map((part, place) => (place % 2 ? make("code", part) : part));
}

function heading(block) {
  const [, marks, text] = block.match(/^(#+) (.*)/);
  return make(`h${marks.length + 1}`, text);
}

function table(block) {
  const [head, , ...rows] = block.split("\n").map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()));
  const first = (cells) => cells.map((cell, place) => make(place ? "td" : "th", ...spans(cell)));
  const titles = make("tr", ...head.map((title) => make("th", title)));
  const body = make("tbody", ...rows.map((cells) => make("tr", ...first(cells))));
  const frame = make("div", make("table", make("thead", titles), body));
  frame.className = "wide";
  frame.tabIndex = 0; // it may be wider than the screen
  return frame;
}

function list(block) {
  return make("ul", ...block.slice(2).split("\n- ").map((item) => make("li", ...spans(item))));
}

function code(block) {
  return make("pre", make("code", block.replace(/^ {4}/gm, "")));
}

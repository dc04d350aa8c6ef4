// What the page offers and says for a model, by its labels and its input as `/api/info` has them.

const DIGITS = { labels: [...Array(10).keys()], input: { shape: [28, 28, 1], preparation: "digit" } };
const INTRO = "With mouse, pen or finger. Or drop, paste or upload a picture of one.";
const MARK = /^[\p{L}\p{N}]$/u; // a letter or a digit

/** Of digits if no model is known. */
export function describe(model) {
  const { labels, input } = model ?? DIGITS;
  const [height, width, channels] = input.shape;
  const digits = input.preparation === "digit";
  const drawn = digits || (channels === 1 && labels.every((label) => MARK.test(label)));
  const one = digits ? "digit" : drawn ? (labels.every((label) => /\p{L}/u.test(label)) ? "letter" : "character") : "picture";
  return {
    labels,
    digits,
    drawn,
    whole: input.preparation === "fit", // the box is the whole picture
    size: [width, height],
    one,
    title: drawn ? `Draw a ${one}` : "Show a picture",
    intro: drawn ? INTRO : "Drop, paste, photograph or upload one, and see what the model reads.",
    odd: digits ? "This may not be a digit" : "This may be none of these",
    oddNote: (closest) =>
      digits
        ? `It looks little like the digits that the model knows; of those, ${closest} comes closest.`
        : `It looks little like what the model knows; of that, ${closest} comes closest.`,
    alone: digits ? "No other digit comes close." : "Nothing else comes close.",
    none: digits ? "no digit" : "none of these",
    seen: digits ? "28 by 28 pixels, the digit bright on black" : `${width} by ${height} pixels`,
    like: digits ? "a digit" : "one of these",
  };
}

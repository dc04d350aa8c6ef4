// How labels and probabilities are said.

/** A digit with its article; other labels stand alone. */
export function a(label) {
  if (typeof label !== "number") return label;
  return `${label === 8 ? "an" : "a"} ${label}`;
}

export function percent(share) {
  if (share > 0.9995) return ">\u202f99.9\u202f%";
  return `${share < 0.0005 ? 0 : (share * 100).toFixed(1)}\u202f%`;
}

// How digits and probabilities are said.

export function a(digit) {
  return `${digit === 8 ? "an" : "a"} ${digit}`;
}

export function percent(share) {
  if (share > 0.9995) return ">\u202f99.9\u202f%";
  return `${share < 0.0005 ? 0 : (share * 100).toFixed(1)}\u202f%`;
}

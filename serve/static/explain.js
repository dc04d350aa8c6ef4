// Why this answer, and step by step how it came about: asked for on demand, of the picture that is shown.

import { Fault } from "./reader.js";
import { a, percent } from "./words.js";

const PAUSE = 400; // ms after the last answer: while somebody draws, nothing is asked
const LITTLE = 0.01; // a change of the probability by this much or less is none
const at = (id) => document.getElementById(id);

export class Explanation {
  constructor(reader) {
    this.reader = reader;
    this.kind = null; // what is said of the model's classes, see classes.js
    this.blob = null; // the picture that is shown
    this.explained = null; // the one that the explanation is of
    this.asked = null; // the one that is being explained
    for (const button of this.#buttons) button.addEventListener("click", () => this.#toggle(button));
  }

  get #buttons() {
    return [at("why"), at("steps")];
  }

  get #open() {
    return this.#buttons.some(isOpen);
  }

  /** The answer that is shown now is of this picture; none without a picture. */
  about(blob) {
    this.blob = blob;
    clearTimeout(this.timer);
    this.#say("");
    for (const button of this.#buttons) {
      button.disabled = !blob;
      if (!blob) this.#expand(button, false);
    }
    this.#stale();
    if (this.#open) this.timer = setTimeout(() => this.#ask(), PAUSE);
  }

  #toggle(button) {
    this.#expand(button, !isOpen(button));
    if (this.#open && this.explained !== this.blob) this.#ask();
  }

  #expand(button, expanded) {
    button.setAttribute("aria-expanded", expanded);
    at(button.getAttribute("aria-controls")).hidden = !expanded;
  }

  #stale() {
    at("explanation").setAttribute("aria-busy", this.explained !== this.blob);
  }

  #say(text) {
    at("explained").textContent = text;
  }

  async #ask() {
    const { blob } = this;
    if (this.asked === blob) return;
    this.asked = blob;
    clearTimeout(this.timer);
    this.#say("");
    try {
      const found = await this.reader.explain(blob);
      if (blob !== this.blob) return;
      this.explained = blob;
      this.#show(found);
      this.#stale();
    } catch (fault) {
      if (!(fault instanceof Fault)) throw fault;
      if (blob === this.blob) this.#say(`Not explained: ${fault.message}.`);
    } finally {
      if (this.asked === blob) this.asked = null;
    }
  }

  #show({ prediction, confidence, probabilities, digit_likelihood, occlusion, steps }) {
    at("map").src = occlusion.image;
    at("map").alt = `${this.kind.digits ? `The ${prediction}` : "The picture"} as the model saw it, what it rests on in orange`;
    at("map-words").textContent = because(prediction, confidence, occlusion.falls.flat());
    for (const [id, uri] of Object.entries(steps)) at(`step-${id}`).src = uri;
    const best = [...probabilities.keys()].sort((one, other) => probabilities[other] - probabilities[one]);
    const likely = best.filter((place, rank) => !rank || probabilities[place] > LITTLE);
    const scores = likely.map((place) => `${percent(probabilities[place])} for ${a(this.kind.labels[place])}`);
    if (digit_likelihood !== null) scores.push(`${digit_likelihood.toFixed(2)} of 1 for looking like ${this.kind.like}`);
    at("step-scores").textContent = scores.join(", ");
  }
}

function isOpen(button) {
  return button.getAttribute("aria-expanded") === "true";
}

function because(digit, sure, falls) {
  const [most, least] = [Math.max(...falls), Math.min(...falls)];
  const rests =
    most > LITTLE
      ? `Orange is what the answer rests on: without the part that matters most, ${a(digit)} has ${percent(sure - most)} instead of ${percent(sure)}.`
      : `No single part decides: whichever is hidden, ${a(digit)} keeps at least ${percent(sure - most)}.`;
  return least < -LITTLE ? `${rests} Blue speaks against it: without the worst of that it has ${percent(sure - least)}.` : rests;
}

/* How a text is drawn: the settings, their words, their fields. One row is one setting. */

import { make } from "./tokens.js";

const share = (most, least, step) => ({ type: "range", min: least, max: most, step });
const whole = (most, least) => ({ type: "number", min: least, max: most, step: 1 });

const SETTINGS = [
  { name: "temperature", title: "Temperature", usual: 0.3, ...share(2, 0, 0.05),
    about: `Below 1 likely tokens become likelier, above 1 unlikely ones. At 0 the likeliest is
      always taken.` },
  { name: "top_p", title: "Top-p", usual: 1, ...share(1, 0.05, 0.05),
    about: `Keep the likeliest tokens that make up this share of the probability, and drop the
      rest. 1 keeps all.` },
  { name: "top_k", title: "Top-k", usual: 50, ...whole(1e6, 0),
    about: "Keep only so many of the likeliest tokens. 0 keeps all." },
  { name: "min_p", title: "Min-p", usual: 0, ...share(1, 0, 0.01),
    about: `Drop tokens less likely than this share of the likeliest one's probability. 0 keeps
      all.` },
  { name: "repetition_penalty", title: "Repetition penalty", usual: 1, ...share(2, 1, 0.05),
    about: "Makes tokens that were there already less likely. 1 leaves them as they are." },
  { name: "count", title: "Tokens", usual: 100, ...whole(1e5, 1),
    about: "How many are written at most." },
  { name: "seed", title: "Seed", usual: "", ...whole(2 ** 32 - 1, 0),
    about: `The same text, settings and seed write the same again. Empty: something else each
      time.` },
  { name: "stop", title: "Stop before", usual: "", type: "text",
    about: "End the text where this would come. \\n is a line break. Empty: nowhere." },
];

let forms = 0; // each has names of its own for its fields

/** The fields of the settings, in an element; `changed` is called after each change. */
export class Settings {
  constructor(element, changed) {
    this.fields = {};
    const form = ++forms;
    for (const setting of SETTINGS) element.append(this.row(setting, `s${form}-${setting.name}`));
    const reset = make("button", {}, "As usual");
    reset.addEventListener("click", () => {
      this.values = {};
      changed();
    });
    element.append(make("div", {}, reset));
    element.addEventListener("input", () => {
      this.show();
      changed();
    });
    this.show();
  }

  row({ name, title, type, min, max, step, usual, about }, id) {
    const limits = type === "text" ? { maxLength: 200, autocomplete: "off" } : { min, max, step };
    const input = make("input", { id, type, ...limits, value: usual });
    input.setAttribute("aria-describedby", `${id}-about`);
    const output = make("output");
    output.htmlFor = id;
    this.fields[name] = { input, output };
    return make("div", {},
      make("label", { htmlFor: id }, title, type === "range" ? output : ""),
      input,
      make("p", { id: `${id}-about`, className: "hint" }, about));
  }

  /** The values that are set; what is no number is the usual. */
  get values() {
    return Object.fromEntries(SETTINGS.map(({ name, type, min, max, step, usual }) => {
      const { value } = this.fields[name].input;
      if (type === "text") return [name, value];
      if (value === "" || Number.isNaN(Number(value))) return [name, usual];
      const inside = Math.min(max, Math.max(min, Number(value)));
      return [name, step === 1 ? Math.floor(inside) : inside];
    }));
  }

  set values(values) {
    for (const { name, usual } of SETTINGS) this.fields[name].input.value = values?.[name] ?? usual;
    this.show();
  }

  show() {
    for (const { input, output } of Object.values(this.fields)) {
      if (input.type === "range") output.textContent = Number(input.value).toFixed(2);
    }
  }

  /** Them in a few words: the temperature, and what is not as usual. */
  get summary() {
    const values = this.values;
    const said = ({ name, usual }) => name === "temperature" || values[name] !== usual;
    const words = ({ name, title }) => `${title.toLowerCase()} ${values[name]}`;
    return SETTINGS.filter(said).map(words).join(" · ");
  }

  /** Them as the server wants them. */
  get sampling() {
    const { temperature, top_p, top_k, min_p, repetition_penalty, seed, stop } = this.values;
    const body = { temperature, top_p, repetition_penalty };
    if (top_k) body.top_k = top_k;
    if (min_p) body.min_p = min_p;
    if (seed !== "") body.seed = seed;
    if (stop) body.stop = stop.replaceAll("\\n", "\n");
    return body;
  }
}

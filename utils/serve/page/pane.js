/* One column: a model, its settings, and what it wrote. Two of them stand side by side. */

import { stream, tokenize } from "./api.js";
import { compact, number, words } from "./figures.js";
import { Settings } from "./settings.js";
import { make } from "./tokens.js";
import { Written } from "./written.js";

const ALTERNATIVES = 5;
const FRAME = 30; // milliseconds
const hint = (text) => make("span", { className: "hint" }, text);

/** `app` has the models, and hears: busy(), changed(), keep(), trouble(error), announce(text). */
export class Pane {
  constructor(app) {
    this.app = app;
    this.mode = "write";
    this.prompt = "";
    this.written = null; // after the prompt
    this.turns = []; // of the conversation: {role, text} or {role, written}
    this.control = null; // of what is under way
    this.element = document.getElementById("pane").content.firstElementChild.cloneNode(true);
    const find = (selector) => this.element.querySelector(selector);
    this.parts = {
      select: find("select"), facts: find(".facts"), out: find(".out"), error: find(".error"),
      figure: find(".figure"), on: find(".on"), copy: find(".copy"), box: find(".settings-box"),
      summary: find(".summary"),
    };
    this.settings = new Settings(find(".settings"), () => this.changed());
    this.parts.select.addEventListener("change", () => this.changed());
    this.parts.on.addEventListener("click", () => this.goOn());
    this.parts.copy.addEventListener("click", () => this.copy());
    this.changed(false);
  }

  /* Model and settings. */

  get model() {
    return this.app.models.find(({ id }) => id === this.parts.select.value);
  }

  /** Offer the models that are served; the chosen one stays, if it is among them. */
  offer(models) {
    this.fail("");
    const { select } = this.parts, wanted = select.value || this.wanted;
    select.replaceChildren(...models.map(({ id }) => make("option", { value: id }, id)));
    if (models.some(({ id }) => id === wanted)) select.value = wanted;
    this.changed(false);
  }

  changed(tell = true) {
    const { model } = this;
    this.parts.facts.textContent = model
      ? `${compact(model.parameters)} parameters · reads ${number(model.max_model_len)} tokens`
      : "";
    this.parts.summary.textContent = this.settings.summary;
    if (this.mode === "chat") this.show();
    if (tell) this.app.changed();
  }

  /** What it is set to, as JSON; also to be set. */
  get setup() {
    return { model: this.parts.select.value || this.wanted, settings: this.settings.values };
  }

  set setup({ model, settings }) {
    const { select } = this.parts;
    this.wanted = model;
    if ([...select.options].some(({ value }) => value === model)) select.value = model;
    this.settings.values = settings;
    this.changed(false);
  }

  /** What stands in it in this mode, as JSON; also to be set: what is not said stays. */
  get content() {
    const { prompt, written, turns } = this;
    return { ...this.setup, ...(this.mode === "write" ? { prompt, written } : { turns }) };
  }

  set content({ prompt = this.prompt, written, turns, ...setup }) {
    const text = (one) => (one.written ? { ...one, written: this.text(one.written) } : one);
    this.setup = setup;
    this.prompt = prompt;
    if (written !== undefined) this.written = written && this.text(written);
    if (turns) this.turns = turns.map(text);
    this.fail("");
    this.show();
  }

  /* Writing. */

  text(more) {
    const written = new Written({ ...more, branch: (i, choice) => this.branch(written, i, choice) });
    return written;
  }

  /** Go on from a prompt. */
  write(prompt) {
    return this.work(async (signal) => {
      const { tokens } = await tokenize(prompt, this.model.id, signal);
      this.prompt = prompt;
      this.written = this.text({ promptIds: tokens });
      this.show();
      await this.goFrom(this.written, signal);
    });
  }

  /** Say something in the conversation, and let the model answer. */
  send(text, system) {
    if (!this.model.chat) return;
    return this.work(async (signal) => {
      const written = this.text({});
      const before = this.turns;
      this.turns = [...before, { role: "user", text }, { role: "assistant", written }];
      this.show();
      const said = this.turns.slice(0, -1).map((turn) => (
        { role: turn.role, content: turn.text ?? turn.written.text }));
      const messages = [...(system ? [{ role: "system", content: system }] : []), ...said];
      const body = { messages, logprobs: true, top_logprobs: ALTERNATIVES };
      const most = { max_completion_tokens: this.settings.values.count };
      try {
        await this.run(written, "/v1/chat/completions", { ...body, ...most }, signal);
      } catch (error) { // less room than was asked for: as much as there is
        const short = error.code === "context_length_exceeded" && error.param === "max_tokens";
        if (!short) throw error;
        await this.run(written, "/v1/chat/completions", body, signal);
      } finally {
        const shown = this.turns.at(-1)?.written === written; // no new conversation since
        if (shown && !written.tokens.length && !written.finish) this.turns = before;
        this.show();
      }
    });
  }

  /** Go on from where a text stands, as far as was asked for, or as there is room. */
  async goFrom(written, signal) {
    const { max_model_len: context } = this.model;
    const prompt = [...written.promptIds, ...written.ids];
    const steps = Math.min(this.settings.values.count, context - prompt.length);
    if (steps <= 0) {
      written.end("length");
      const [all, read] = [prompt.length, context].map(number);
      throw new Error(`${all} tokens fill all that the model reads (${read}). Shorten the text.`);
    }
    const body = { prompt, max_tokens: steps, logprobs: ALTERNATIVES };
    await this.run(written, "/v1/completions", body, signal);
  }

  /** Ask for a text and show it as it comes. */
  async run(written, path, body, signal) {
    const model = { model: this.model.id, return_token_ids: true };
    const asked = { ...model, ...body, ...this.settings.sampling };
    const began = performance.now();
    let first, last, told = 0, rested = began;
    written.element.classList.add("writing");
    try {
      for await (const { choices: [choice] } of stream(path, asked, signal)) {
        if (signal.aborted) break;
        written.take(choice);
        last = performance.now();
        const n = written.tokens.length - written.before;
        if (n) first ??= last;
        const seconds = [first - began, last - first].map((time) => time / 1000);
        if (n) written.figures = { n, first: seconds[0], rate: (n - 1) / seconds[1] };
        if (written.finish || /[.!?\n]\s*$/.test(written.said)) {
          this.app.announce(written.said.slice(told));
          told = written.said.length;
        }
        this.figures();
        if (last - rested < FRAME) continue;
        this.follow();
        await new Promise((wake) => setTimeout(wake)); // or keys and clicks would wait for the end
        rested = performance.now();
      }
    } finally {
      written.element.classList.remove("writing");
      const open = !written.finish && written.tokens.length;
      if (open) written.end(signal.aborted ? "stopped" : "broken");
    }
  }

  /** Do one thing at a time; what goes wrong is said. */
  async work(task) {
    this.stop();
    const control = new AbortController();
    this.control = control;
    this.fail("");
    this.app.busy();
    try {
      await task(control.signal);
    } catch (error) {
      if (!control.signal.aborted) this.fail(error.message);
      if (!control.signal.aborted) this.app.trouble(error);
    }
    if (this.control !== control) return;
    this.control = null;
    this.figures();
    this.app.busy();
  }

  stop() {
    this.control?.abort();
  }

  /** Another token in place of token i, and on from there. */
  async branch(written, i, choice) {
    const { promptIds, tokens } = written;
    const chosen = { ...choice, top: tokens[i].top, chosen: true };
    const next = this.text({ promptIds, tokens: [...tokens.slice(0, i), chosen] });
    const turn = this.turns.findIndex((one) => one.written === written);
    if (this.mode === "write") this.written = next;
    else this.turns = [...this.turns.slice(0, turn), { role: "assistant", written: next }];
    this.show();
    next.focus(i);
    await this.work((signal) => this.goFrom(next, signal));
    if (next.figures) this.app.keep(true);
  }

  /** On from the end of the text. */
  async goOn() {
    const { promptIds, kept } = this.newest;
    const next = this.text({ promptIds, tokens: kept });
    if (this.mode === "write") this.written = next;
    else this.turns = [...this.turns.slice(0, -1), { role: "assistant", written: next }];
    this.show();
    await this.work((signal) => this.goFrom(next, signal));
    if (next.figures) this.app.keep(false);
  }

  async copy() {
    const text = (this.mode === "write" ? this.prompt : "") + this.newest.text;
    const { copy } = this.parts;
    const done = navigator.clipboard?.writeText(text); // only on https and localhost
    copy.textContent = await Promise.resolve(done ?? Promise.reject()).then(
      () => "Copied", () => "This browser forbids it");
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  }

  /* The screen. */

  /** The text that was written last, in this mode. */
  get newest() {
    return this.mode === "write" ? this.written : this.turns.at(-1)?.written ?? null;
  }

  fail(text) {
    this.parts.error.hidden = !text;
    this.parts.error.textContent = text;
  }

  show() {
    const { out } = this.parts;
    out.classList.toggle("talk", this.mode === "chat");
    if (this.mode === "write") out.replaceChildren(...this.page());
    else out.replaceChildren(...this.talk());
    out.scrollTop = out.scrollHeight;
    this.figures();
  }

  page() {
    if (!this.written) return [hint("What the model writes comes here.")];
    return [make("span", { className: "given" }, this.prompt), this.written.element];
  }

  talk() {
    if (this.model && !this.model.chat) {
      const why = `${this.model.id} cannot hold a conversation: it has no chat template, for it only `
        + "learnt to go on with texts. Use Write, or serve a model that has one:";
      const how = `python -m utils.hub import smollm2 --run smollm2
python -m utils.serve --run smollm2`;
      return [hint(why), make("pre", {}, how)];
    }
    if (!this.turns.length) return [hint("The conversation comes here.")];
    return this.turns.map(({ role, text, written }) => {
      const who = role === "user" ? "You" : this.model?.id ?? "Model";
      return make("div", { className: `turn ${role}` },
        make("span", { className: "who" }, who),
        make("div", { className: "says" }, text ?? written.element));
    });
  }

  /** A text has grown: stay at its end, unless someone reads above it. */
  follow() {
    const { out } = this.parts;
    if (out.scrollHeight - out.scrollTop - out.clientHeight < 120) out.scrollTop = out.scrollHeight;
  }

  figures() {
    const { newest, parts } = this;
    const ready = Boolean(newest?.finish) && !this.control;
    parts.on.hidden = !ready || !newest.kept.length || newest.finish === "stop";
    parts.copy.hidden = !ready;
    const waiting = this.control ? "Reading the prompt …" : "";
    parts.figure.textContent = newest?.figures ? words(newest, this.model?.max_model_len) : waiting;
  }
}

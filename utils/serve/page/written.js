/* A text that a model writes: its tokens as they come, each an element that can be looked at. */

import * as card from "./card.js";
import { decoder, heat, hex, label, make, percent } from "./tokens.js";

const ENDS = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };

/** Tokens after ids of a prompt. `branch(i, choice)` is called where one is chosen instead of
    token i. */
export class Written {
  constructor({ promptIds = null, tokens = [], finish = null, figures = null, branch }) {
    Object.assign(this, { promptIds, finish, figures, branch });
    this.tokens = [];
    this.before = tokens.length; // those that the server did not write now
    this.said = ""; // what the server sent as text
    this.decoder = decoder();
    this.element = make("span", { className: "written" });
    this.element.setAttribute("role", "group");
    this.element.ariaLabel = "Written tokens: arrow keys go along, Enter shows alternatives";
    this.add(tokens);
    if (finish) this.flush();
    this.listen();
  }

  get ids() {
    return this.tokens.map(({ id }) => id);
  }

  /** The text, as it stands on the page. */
  get text() {
    return [...this.element.children].map((span) => span.textContent).join("");
  }

  /** Tokens come in, as the server names them. */
  add(tokens) {
    for (const { id, bytes, logprob, top, top_logprobs, cut, chosen } of tokens) {
      const token = { id, bytes, logprob, top: top ?? top_logprobs, cut, chosen };
      this.tokens.push(token);
      this.element.append(this.span(token));
    }
  }

  span(token) {
    const text = this.decoder.decode(Uint8Array.from(token.bytes), { stream: true });
    const span = make("span", { className: "tok", tabIndex: this.tokens.length === 1 ? 0 : -1 });
    span.setAttribute("role", "button");
    span.setAttribute("aria-haspopup", "dialog");
    span.ariaLabel = `${label(token.bytes)}, ${percent(token.logprob)}`;
    span.style.setProperty("--heat", heat(token.logprob));
    if (token.chosen) span.classList.add("chosen");
    this.say(span, token, token.cut === undefined ? text : text.slice(0, token.cut));
    return span;
  }

  /** What stands in an element. Marks are drawn by the style sheet: nobody copies them. */
  say(span, token, text) {
    const cut = token.cut === 0, breaks = /^\n+$/.test(text);
    span.textContent = text;
    span.classList.toggle("cut", cut);
    delete span.dataset.mark;
    if (!text) span.dataset.mark = cut ? label(token.bytes) : `‹${hex(token.bytes)}›`;
    if (breaks) span.dataset.mark = "↵".repeat(text.length);
  }

  /** Take in a chunk of a stream. */
  take({ text, delta, logprobs, prompt_token_ids, finish_reason }) {
    this.promptIds ??= prompt_token_ids;
    this.said += text ?? delta?.content ?? "";
    this.add(logprobs?.content ?? []);
    if (finish_reason) this.end(finish_reason);
  }

  /** Nothing more comes. After a stop, tokens beyond the text that the server sent are cut. */
  end(finish) {
    this.finish = finish;
    this.flush();
    if (finish === "stop") this.cut();
  }

  /** Bytes that did not become a character show as U+FFFD. */
  flush() {
    const last = this.element.lastElementChild, rest = this.decoder.decode();
    if (last && rest) this.say(last, this.tokens.at(-1), last.textContent + rest);
  }

  cut() {
    const fresh = decoder(); // as the server's, which knows nothing of the tokens before
    let left = this.said.length;
    for (let i = this.before; i < this.tokens.length; i++) {
      const token = this.tokens[i], span = this.element.children[i];
      const { length } = fresh.decode(Uint8Array.from(token.bytes), { stream: true });
      if (length > left) {
        token.cut = left;
        this.say(span, token, span.textContent.slice(0, left));
      }
      left = Math.max(0, left - length);
    }
  }

  /** The tokens that belong to the text: what one may go on from. */
  get kept() {
    const end = this.tokens.findIndex(({ cut }) => cut !== undefined);
    return end < 0 ? this.tokens : this.tokens.slice(0, end);
  }

  listen() {
    const of = (target) => {
      const span = target.closest(".tok");
      const i = [...this.element.children].indexOf(span);
      return span && [span, this.tokens[i], (choice) => this.branch(i, choice), i];
    };
    this.element.addEventListener("pointerover", ({ target, pointerType }) => {
      const found = of(target);
      if (found && pointerType === "mouse") card.over(...found);
    });
    this.element.addEventListener("pointerleave", card.out);
    this.element.addEventListener("focusin", ({ target }) => {
      const found = of(target);
      for (const other of this.element.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
      found[0].tabIndex = 0;
      if (!this.quiet) card.show(...found);
    });
    this.element.addEventListener("focusout", ({ relatedTarget }) => {
      if (!relatedTarget?.closest("#card")) card.hide();
    });
    this.element.addEventListener("keydown", (event) => {
      const { children } = this.element, { key } = event;
      const at = of(event.target)[3];
      const into = ["Enter", "ArrowDown", " "].includes(key) && !event.ctrlKey && !event.metaKey;
      if (!(key in ENDS) && !into) return;
      event.preventDefault();
      if (into) {
        card.show(...of(event.target));
        card.enter();
      } else children[Math.min(children.length - 1, Math.max(0, at + ENDS[key]))].focus();
    });
  }

  /** Give a token the focus, without its card. */
  focus(i) {
    this.quiet = true;
    this.element.children[i].focus();
    this.quiet = false;
  }

  /** What can be kept as JSON, with three digits of each probability. */
  toJSON() {
    const round = (x) => Number(x.toFixed(3));
    const plain = ({ id, bytes, logprob }) => ({ id, bytes, logprob: round(logprob) });
    const { promptIds, finish, figures } = this;
    const tokens = this.tokens.map((token) => ({
      ...plain(token), top: token.top.map(plain), cut: token.cut, chosen: token.chosen,
    }));
    return { promptIds, tokens, finish, figures };
  }
}

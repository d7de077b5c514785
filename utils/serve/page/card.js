/* The card beside a token: what it is, and what else could have stood there. One is on the page. */

import { hex, label, make, percent, tokenSpan } from "./tokens.js";

const DELAY = 120; // milliseconds in which the mouse may pass over tokens

const card = make("div", { id: "card", hidden: true });
card.setAttribute("role", "dialog");
card.setAttribute("aria-label", "The token and its alternatives");
document.body.append(card);
let shown = null; // {element, token, pick}
let clock = 0;

/** A token of the table: its text, its probability as a bar. */
function row(choice, drawn, pick) {
  const bar = make("span", { className: "bar" }, percent(choice.logprob));
  bar.style.setProperty("--share", Math.exp(choice.logprob));
  const button = make("button", { className: "row" }, tokenSpan(choice.bytes), bar);
  button.classList.toggle("drawn", drawn);
  const what = drawn ? "the token that stands here" : "go on from this token";
  button.ariaLabel = `${label(choice.bytes)}, ${percent(choice.logprob)}: ${what}`;
  button.addEventListener("click", () => {
    hide();
    pick(choice);
  });
  return button;
}

/** Where the token is, or above it where below is no room; never beyond the screen's edges. */
function place(element) {
  const box = element.getClientRects()[0] ?? element.getBoundingClientRect();
  const width = document.documentElement.clientWidth;
  const left = Math.max(8, Math.min(box.left, width - card.offsetWidth - 8));
  const below = box.bottom + 6 + card.offsetHeight <= window.innerHeight;
  const above = box.top - card.offsetHeight - 6;
  const top = below || above < 0 ? box.bottom + 6 : above;
  card.style.left = `${left + window.scrollX}px`;
  card.style.top = `${top + window.scrollY}px`;
}

/** Show the card of a token at its element; `pick(choice)` is called for what is chosen in it. */
export function show(element, token, pick) {
  clearTimeout(clock);
  if (shown?.element === element && shown.token === token) return;
  shown?.element.classList.remove("looked");
  shown = { element, token, pick };
  const among = token.top.some(({ id }) => id === token.id);
  const choices = among ? token.top : [...token.top, token];
  const head = make("p", { className: "card-head" }, tokenSpan(token.bytes),
    make("span", { className: "soft" }, `id ${token.id} · bytes ${hex(token.bytes) || "none"}`));
  const rows = choices.map((choice) => row(choice, choice.id === token.id, pick));
  card.replaceChildren(head, ...rows,
    make("p", { className: "hint" }, "What the model held likely here, before temperature and cuts. ",
      "Choose one to go on from it."));
  card.hidden = false;
  element.classList.add("looked");
  place(element);
}

/** Hide the card. */
export function hide() {
  clearTimeout(clock);
  shown?.element.classList.remove("looked");
  shown = null;
  card.hidden = true;
}

/** Whether the card is there. */
export const open = () => shown !== null;

/** The mouse is over a token: show its card, unless it only passes by, or another has the focus. */
export function over(element, token, pick) {
  clearTimeout(clock);
  if (!held()) clock = setTimeout(() => show(element, token, pick), DELAY);
}

/** The mouse has left: hide the card, unless it goes to the card. */
export function out() {
  clearTimeout(clock);
  if (!held()) clock = setTimeout(hide, 2 * DELAY);
}

/** Whether the focus keeps the card. */
const held = () => shown && [card, shown.element].some((one) => one.contains(document.activeElement));

/** Into the card, by keyboard. */
export function enter() {
  card.querySelector("button")?.focus();
}

card.addEventListener("pointerenter", () => clearTimeout(clock));
card.addEventListener("pointerleave", out);
card.addEventListener("focusout", ({ relatedTarget }) => {
  if (shown && relatedTarget !== shown.element && !card.contains(relatedTarget)) hide();
});
card.addEventListener("keydown", (event) => {
  const rows = [...card.querySelectorAll("button")];
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) {
    event.preventDefault();
    const at = rows.indexOf(document.activeElement) + step;
    if (at < 0) shown.element.focus();
    else rows[Math.min(at, rows.length - 1)].focus();
  }
  if (event.key === "Tab") shown.element.focus(); // and on from there
});
document.addEventListener("pointerdown", ({ target }) => {
  if (shown && !card.contains(target) && !shown.element.contains(target)) hide();
});
for (const moved of ["resize", "scroll"]) {
  window.addEventListener(moved, () => shown && place(shown.element), true);
}

/** Escape: back to the token, or away with the card. True if there was one. */
export function leave() {
  if (!shown) return false;
  const { element } = shown;
  const inside = card.contains(document.activeElement);
  hide();
  if (inside) element.focus();
  return true;
}

/* The prompt as the model sees it: tokens with their ids and bytes. */

import { tokenize } from "./api.js";
import { hex, make, tokenSpan } from "./tokens.js";

const PAUSE = 250; // milliseconds without typing, after which the server is asked

const list = document.getElementById("prompt-tokens");
const count = document.getElementById("token-count");
let clock = 0;
let asked = ""; // the model and the text that are shown, or will be

const tile = ({ id, bytes }) => make("li", {},
  tokenSpan(bytes),
  make("span", { className: "soft" }, String(id)),
  make("span", { className: "soft bytes" }, hex(bytes)));

async function show(text, model, mine) {
  try {
    const { pieces, count: n } = await tokenize(text, model.id);
    if (asked !== mine) return;
    list.replaceChildren(...pieces.map(tile));
    const unseen = n > pieces.length ? `, the first ${pieces.length} here` : "";
    const { id, max_model_len: context } = model;
    count.textContent = `${n} of the ${context} that ${id} reads${unseen}`;
    count.classList.toggle("error", n >= context);
  } catch (error) {
    if (asked === mine) asked = "";
    count.textContent = error.message;
  }
}

/** Show a prompt's tokens, soon. */
export function showPrompt(text, model) {
  const mine = JSON.stringify([model?.id, text]);
  if (!model || mine === asked) return;
  asked = mine;
  clearTimeout(clock);
  clock = setTimeout(show, PAUSE, text, model, mine);
}

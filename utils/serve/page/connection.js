/* Whether the server is there: what the page says when it is away, and when it asks for a key. */

import * as api from "./api.js";
import { make } from "./tokens.js";

const PATIENCE = { here: 10000, away: 1500 }; // milliseconds until it is asked again
const $ = (id) => document.getElementById(id);

let served = () => {}; // hears of the models, at first and when the server is back
let names = []; // of the models
let gone = false;
let clock = 0;

/** Something went wrong: say what can be done, if it is the server that is away or wants a key. */
export function trouble(error) {
  if (error.kind === "away") away(error.message);
  if (error.kind === "key") askKey(error.message);
}

function away(message) {
  gone = true;
  clearTimeout(clock);
  clock = setTimeout(watch, PATIENCE.away);
  const runs = names.filter((name) => !name.endsWith(":base")).join(" ") || "RUN";
  const command = `python -m utils.serve --run ${runs} --port ${location.port || 80}`;
  const parts = [
    make("strong", {}, message), " Start it again: ", make("code", {}, command),
    " This page goes on by itself once it is back; what you wrote is kept."];
  const box = $("away"), text = make("p", {}, ...parts).textContent;
  if (box.hidden || box.textContent !== text) box.replaceChildren(...parts); // said once
  box.hidden = false;
}

function askKey(message) {
  const again = !$("key-form").hidden;
  $("key-form").hidden = false;
  $("key-error").hidden = !again;
  $("key-error").textContent = message;
  $("key").focus();
}

/** Ask what is served. */
async function connect() {
  try {
    const models = await api.models();
    names = models.map(({ id }) => id);
    gone = false;
    $("away").hidden = $("key-form").hidden = true;
    served(models);
  } catch (error) {
    trouble(error);
  }
}

/** See now and then whether it is there. */
async function watch() {
  clearTimeout(clock);
  clock = setTimeout(watch, PATIENCE.here);
  try {
    await api.health();
    if (gone) await connect();
  } catch (error) {
    trouble(error);
  }
}

/** Connect, and watch from now on; `hear(models)` is called whenever the server is there anew. */
export async function begin(hear) {
  served = hear;
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    api.useKey($("key").value.trim());
    connect();
  });
  await connect();
  watch();
}

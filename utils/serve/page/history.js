/* What was written, kept in this browser: entries, the newest first. */

import { keep, read } from "./kept.js";

const NAME = "llm-tiny.history";
const MOST = 50;

/** All entries; what is damaged is passed over. */
export function entries() {
  const found = read(NAME, []);
  const whole = (one) => one?.id && typeof one.title === "string" && Number.isFinite(one.at)
    && Array.isArray(one.panes) && one.panes.every((pane) => typeof pane?.model === "string");
  return Array.isArray(found) ? found.filter(whole) : [];
}

/** Keep an entry, in place of the one with its id; the oldest go where room is short. */
export function add(entry) {
  let all = [entry, ...entries().filter(({ id }) => id !== entry.id)].slice(0, MOST);
  while (!keep(NAME, all) && all.length > 1) all = all.slice(0, Math.floor(all.length / 2));
}

/** Forget an entry. */
export const remove = (gone) => keep(NAME, entries().filter(({ id }) => id !== gone));

/** Forget all. */
export const clear = () => keep(NAME, []);

/* Numbers in words: how many tokens, how fast, and why a text ended. */

/** 134515008 -> "134,515,008". */
export const number = (n) => n.toLocaleString("en");

/** 134515008 -> "134.5M". */
export const compact = (n) =>
  n.toLocaleString("en", { notation: "compact", maximumFractionDigits: 1 });

/** How a text was written. Its `figures`: n tokens, seconds to the first, tokens per second. */
export function words({ figures: { n, first, rate }, finish, promptIds, ids }, context) {
  const full = context && promptIds && promptIds.length + ids.length >= context;
  const ends = {
    stop: "ended here by itself",
    length: full ? `all ${number(context)} tokens that it reads are used` : "as many as asked for",
    stopped: "stopped",
    broken: "broken off",
  };
  const parts = [
    `${number(n)} token${n === 1 ? "" : "s"}`,
    `first one after ${first < 10 ? first.toFixed(2) : first.toFixed(0)} s`,
  ];
  const speed = rate < 10 ? rate.toFixed(1) : number(Math.round(rate));
  if (Number.isFinite(rate) && n > 1) parts.push(`${speed} tokens/s`);
  if (finish) parts.push(ends[finish]);
  return parts.join(" · ");
}

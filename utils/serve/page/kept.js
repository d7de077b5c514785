/* Values that a browser keeps, as JSON. Where it keeps nothing (private windows, full, damaged)
   the page works on, without them. */

/** A value that was kept, or `otherwise`. */
export function read(name, otherwise = null, area = "localStorage") {
  try {
    return JSON.parse(window[area].getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

/** Keep a value; false where that is not possible. */
export function keep(name, value, area = "localStorage") {
  try {
    window[area].setItem(name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

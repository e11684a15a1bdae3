/**
 * Clock times and dates in the reader's own locale (Intl, no locale files), and countdowns.
 * Words of the page ("Today", "2 minutes") stay English, like the rest of its text.
 */

const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "long" });
const SHORT_DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

/** A server timestamp as a Date; now, where it is missing or not one. */
export function instant(value) {
  const date = value ? new Date(value) : new Date();
  return Number.isNaN(date.getTime()) ? new Date() : date;
}

export const clock = (date) => CLOCK.format(date);

/** "Today", "Yesterday", or the date: a heading between the messages of two days. */
export function day(date) {
  const midnight = (value) => new Date(value.getFullYear(), value.getMonth(), value.getDate());
  const days = Math.round((midnight(date) - midnight(new Date())) / 86_400_000);
  if (days !== 0 && days !== -1) return DAY.format(date);
  const word = RELATIVE.format(days, "day");
  return word[0].toUpperCase() + word.slice(1);
}

/** The time for today, the date for anything older: for a list. */
export function brief(date) {
  return date.toDateString() === new Date().toDateString() ? clock(date) : SHORT_DAY.format(date);
}

/** 75 -> "1 minute 15 seconds" */
export function duration(seconds) {
  const unit = (count, name) => (count ? `${count} ${name}${count === 1 ? "" : "s"}` : "");
  const parts = [unit(Math.floor(seconds / 60), "minute"), unit(seconds % 60, "second")];
  return parts.filter(Boolean).join(" ");
}

/**
 * Call tick(seconds left) now and then until the time is over, then done() once. Measured against
 * the clock, not by counting ticks: a phone that sleeps must not sleep the wait longer.
 * @returns {() => void} stops it
 */
export function countdown(seconds, tick, done) {
  const end = Date.now() + seconds * 1000;
  let shown = 0;
  const timer = setInterval(step, 250);
  function step() {
    const left = Math.ceil((end - Date.now()) / 1000);
    if (left <= 0) {
      clearInterval(timer);
      done();
    } else if (left !== shown) {
      shown = left;
      tick(left);
    }
  }
  step();
  return () => clearInterval(timer);
}

export const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

// Numbers as people read them. Pure.

export const NOTHING = "-";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** A number with its thousands apart; small ones keep a digit. */
export function number(value) {
  if (value === null || value === undefined) return NOTHING;
  return (Math.abs(value) < 10 ? tenths : whole).format(value);
}

/** A duration in the unit that suits it. */
export function seconds(value) {
  if (value === null || value === undefined) return NOTHING;
  if (value === 0) return "0 s";
  if (value < 1) return `${(value * 1000).toFixed(1)} ms`;
  if (value < 60) return `${value.toFixed(1)} s`;
  const minutes = Math.floor(value / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(value % 60)} s`;
  if (minutes < 2880) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / 1440)} days`;
}

/** The time of day, in the reader's own zone. */
export function clock(date) {
  return date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

/** A moment of any day, in UTC: a recording's days are seldom the reader's. */
export function moment(seconds) {
  return new Date(seconds * 1000).toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC");
}

/** A window's length, in whole minutes where it is. */
export function length(value) {
  if (value === 60) return "minute";
  return value % 60 === 0 && value >= 60 ? `${number(value / 60)} minutes` : `${value} seconds`;
}

/** A size in the unit that suits it. */
export function bytes(value) {
  if (value === null || value === undefined) return NOTHING;
  let unit = "B";
  for (const larger of ["KiB", "MiB", "GiB"]) {
    if (value < 1024) break;
    value /= 1024;
    unit = larger;
  }
  return `${unit === "B" ? value : value.toFixed(1)} ${unit}`;
}

/** A score, four digits of it: also those that are zeros, or numbers that move would jump. */
export function score(value) {
  if (value === null || value === undefined) return NOTHING;
  if (value !== 0 && (Math.abs(value) < 0.0001 || Math.abs(value) >= 1e6)) {
    return value.toExponential(2);
  }
  return Math.abs(value) >= 1000 ? value.toFixed(0) : value.toPrecision(4);
}

/** How long ago something was; what is nearly now does not flicker. */
export function ago(value) {
  return value < 1 ? "just now" : `${seconds(value)} ago`;
}

export function text(value) {
  return value ?? NOTHING;
}

/** A user id to be shown by itself: one without a visible character is told, not shown. */
export function userId(value) {
  if (/[\p{L}\p{N}\p{P}\p{S}]/u.test(value)) return value;
  const length = [...value].length;
  return `(blank, ${length} character${length > 1 ? "s" : ""})`;
}

/** A user id within a sentence, isolated: written from right to left it would turn the sentence. */
export function isolated(value) {
  return `\u2068${userId(value)}\u2069`;
}

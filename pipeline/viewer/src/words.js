// Numbers as the report writes them, and elements of the page.

/** Three digits that count, none of a whole number left out. */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '—';
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString('en-US');
  const size = Math.floor(Math.log10(Math.abs(value)));
  if (size < -4 || size > 8) return value.toExponential(2);
  return value.toLocaleString('en-US', { maximumFractionDigits: Math.max(2 - size, 0) });
}

const LENGTHS = [['nm', 1e-3], ['µm', 1], ['mm', 1e3], ['m', 1e6]];

/** A length with the unit that fits it; what is in no unit of length stays in its own. */
export function length(value, unit) {
  const from = LENGTHS.find(([sign]) => sign === unit);
  if (!from || !value) return `${number(value)} ${unit ?? 'pixels'}`;
  const micrometres = value * from[1];
  const [sign, by] = [...LENGTHS].reverse().find(([, each]) => Math.abs(micrometres) / each >= 0.1) ?? LENGTHS[0];
  return `${number(micrometres / by)} ${sign}`;
}

/** The largest of 1, 2 and 5 times a power of ten that is not above a span. */
export function niceStep(span) {
  const power = 10 ** Math.floor(Math.log10(span));
  return [5, 2, 1].map((times) => times * power).find((step) => step <= span * (1 + 1e-9)) ?? power;
}

/** Make an element; what comes from files is text, never HTML. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (name in made && name !== 'list') made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export const byId = (id) => document.getElementById(id);

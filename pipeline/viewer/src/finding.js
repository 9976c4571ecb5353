// What can be jumped to: objects by number or by size, and the places that the audit lists.

import { ask } from './server.js';
import { byId, element, number } from './words.js';

const AROUND = 6; // times an object's extent that is shown around it

export class Finder {
  #items = [];
  #at = -1;

  constructor(scene, field) {
    this.scene = scene;
    this.field = field;
    this.#showFinder();
    this.#showPlaces();
    byId('row').replaceChildren();
    byId('list').replaceChildren();
    byId('found').hidden = !scene.facts.objects;
  }

  #showFinder() {
    const { objects } = this.scene.facts;
    const box = byId('finder');
    box.replaceChildren();
    if (!objects) return;
    const input = element('input', { type: 'text', inputMode: 'numeric', id: 'goto', placeholder: 'Number of an object' });
    const form = element('form', { className: 'line' }, input, element('button', {}, 'Go'));
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      if (/^\d+$/.test(input.value.trim())) this.pick(Number(input.value), true);
    });
    box.append(form);
    if (!objects.columns.length) return;
    const column = element('select', { ariaLabel: 'Column' }, ...objects.columns.map((name) => element('option', {}, name)));
    if (objects.columns.includes('area_physical')) column.value = 'area_physical';
    const list = (order) => () => this.#list(column.value, order);
    box.append(element('div', { className: 'line' }, column,
      element('button', { onclick: list('largest'), id: 'largest' }, 'Largest'),
      element('button', { onclick: list('smallest') }, 'Smallest')));
  }

  async #list(column, order) {
    try {
      const { rows } = await ask('objects.json', { field: this.field, column, order });
      this.#offer(byId('list'), rows.map((row) => ({
        text: `object ${number(row.label)}`,
        more: typeof row[column] === 'string' ? row[column] : number(Number(row[column])),
        go: () => this.pick(row.label, true),
      })));
    } catch (error) {
      this.scene.told.error(error);
    }
  }

  #showPlaces() {
    const { findings } = this.scene.facts;
    const box = byId('findings');
    box.replaceChildren();
    byId('places').hidden = !findings.length;
    for (const { title, kind, total, places } of findings) {
      const list = element('div');
      box.append(element('p', { className: kind }, `${title}: ${number(total)}`), list);
      if (places.length < total) box.append(element('p', { className: 'soft' }, `The first ${number(places.length)} are listed.`));
      this.#offer(list, places.map((place, at) => ({
        text: `${at + 1}. ${place.text}`,
        more: `x ${number(Math.floor(place.at[3]))}, y ${number(Math.floor(place.at[2]))}`,
        go: () => {
          this.scene.place = place;
          this.scene.goTo(place.at, 300);
        },
      })));
    }
  }

  /** Show a list that can be gone through; n and p go on in the one that was used last. */
  #offer(box, items) {
    const buttons = items.map(({ text, more }, at) =>
      element('button', { onclick: () => { this.#items = items; this.#choose(at); } },
        element('span', {}, text), element('span', { className: 'soft' }, more)));
    items.forEach((item, at) => { item.button = buttons[at]; });
    box.replaceChildren(element('div', { className: 'items' }, ...buttons));
    if (items.length) [this.#items, this.#at] = [items, -1];
  }

  #choose(at) {
    this.#items[this.#at]?.button.removeAttribute('aria-current');
    this.#at = at;
    const { button, go } = this.#items[at];
    button.setAttribute('aria-current', 'true');
    button.scrollIntoView({ block: 'nearest' });
    go();
  }

  /** Go on to the next, or back to the one before. */
  step(by) {
    const count = this.#items.length;
    if (count) this.#choose((((this.#at + by) % count) + count) % count);
  }

  /** Mark an object, and show its row of the table; go there if it is asked for. */
  async pick(label, going = false) {
    const { scene } = this;
    scene.picked = label;
    scene.frame = null;
    scene.repaint('objects');
    scene.redraw();
    byId('row').replaceChildren();
    scene.told.moved();
    if (label === null) return;
    const title = element('p', {}, element('strong', {}, `Object ${number(label)}`));
    if (!scene.facts.objects.columns.length) {
      byId('row').replaceChildren(title, element('p', { className: 'soft' }, 'Objects were not measured.'));
      return;
    }
    try {
      const { row, units } = await ask('object.json', { field: this.field, label });
      if (scene.picked !== label) return;
      const box = this.#box(row);
      scene.frame = box && [box.y0, box.x0, box.y1, box.x1];
      if (going && box) scene.goTo([box.t, box.z, (box.y0 + box.y1) / 2, (box.x0 + box.x1) / 2],
                                   AROUND * Math.max(box.y1 - box.y0, box.x1 - box.x0));
      scene.redraw();
      // What tells of the object comes before where it lies.
      const places = /^(centroid|bbox|t$|z$|label)/;
      const named = Object.entries(row).filter(([name]) => name !== 'label');
      const ordered = [...named.filter(([name]) => !places.test(name)), ...named.filter(([name]) => places.test(name))];
      const cells = ordered.map(([name, value]) =>
        element('tr', {}, element('td', {}, name),
          element('td', {}, typeof value === 'number' ? number(value) : String(value ?? '—'),
            ...(units[name] && units[name] !== 'pixel' ? [element('span', { className: 'soft' }, ` ${sign(units[name])}`)] : []))));
      byId('row').replaceChildren(title, element('div', { className: 'scroll' }, element('table', {}, element('tbody', {}, ...cells))));
    } catch (error) {
      byId('row').replaceChildren(title, element('p', { className: 'bad' }, error.message));
    }
  }

  /** Where an object lies, in pixels of the image. */
  #box(row) {
    const { start, size, ndim } = this.scene.facts.objects;
    const ends = Array.from({ length: 2 * ndim }, (_, at) => row[`bbox-${at}`]);
    if (ends.some((end) => typeof end !== 'number')) return null;
    const place = (value, axis) => start[axis] + value * size[axis];
    const [y0, x0] = [place(ends[ndim - 2], 2), place(ends[ndim - 1], 3)];
    const [y1, x1] = [place(ends[2 * ndim - 2], 2), place(ends[2 * ndim - 1], 3)];
    let z = 'z' in row ? place(row.z + 0.5, 1) : this.scene.z;
    if (ndim === 3) {
      const [z0, z1] = [place(ends[0], 1), place(ends[3], 1)];
      z = this.scene.z >= z0 && this.scene.z < z1 ? this.scene.z : (z0 + z1) / 2;
    }
    return { t: 't' in row ? row.t : this.scene.t, z, y0, x0, y1, x1 };
  }
}

const sign = (unit) => unit.replace('micrometer', 'µm').replace('nanometer', 'nm').replace('millimeter', 'mm');

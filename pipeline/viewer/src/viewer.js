// The page of `seamfree view`: starts with what the address says, and ties keys and pointer to the scene.

import { Finder } from './finding.js';
import { makeAxes, makeLayers } from './panel.js';
import { Scene } from './scene.js';
import { ask } from './server.js';
import { byId, element, length, number } from './words.js';

let scene, finder, toggles, showPlane;
let field = '';

const told = {
  note: (text) => {
    byId('note').hidden = !text;
    byId('note').textContent = text ?? '';
  },
  error: (error) => told.note(error.cause ? `${error.message}: ${error.cause.message}` : error.message),
  moved: () => {
    showPlane();
    remember();
  },
};

/** Keep in the address what is seen, so that reloading, or a bookmark, comes back to it. */
function remember() {
  const view = scene.map.getView();
  const [x, y] = view.getCenter();
  const said = { x: x.toFixed(1), y: (-y).toFixed(1), resolution: view.getResolution().toPrecision(5), t: scene.t, z: scene.z };
  if (field) said.field = field;
  if (scene.picked) said.object = scene.picked;
  history.replaceState(null, '', `#${new URLSearchParams(said)}`);
}

const remembered = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));

async function start() {
  const facts = await ask('facts.json');
  const from = remembered();
  if (facts.kind !== 'plate') return show(facts, from);
  makePlate(facts);
  const known = facts.wells.flatMap(({ fields }) => fields.map(({ path }) => path));
  return chooseField(known.includes(from.field) ? from.field : known[0], from);
}

function makePlate({ name, wells }) {
  byId('plate').hidden = false;
  document.title = `${name} · seamfree`;
  const unique = (axis) => [...new Set(wells.map((well) => well[axis]))].sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
  const [rows, columns] = [unique('row'), unique('column')];
  const grid = element('div', { className: 'plate' });
  grid.style.gridTemplateColumns = `1.2rem repeat(${columns.length}, minmax(1.3rem, 1fr))`;
  grid.append(element('span'), ...columns.map((column) => element('span', {}, column)));
  for (const row of rows) {
    grid.append(element('span', {}, row));
    for (const column of columns) {
      const well = wells.find((each) => each.row === row && each.column === column);
      grid.append(well ? element('button', { title: well.name, onclick: () => chooseField(well.fields[0].path, {}) }) : element('span'));
    }
  }
  byId('wells').replaceChildren(grid);
  makePlate.mark = (path) => {
    const at = wells.find(({ fields }) => fields.some((each) => each.path === path));
    for (const button of grid.querySelectorAll('button')) button.setAttribute('aria-current', button.title === at.name);
    byId('fields').replaceChildren(element('strong', {}, at.name), ...at.fields.map((each) =>
      element('button', { 'aria-current': String(each.path === path), onclick: () => chooseField(each.path, {}) }, each.name)));
  };
}

async function chooseField(path, from) {
  field = path;
  makePlate.mark(path);
  try {
    show(await ask('facts.json', { field }), from);
  } catch (error) {
    told.error(error);
  }
}

function show(facts, from) {
  scene?.dispose();
  told.note(facts.why);
  scene = new Scene(facts, told);
  showPlane = makeAxes(scene);
  toggles = makeLayers(scene);
  finder = new Finder(scene, field);
  byId('name').textContent = facts.name;
  if (!field) document.title = `${facts.name} · seamfree`;
  const [times, planes, height, width] = facts.shape;
  const size = facts.units[3] ? ` (${length(width * facts.pixel[3], facts.units[3])} × ${length(height * facts.pixel[2], facts.units[2])})` : '';
  const more = [[times, 'time points'], [planes, 'planes']].filter(([count]) => count > 1).map(([count, what]) => `, ${count} ${what}`);
  byId('facts').textContent = `${number(width)} × ${number(height)} pixels${size}${more.join('')}; ${facts.objects ? `${facts.objects.told}; ` : ''}${facts.model}`;
  byId('audit').textContent = facts.audit.sentence;
  byId('audit').className = `soft ${facts.audit.kind}`;
  const view = scene.map.getView();
  if (from.x !== undefined) {
    [scene.t, scene.z] = [Number(from.t) || 0, Number(from.z) || 0];
    view.setCenter([Number(from.x), -Number(from.y)]);
    view.setResolution(Number(from.resolution));
  } else {
    view.fit([0, -scene.height, scene.width, 0], { padding: [20, 20, 20, 20] });
  }
  showPlane();
  if (from.object && facts.objects) finder.pick(Number(from.object));
  remember();
  scene.map.on('moveend', () => {
    remember();
    byId('zoom').textContent = `${number(100 / view.getResolution())} %`;
  });
  const busy = (is) => () => byId('stage').setAttribute('aria-busy', is);
  busy(true)();
  scene.map.on('loadstart', busy(true));
  view.on('change', busy(true));
  // While the view moves, each frame is complete in itself.
  scene.map.on('rendercomplete', () => view.getAnimating() || busy(false)());
  scene.map.on('pointermove', ({ coordinate, dragging }) => dragging || point(coordinate));
  scene.map.on('singleclick', async ({ coordinate: [x, y] }) => {
    if (!facts.objects) return;
    const found = await scene.lookAt(-y, x);
    finder.pick(found?.label || null);
  });
}

let pointed = null, looking = false;

/** Tell what is under the pointer; while one place is looked at, only the last one after it counts. */
async function point(coordinate) {
  pointed = coordinate;
  if (looking) return;
  looking = true;
  while (pointed) {
    const [x, y] = [pointed[0], -pointed[1]];
    pointed = null;
    try {
      byId('pointer').textContent = tell(x, y, await scene.lookAt(y, x));
    } catch (error) {
      told.error(error);
    }
  }
  looking = false;
}

function tell(x, y, found) {
  if (!found) return '';
  const { facts } = scene;
  const parts = [`x ${number(Math.floor(x))}, y ${number(Math.floor(y))}`];
  if (facts.units[3]) parts.push(`${length(x * facts.pixel[3], facts.units[3])}, ${length(y * facts.pixel[2], facts.units[2])}`);
  parts.push(...found.values.map(([name, value]) => `${name} ${number(value)}`));
  if (found.kind !== null) parts.push(facts.classes.named[found.kind]?.name ?? `class ${found.kind}`);
  if (found.label) parts.push(`object ${number(found.label)}`);
  return parts.join('   ·   ');
}

const KEYS = [
  ['Arrows', 'move', { ArrowLeft: () => scene.panBy(-1, 0), ArrowRight: () => scene.panBy(1, 0), ArrowUp: () => scene.panBy(0, -1), ArrowDown: () => scene.panBy(0, 1) }],
  ['+ −', 'nearer, farther', { '+': () => scene.zoomBy(1.5), '=': () => scene.zoomBy(1.5), '-': () => scene.zoomBy(1 / 1.5) }],
  ['0', 'all of the image', { 0: () => scene.fit() }],
  ['1', 'one pixel for each pixel', { 1: () => scene.map.getView().animate({ resolution: 1, duration: 150 }) }],
  ['i o c', 'image, objects, classes: show or hide', { i: () => toggles.image?.(), o: () => toggles.objects?.(), c: () => toggles.classes?.() }],
  ['g f', 'grid of tiles, places of the audit', { g: () => toggles.tiles(), f: () => toggles.places?.() }],
  ['n p', 'next and previous of a list', { n: () => finder.step(1), p: () => finder.step(-1) }],
  ['Page up, down', 'plane above, below', { PageUp: () => scene.moveTo(scene.t, scene.z + 1), PageDown: () => scene.moveTo(scene.t, scene.z - 1) }],
  [', .', 'time point before, after', { ',': () => scene.moveTo(scene.t - 1, scene.z), '.': () => scene.moveTo(scene.t + 1, scene.z) }],
  ['/', 'number of an object', { '/': () => byId('goto')?.focus() }],
  ['Escape', 'unmark the object', { Escape: () => finder.pick(null) }],
  ['?', 'this list', { '?': () => byId('help').showModal() }],
];
const bound = Object.assign({}, ...KEYS.map(([, , keys]) => keys));

function pressed(event) {
  const typing = event.target.matches('input[type=text], select');
  if (event.ctrlKey || event.metaKey || event.altKey || byId('help').open || !scene) return;
  if (typing && event.key === 'Escape') byId('map').focus();
  // A slider that has the focus is moved by the arrows itself.
  const slides = event.target.matches('input[type=range]') && /^(Arrow|Page)/.test(event.key);
  if (typing || slides || !Object.hasOwn(bound, event.key)) return;
  event.preventDefault();
  bound[event.key]();
}

document.addEventListener('keydown', pressed);
for (const [keys, what] of KEYS) byId('bindings').append(element('dt', {}, element('kbd', {}, keys)), element('dd', {}, what));
byId('keys').addEventListener('click', bound['?']);
byId('nearer').addEventListener('click', bound['+']);
byId('farther').addEventListener('click', bound['-']);
byId('whole').addEventListener('click', bound[0]);
byId('exact').addEventListener('click', bound[1]);
start().catch(told.error);

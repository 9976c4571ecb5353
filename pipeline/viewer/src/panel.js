// The controls of the layers, and the sliders of time and depth.

import { byId, element, length, number } from './words.js';

const BINS = 128;

/** Make the switches of all layers; gives what keys call. */
export function makeLayers(scene) {
  const box = byId('switches');
  box.replaceChildren();
  const toggles = {};
  const row = (name, key, title, shown, change) => {
    const input = element('input', { type: 'checkbox', checked: shown, id: `show-${name}` });
    input.addEventListener('change', () => change(input.checked));
    toggles[name] = () => input.click();
    box.append(element('label', { className: 'switch' }, input, element('span', {}, title), element('kbd', {}, key)));
  };
  const visible = (name) => (shown) => scene.layers[name].layer.setVisible(shown);
  const { image, classes, objects, findings } = scene.facts;
  if (image) {
    row('image', 'i', 'Image', true, visible('image'));
    for (const channel of scene.channels) box.append(channelControls(scene, channel));
    box.append(slider('Gamma', 0.2, 1, scene.gamma, (value) => { scene.gamma = value; scene.repaint('image'); }));
  }
  if (objects) {
    row('objects', 'o', `Objects (${number(objects.count)})`, true, visible('objects'));
    const outlines = element('input', { type: 'checkbox', checked: scene.outlined, id: 'outlines' });
    outlines.addEventListener('change', () => { scene.outlined = outlines.checked; scene.repaint('objects'); });
    box.append(element('label', { className: 'slide' }, outlines, 'Outlines'));
    box.append(fillSlider(scene, 'objects'));
  }
  if (classes) {
    row('classes', 'c', 'Classes', !objects, visible('classes'));
    const legend = element('div', { className: 'legend' });
    for (const { name, colour } of classes.named) {
      if (!colour) continue;
      const patch = element('i');
      patch.style.background = `rgb(${colour})`;
      legend.append(element('span', {}, patch, name));
    }
    box.append(legend, fillSlider(scene, 'classes'));
  }
  row('tiles', 'g', 'Grid of tiles', scene.showTiles, (shown) => { scene.showTiles = shown; scene.redraw(); });
  if (findings.length) row('places', 'f', 'Places of the audit', true, (shown) => { scene.showPlaces = shown; scene.redraw(); });
  return toggles;
}

function fillSlider(scene, name) {
  return slider('Filled', 0, 1, scene.filled[name], (value) => { scene.filled[name] = value; scene.repaint(name); });
}

function slider(title, min, max, value, change) {
  const input = element('input', { type: 'range', min, max, step: 0.01, value });
  input.addEventListener('input', () => change(Number(input.value)));
  return element('label', { className: 'slide' }, element('span', {}, title), input);
}

/** A channel: shown or not, its colour, and what is black and what white over the histogram of its values. */
function channelControls(scene, channel) {
  const box = element('div', { className: 'channel' });
  const shown = element('input', { type: 'checkbox', checked: channel.shown });
  const colour = element('input', { type: 'color', value: channel.colour, title: 'Colour' });
  const range = element('span', { className: 'soft' });
  const auto = element('button', { title: 'From the 1st to the 99.8th percentile of what is seen from afar' }, 'Auto');
  const histogram = element('canvas', { width: 2 * BINS, height: 40 });
  const low = element('input', { type: 'range', step: 'any', ariaLabel: `Black of ${channel.name}` });
  const high = element('input', { type: 'range', step: 'any', ariaLabel: `White of ${channel.name}` });
  const several = scene.channels.length > 1;
  box.append(
    element('label', { className: 'switch' }, ...(several ? [shown] : []), colour, element('span', {}, channel.name), range, auto),
    element('div', { className: 'window' }, histogram, low, high),
  );
  let sample = null;
  let ends = [0, 1];
  const tell = () => {
    range.textContent = `${number(channel.low)} – ${number(channel.high)}`;
    drawHistogram(histogram, sample, ends, channel);
  };
  const set = (from, to) => {
    channel.low = from;
    channel.high = Math.max(to, from + (ends[1] - ends[0]) * 1e-4);
    low.value = from;
    high.value = to;
    tell();
    scene.repaint('image');
  };
  const percentile = (share) => sample[Math.min(sample.length - 1, Math.floor(sample.length * share))] ?? 0;
  const look = async () => {
    if (sample) return;
    sample = await scene.sample(channel);
    const from = Math.min(sample[0] ?? 0, channel.low ?? Infinity);
    const to = Math.max(sample.at(-1) ?? 1, channel.high ?? -Infinity);
    ends = [from, to > from ? to : from + 1];
    for (const input of [low, high]) [input.min, input.max] = ends;
    set(channel.low ?? percentile(0.01), channel.high ?? percentile(0.998));
  };
  shown.addEventListener('change', async () => {
    channel.shown = shown.checked;
    if (channel.shown) await look();
    scene.reload('image');
  });
  colour.addEventListener('input', () => {
    channel.colour = colour.value;
    channel.rgb = [1, 3, 5].map((at) => parseInt(colour.value.slice(at, at + 2), 16));
    tell();
    scene.repaint('image');
  });
  auto.addEventListener('click', () => sample && set(percentile(0.01), percentile(0.998)));
  low.addEventListener('input', () => set(Math.min(Number(low.value), channel.high), channel.high));
  high.addEventListener('input', () => set(channel.low, Math.max(Number(high.value), channel.low)));
  if (channel.shown) look();
  return box;
}

function drawHistogram(canvas, sample, [from, to], { low, high, colour }) {
  if (!sample) return;
  const counts = new Float64Array(BINS);
  for (const value of sample) counts[Math.min(BINS - 1, Math.floor(((value - from) / (to - from)) * BINS))]++;
  const most = Math.log1p(Math.max(...counts));
  const pen = canvas.getContext('2d');
  const { width, height } = canvas;
  const look = getComputedStyle(document.documentElement);
  pen.clearRect(0, 0, width, height);
  counts.forEach((count, at) => {
    const value = from + ((at + 0.5) * (to - from)) / BINS;
    pen.fillStyle = look.getPropertyValue(value >= low && value <= high ? '--bar' : '--rule');
    const tall = (height * Math.log1p(count)) / most;
    pen.fillRect((at * width) / BINS, height - tall, width / BINS, tall);
  });
  pen.fillStyle = colour === '#ffffff' ? look.getPropertyValue('--ink') : colour;
  pen.fillRect(((low - from) / (to - from)) * width, height - 3, ((high - low) / (to - from)) * width, 3);
}

/** Sliders of time and depth, where there are several; gives what shows the present plane in them. */
export function makeAxes(scene) {
  const box = byId('axes');
  box.replaceChildren();
  const [times, planes] = scene.facts.shape;
  const shows = [];
  const add = (title, count, axis, unit, get, go) => {
    if (count < 2) return;
    const input = element('input', { type: 'range', min: 0, max: count - 1, step: 1, id: `axis-${axis}` });
    const output = element('output');
    input.addEventListener('input', () => go(Number(input.value)));
    shows.push(() => {
      input.value = get();
      const real = unit.sign ? ` · ${length(get() * unit.each, unit.sign)}` : '';
      output.textContent = `${get() + 1} of ${count}${real}`;
    });
    box.append(element('label', {}, title, input, output));
  };
  const { pixel, units } = scene.facts;
  add('Time', times, 't', { each: pixel[0], sign: units[0] }, () => scene.t, (at) => scene.moveTo(at, scene.z));
  add('Z', planes, 'z', { each: pixel[1], sign: units[1] }, () => scene.z, (at) => scene.moveTo(scene.t, at));
  return () => shows.forEach((show) => show());
}

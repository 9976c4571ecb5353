// What is drawn above the pixels: tile grid, places, the picked object's frame, the scale bar.

import { length, niceStep } from './words.js';

const FEWEST_PIXELS = 8; // between lines of the grid; nearer ones would hide the image

/** Draw for the map's present view. */
export function drawOver(canvas, map, scene) {
  const size = map.getSize();
  if (!size) return;
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = size;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext('2d');
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const resolution = map.getView().getResolution();
  const [left, , , top] = map.getView().calculateExtent(size);
  const at = ([y, x]) => [(x - left) / resolution, (y + top) / resolution];
  if (scene.showTiles) drawTiles(pen, scene, at, resolution, size);
  if (scene.showPlaces) drawPlaces(pen, scene, at, size);
  if (scene.frame) drawFrame(pen, scene.frame, at);
  drawBar(pen, scene, resolution, height);
}

function drawTiles(pen, { facts }, at, resolution, [width, height]) {
  const { core, start, counts } = facts.tiles;
  const [, , tall, wide] = facts.shape;
  if (core[2] / resolution < FEWEST_PIXELS || core[3] / resolution < FEWEST_PIXELS) return;
  const [x0, y0] = at([0, 0]);
  const [x1, y1] = at([tall, wide]);
  pen.strokeStyle = '#ffffffb0';
  pen.lineWidth = 1;
  pen.setLineDash([5, 3]);
  pen.beginPath();
  const lines = (from, step, count, origin, span) => {
    const first = Math.max(1, Math.ceil((-origin * resolution - from) / step));
    for (let line = first; line < count; line++) {
      const place = origin + (from + line * step) / resolution;
      if (place > span) break;
      if (place >= 0) yieldLine(place);
    }
  };
  let yieldLine = (x) => { pen.moveTo(Math.round(x) + 0.5, Math.max(y0, 0)); pen.lineTo(Math.round(x) + 0.5, Math.min(y1, height)); };
  lines(start[3], core[3], counts[3], x0, width);
  yieldLine = (y) => { pen.moveTo(Math.max(x0, 0), Math.round(y) + 0.5); pen.lineTo(Math.min(x1, width), Math.round(y) + 0.5); };
  lines(start[2], core[2], counts[2], y0, height);
  pen.stroke();
  pen.setLineDash([]);
}

function drawPlaces(pen, { facts, t, z, place }, at, [width, height]) {
  for (const { kind, places } of facts.findings) {
    for (const each of places) {
      const [time, plane, y, x] = each.at;
      if (Math.floor(time) !== t || Math.floor(plane) !== z) continue;
      const [px, py] = at([y, x]);
      if (px < -20 || py < -20 || px > width + 20 || py > height + 20) continue;
      for (const [colour, wide] of [['#000', 5], [kind === 'bad' ? '#ff8a80' : '#f0c060', 2.5]]) {
        pen.strokeStyle = colour;
        pen.lineWidth = wide;
        pen.beginPath();
        pen.arc(px, py, each === place ? 14 : 9, 0, 7);
        pen.stroke();
      }
    }
  }
}

function drawFrame(pen, [y0, x0, y1, x1], at) {
  const [left, top] = at([y0, x0]);
  const [right, bottom] = at([y1, x1]);
  for (const [colour, wide] of [['#000', 3.5], ['#fff', 1.5]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = wide;
    pen.strokeRect(left - 4, top - 4, right - left + 8, bottom - top + 8);
  }
}

/** A bar of about a quarter of the width that a picture of the report has, too, in the unit that fits. */
function drawBar(pen, { facts }, resolution, height) {
  const unit = facts.units[3];
  const each = unit ? facts.pixel[3] : 1;
  const span = niceStep(150 * resolution * each);
  const wide = span / each / resolution;
  const y = height - 22;
  pen.fillStyle = '#000a';
  pen.fillRect(10, y - 24, Math.max(wide, 60) + 24, 38);
  pen.fillStyle = '#fff';
  pen.fillRect(22, y, wide, 4);
  pen.font = '13px system-ui,sans-serif';
  pen.fillText(length(span, unit), 22, y - 7);
}

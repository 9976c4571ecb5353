// The map of one image: its layers, its view, and what is shown of them.

import OlMap from 'ol/Map.js';
import View from 'ol/View.js';
import Projection from 'ol/proj/Projection.js';
import TileLayer from 'ol/layer/Tile.js';
import OverviewMap from 'ol/control/OverviewMap.js';
import { PaintedLayer, tileGrid } from './layers.js';
import { drawOver } from './over.js';
import { paintImage, paintLabels } from './paint.js';
import { Pyramid } from './pixels.js';
import { byId } from './words.js';

const LEAST_ACROSS = 9; // pixels of an object on the screen, below which it is filled and has no outline
const FINEST = 1 / 32;
const SAMPLES = 256; // points along an edge that contrast is judged by

const rgbOf = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

export class Scene {
  constructor(facts, told) {
    this.facts = facts;
    this.told = told;
    [, , this.height, this.width] = facts.shape;
    this.t = Math.floor(facts.shape[0] / 2);
    this.z = Math.floor(facts.shape[1] / 2);
    this.gamma = 0.5;
    this.picked = null;
    this.frame = null;
    this.place = null;
    this.filled = { objects: 0.25, classes: 0.35 };
    this.outlined = true;
    this.showTiles = false;
    this.showPlaces = true;
    this.channels = (facts.image?.channels ?? []).map(({ name, colour, shown, window }, index) => ({
      index, name, colour, rgb: rgbOf(colour), shown, low: window?.[0], high: window?.[1],
    }));
    this.pyramids = {};
    this.layers = {};
    this.#makeLayers();
    this.#makeMap();
  }

  #makeLayers() {
    const grid = tileGrid(this.width, this.height);
    this.projection = new Projection({ code: 'pixels', units: 'pixels', extent: [0, -this.height, this.width, 0] });
    const add = (name, facts, options) => {
      this.pyramids[name] = new Pyramid(facts);
      this.layers[name] = new PaintedLayer(grid, this.projection, { errors: this.told.error, ...options });
    };
    const { image, classes, objects } = this.facts;
    if (image) {
      add('image', image, {
        read: (ys, xs, resolution) => this.#readImage(ys, xs, resolution),
        paint: (out, read) => paintImage(out, read, this.channels.filter(({ shown }) => shown), this.gamma),
      });
    }
    const labels = (name, facts, style) => add(name, facts, {
      margin: 1,
      read: (ys, xs, resolution) => this.pyramids[name].tile(this.plane, ys, xs, resolution),
      paint: (out, read, size, resolution) => paintLabels(out, read, size, style(resolution)),
    });
    if (classes) {
      const colours = classes.named.map(({ colour }) => colour);
      labels('classes', classes, () => ({ colours, cyclic: false, fill: 255 * this.filled.classes, lines: false }));
      this.layers.classes.layer.setVisible(!objects);
    }
    if (objects) {
      labels('objects', objects, (resolution) => {
        const lines = this.outlined && objects.across * objects.size[3] >= LEAST_ACROSS * resolution;
        return {
          colours: objects.colours, cyclic: true, lines: lines || (this.outlined && !objects.across),
          fill: 255 * (lines || !this.outlined ? this.filled.objects : Math.max(this.filled.objects, 0.45)),
          picked: this.picked,
        };
      });
    }
  }

  async #readImage(ys, xs, resolution) {
    const wanted = this.channels.filter(({ shown }) => shown);
    const read = await Promise.all(
      wanted.map(({ index }) => this.pyramids.image.tile({ ...this.plane, c: index }, ys, xs, resolution)),
    );
    if (read.includes(null)) {
      this.told.note('Zoom in to see the image: it has no coarser levels, and is not read whole.');
      return null;
    }
    this.told.note(null);
    if (!read.length) return null;
    return { rows: read[0].rows, columns: read[0].columns, planes: new Map(wanted.map(({ index }, at) => [index, read[at].values])) };
  }

  #makeMap() {
    const extent = [0, -this.height, this.width, 0];
    const small = Math.max(this.width, this.height) / byId('overview').clientWidth;
    const overview = ['image', 'classes', 'objects'].map((name) => this.layers[name]).find(Boolean);
    this.map = new OlMap({
      target: 'map',
      layers: ['image', 'classes', 'objects'].filter((name) => this.layers[name]).map((name) => this.layers[name].layer),
      controls: [new OverviewMap({
        collapsed: false, collapsible: false, target: 'overview',
        layers: [new TileLayer({ source: overview.source, cacheSize: 16 })],
        // Always the whole, in which a frame moves.
        view: new View({ projection: this.projection, extent, showFullExtent: true, enableRotation: false,
                         center: [this.width / 2, -this.height / 2], resolution: small, minResolution: small, maxResolution: small }),
      })],
      moveTolerance: 3,
      maxTilesLoading: 24,
    });
    this.map.setView(new View({
      projection: this.projection, enableRotation: false, center: [this.width / 2, -this.height / 2],
      maxResolution: Math.max(1, (1.5 * Math.max(this.width, this.height)) / 400), minResolution: FINEST, resolution: 1,
      extent, constrainOnlyCenter: true,
    }));
    this.map.on('precompose', () => this.#each((layer) => layer.refresh(this.seen())));
    this.map.on('postrender', () => drawOver(byId('over'), this.map, this));
  }

  dispose() {
    this.map.setTarget(null);
    this.map.dispose();
  }

  get plane() {
    return { t: this.t, z: this.z };
  }

  seen() {
    return this.map.getView().calculateExtent(this.map.getSize());
  }

  #each(act) {
    Object.values(this.layers).forEach(act);
  }

  /** Paint again what changed by the way it is shown. */
  repaint(...names) {
    for (const name of names.length ? names : Object.keys(this.layers)) this.layers[name]?.repaint(this.seen());
  }

  /** Read again what changed by the pixels that are shown. */
  reload(...names) {
    const key = `${this.t}/${this.z}/${this.channels.filter(({ shown }) => shown).map(({ index }) => index)}`;
    for (const name of names.length ? names : Object.keys(this.layers)) this.layers[name]?.reload(key);
    this.redraw();
  }

  redraw() {
    this.map.render();
  }

  fit() {
    this.map.getView().fit([0, -this.height, this.width, 0], { padding: [20, 20, 20, 20], duration: 200 });
  }

  zoomBy(factor) {
    const view = this.map.getView();
    view.animate({ resolution: view.getConstrainedResolution(view.getResolution() / factor), duration: 150 });
  }

  panBy(right, down) {
    const view = this.map.getView();
    const [x, y] = view.getCenter();
    const step = 0.2 * Math.min(...this.map.getSize()) * view.getResolution();
    view.animate({ center: [x + right * step, y - down * step], duration: 120 });
  }

  /** Show a point, and so much around it. */
  goTo([t, z, y, x], across) {
    this.moveTo(t, z);
    const view = this.map.getView();
    const resolution = Math.max(across / Math.min(...this.map.getSize()), FINEST);
    view.animate({ center: [x, -y], resolution, duration: 250 });
  }

  /** Show another plane; says whether it is another one. */
  moveTo(t, z) {
    const [times, planes] = this.facts.shape;
    const to = [Math.min(Math.max(Math.floor(t), 0), times - 1), Math.min(Math.max(Math.floor(z), 0), planes - 1)];
    if (to[0] === this.t && to[1] === this.z) return;
    [this.t, this.z] = to;
    this.reload();
    this.told.moved();
  }

  /** What lies under a point: the values of the channels that are shown, class and object, at full resolution. */
  async lookAt(y, x) {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return null;
    const value = (name, c) => this.pyramids[name]?.value({ ...this.plane, c }, y, x) ?? null;
    const shown = this.layers.image?.layer.getVisible() ? this.channels.filter((each) => each.shown) : [];
    const [kind, label, ...values] = await Promise.all([
      value('classes'), value('objects'), ...shown.map(({ index }) => value('image', index)),
    ]);
    return { kind, label, values: shown.map(({ name }, at) => [name, values[at]]) };
  }

  /** Values of a channel all over the plane, or in its middle where it can only be read finely; sorted. */
  async sample(channel) {
    const points = (length) => Array.from({ length: SAMPLES }, (_, at) => ((at + 0.5) * length) / SAMPLES);
    const near = (length) => points(length).map((_, at) => Math.max(0, length / 2 - SAMPLES / 2) + at + 0.5);
    const plane = { ...this.plane, c: channel.index };
    const step = Math.max(this.width, this.height) / SAMPLES;
    const read = (await this.pyramids.image.tile(plane, points(this.height), points(this.width), step)) ??
      (await this.pyramids.image.tile(plane, near(this.height), near(this.width), 1));
    return Float64Array.from(read.values).filter(Number.isFinite).sort();
  }
}

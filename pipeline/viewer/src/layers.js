// Layers of the map: each tile is a canvas that is painted again where it lies when contrast or colours change.

import TileLayer from 'ol/layer/Tile.js';
import ImageTile from 'ol/source/ImageTile.js';
import TileGrid from 'ol/tilegrid/TileGrid.js';

const TILE = 256;
const FINEST = 5; // halvings of a pixel: outlines stay thin where pixels are large
const KEPT = 192; // tiles of a layer

/** Tiles from the whole image on to parts of a pixel; y counts downwards, as map coordinates do upwards. */
export function tileGrid(width, height) {
  const coarsest = Math.max(0, Math.ceil(Math.log2(Math.max(width, height) / TILE)));
  const resolutions = [];
  for (let level = coarsest; level >= -FINEST; level--) resolutions.push(2 ** level);
  return new TileGrid({ extent: [0, -height, width, 0], origin: [0, 0], resolutions, tileSize: TILE });
}

/** A layer whose tiles are read by `read(points, resolution)` and painted by `paint(pixels, read, size)`. */
export class PaintedLayer {
  #tiles = new Set();
  #version = 0;
  #errors;

  constructor(grid, projection, { read, paint, margin = 0, errors }) {
    this.read = read;
    this.paint = paint;
    this.margin = margin;
    this.#errors = errors;
    this.grid = grid;
    this.source = new ImageTile({
      loader: (z, x, y) => this.#load(z, x, y), tileGrid: grid, projection, wrapX: false, interpolate: true,
      transition: 0, tileSize: TILE,
    });
    this.layer = new TileLayer({ source: this.source, cacheSize: KEPT });
  }

  async #load(z, x, y) {
    const resolution = this.grid.getResolution(z);
    const points = (tile) =>
      Array.from({ length: TILE + 2 * this.margin }, (_, at) => (tile * TILE + at - this.margin + 0.5) * resolution);
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = TILE;
    const tile = { canvas, resolution, extent: this.grid.getTileCoordExtent([z, x, y]), version: -1, read: null };
    try {
      tile.read = await this.read(points(y), points(x), resolution);
    } catch (error) {
      this.#errors(error);
      throw error;
    }
    this.#paint(tile);
    this.#tiles.add(new WeakRef(tile));
    canvas.tile = tile; // lives as long as its canvas
    return canvas;
  }

  #paint(tile) {
    tile.version = this.#version;
    const image = new ImageData(TILE, TILE);
    if (tile.read) this.paint(image.data, tile.read, TILE, tile.resolution);
    tile.canvas.getContext('2d').putImageData(image, 0, 0);
  }

  /** Paint again what is seen, and later what comes to be seen. */
  repaint(extent) {
    this.#version++;
    this.refresh(extent);
    this.layer.changed();
  }

  /** Paint what was painted in an earlier way and is seen. */
  refresh([left, bottom, right, top]) {
    for (const held of this.#tiles) {
      const tile = held.deref();
      if (!tile) {
        this.#tiles.delete(held);
        continue;
      }
      const [l, b, r, t] = tile.extent;
      if (tile.version !== this.#version && l < right && r > left && b < top && t > bottom) this.#paint(tile);
    }
  }

  /** Read everything anew: another plane, or other channels. What was shown stays until then. */
  reload(key) {
    this.source.setKey(key);
  }
}

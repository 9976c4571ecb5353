// Arrays of a pyramid, and the pixels of them that are seen: whole chunks, each read and decoded once while it is kept.

import { FetchStore, open, registry, root } from 'zarrita';
import { decompress } from 'fzstd';
import { decodeBlosc } from './blosc.js';

// What results are packed with. Images of others are unpacked by the server.
const codec = (decode) => () => ({ fromConfig: () => ({ kind: 'bytes_to_bytes', decode }) });
registry.set('zstd', codec((bytes) => decompress(bytes)));
registry.set('numcodecs.blosc', codec(decodeBlosc));

const KEPT_BYTES = 256 * 2 ** 20;

const MOST_CHUNKS = 64; // of one tile: a pyramid that ends too early is not read whole to be seen from afar

/** Decoded chunks, the ones used last; of equals in flight, one is read. */
class Chunks {
  #held = new Map();
  #bytes = 0;

  get(key, read) {
    let entry = this.#held.get(key);
    if (entry) {
      this.#held.delete(key);
    } else {
      entry = { bytes: 0, chunk: read() };
      entry.chunk.then(
        (chunk) => {
          entry.bytes = chunk.data.byteLength ?? chunk.data.length;
          this.#bytes += entry.bytes;
          this.#shrink();
        },
        () => this.#held.delete(key),
      );
    }
    this.#held.set(key, entry);
    return entry.chunk;
  }

  #shrink() {
    for (const [key, entry] of this.#held) {
      if (this.#bytes <= KEPT_BYTES) return;
      if (entry.bytes) {
        this.#held.delete(key);
        this.#bytes -= entry.bytes;
      }
    }
  }
}

const chunks = new Chunks();

/** A pyramid, addressed in pixels of the image at full resolution, by T, C, Z, Y and X. */
export class Pyramid {
  /** @param facts axes, levels, start of the first pixel's edge, and size of its pixels, in pixels of the image. */
  constructor(facts) {
    this.axes = facts.axes;
    this.levels = facts.levels;
    const five = (values, without) => (values.length === 4 ? [values[0], without, ...values.slice(1)] : values);
    this.start = five(facts.start, 0);
    this.size = five(facts.size ?? [1, 1, 1, 1], 1);
    this.arrays = facts.levels.map(() => null);
  }

  #open(level) {
    const { path, zarr } = this.levels[level];
    const store = new FetchStore(new URL(path, document.baseURI), { useSuffixRequest: true });
    this.arrays[level] ??= (zarr === 2 ? open.v2 : open.v3)(root(store), { kind: 'array', attrs: false });
    return this.arrays[level];
  }

  /** Edge of a level's pixels, in pixels of the image. */
  edge(level, axis) {
    const at = this.axes.indexOf(axis);
    return this.size['TCZYX'.indexOf(axis)] * (at < 0 ? 1 : this.levels[level].scale[at]);
  }

  length(level, axis) {
    const at = this.axes.indexOf(axis);
    return at < 0 ? 1 : this.levels[level].shape[at];
  }

  /** The coarsest level that is as fine as is wanted. */
  levelFor(resolution) {
    let found = 0;
    for (let level = 1; level < this.levels.length; level++) {
      if (this.edge(level, 'X') <= resolution * 1.01) found = level;
    }
    return found;
  }

  /** Number of a level's pixel in which a point of the image lies. */
  index(level, axis, at) {
    return Math.floor((at - this.start['TCZYX'.indexOf(axis)]) / this.edge(level, axis) + 1e-6);
  }

  /**
   * Read a tile of a plane: the pixels at points of the image.
   * @returns {values, inside} or null where too much would have to be read for it
   */
  async tile(plane, ys, xs, resolution) {
    const level = this.levelFor(resolution);
    const array = await this.#open(level);
    const at = { T: plane.t + 0.5, C: plane.c ?? 0, Z: plane.z + 0.5 };
    const lengthY = this.length(level, 'Y');
    const lengthX = this.length(level, 'X');
    const rows = ys.map((y) => this.index(level, 'Y', y));
    const columns = xs.map((x) => this.index(level, 'X', x));
    const pieces = (indices, axis, length) => {
      const edge = array.chunks[this.axes.indexOf(axis)];
      const found = new Map();
      indices.forEach((index, place) => {
        if (index < 0 || index >= length) return;
        const number = Math.floor(index / edge);
        if (!found.has(number)) found.set(number, []);
        found.get(number).push([place, index - number * edge]);
      });
      return [...found];
    };
    const down = pieces(rows, 'Y', lengthY);
    const along = pieces(columns, 'X', lengthX);
    if (down.length * along.length > MOST_CHUNKS) return null;
    let values = null;
    await Promise.all(
      down.flatMap(([numberY, inY]) =>
        along.map(async ([numberX, inX]) => {
          const chosen = { Y: numberY, X: numberX };
          const coordinates = [...this.axes].map((axis, dimension) => {
            if (axis in chosen) return chosen[axis];
            const index = axis === 'C' ? at.C : this.#within(level, axis, at[axis]);
            return Math.floor(index / array.chunks[dimension]);
          });
          const chunk = await this.#chunk(level, array, coordinates);
          let offset = 0;
          [...this.axes].forEach((axis, dimension) => {
            if (axis in chosen) return;
            const index = axis === 'C' ? at.C : this.#within(level, axis, at[axis]);
            offset += (index % array.chunks[dimension]) * chunk.stride[dimension];
          });
          const strideY = chunk.stride[this.axes.indexOf('Y')];
          const strideX = chunk.stride[this.axes.indexOf('X')];
          values ??= new chunk.data.constructor(rows.length * columns.length);
          for (const [row, y] of inY) {
            const from = offset + y * strideY;
            const to = row * columns.length;
            for (const [column, x] of inX) values[to + column] = chunk.data[from + x * strideX];
          }
        }),
      ),
    );
    const inside = (indices, length) => indices.map((index) => index >= 0 && index < length);
    return { values: values ?? new Uint8Array(rows.length * columns.length), rows: inside(rows, lengthY),
             columns: inside(columns, lengthX) };
  }

  #within(level, axis, at) {
    return Math.min(Math.max(this.index(level, axis, at), 0), this.length(level, axis) - 1);
  }

  #chunk(level, array, coordinates) {
    const key = `${this.levels[level].path}:${coordinates}`;
    return chunks.get(key, async () => {
      const chunk = await array.getChunk(coordinates);
      // Of 64 bits: no other number has them exactly, but none that large is looked at.
      const wide = chunk.data instanceof BigUint64Array || chunk.data instanceof BigInt64Array;
      const plain = typeof chunk.data.get === 'function';
      if (!wide && !plain) return chunk;
      const data = Float64Array.from({ length: chunk.data.length }, (_, i) =>
        Number(plain ? chunk.data.get(i) : chunk.data[i]));
      return { ...chunk, data };
    });
  }

  /** The value of one pixel at full resolution; null outside. */
  async value(plane, y, x) {
    const found = await this.tile(plane, [y], [x], 0);
    return found && found.rows[0] && found.columns[0] ? found.values[0] : null;
  }
}

// From pixels to colours. Object and class have the colour that their number has in the report, at all levels.

const STEPS = 4096;

/** Look-up of brightness; 1 is linear, 0.5 the square root that lets dim objects be seen. */
function curve(gamma) {
  return Float32Array.from({ length: STEPS }, (_, at) => (at / (STEPS - 1)) ** gamma);
}

/** Paint channels, added up in their colours. */
export function paintImage(out, tile, channels, gamma) {
  const { rows, columns, planes } = tile;
  const bright = curve(gamma);
  for (const { index, low, high, rgb } of channels) {
    const values = planes.get(index);
    if (!values) continue;
    const by = (STEPS - 1) / Math.max(high - low, 1e-12);
    const [red, green, blue] = rgb;
    for (let i = 0, o = 0; i < values.length; i++, o += 4) {
      const step = (values[i] - low) * by;
      if (!(step > 0)) continue;
      const value = bright[step < STEPS - 1 ? (step + 0.5) | 0 : STEPS - 1];
      out[o] += value * red;
      out[o + 1] += value * green;
      out[o + 2] += value * blue;
    }
  }
  const width = columns.length;
  for (let row = 0; row < rows.length; row++) {
    for (let column = 0; column < width; column++) {
      if (rows[row] && columns[column]) out[4 * (row * width + column) + 3] = 255;
    }
  }
}

/**
 * Paint labels of a tile that has a margin of one pixel, so that outlines do not depend on tiles.
 * @param style colours by number, cyclic or from 1 on; alpha of what is filled; whether lines are drawn; who is picked
 */
export function paintLabels(out, tile, width, style) {
  const { values } = tile;
  const wide = tile.columns.length;
  const { colours, cyclic, fill, lines, picked } = style;
  for (let row = 0; row < out.length / 4 / width; row++) {
    for (let column = 0; column < width; column++) {
      const at = (row + 1) * wide + column + 1;
      const label = values[at];
      if (!label) continue;
      const colour = cyclic ? colours[label % colours.length] : colours[label];
      if (!colour) continue;
      const edge = values[at - 1] !== label || values[at + 1] !== label || values[at - wide] !== label ||
        values[at + wide] !== label;
      const chosen = label === picked;
      const o = 4 * (row * width + column);
      const line = edge && (lines || chosen);
      out[o] = chosen && edge ? 255 : colour[0];
      out[o + 1] = chosen && edge ? 255 : colour[1];
      out[o + 2] = chosen && edge ? 255 : colour[2];
      out[o + 3] = line ? 255 : chosen ? Math.max(fill, 140) : fill;
    }
  }
}

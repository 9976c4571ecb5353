// Blosc 1, as results in OME-Zarr 0.4 have it: zstd, with the bytes of numbers shuffled. Written for its being small:
// what the registry has of it is 600 kB, and makes functions from texts, which the page's policy forbids.

import { decompress } from 'fzstd';

const HEADER = 16;
const SHUFFLED = 1, STORED = 2, BITS_SHUFFLED = 4, NOT_SPLIT = 16, ZSTD = 4;

/** Decode a chunk. */
export function decodeBlosc(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [flags, width] = [bytes[2], bytes[3]];
  const [size, blockSize] = [view.getUint32(4, true), view.getUint32(8, true)];
  if (flags & STORED) return bytes.slice(HEADER, HEADER + size);
  if (flags >> 5 !== ZSTD || flags & BITS_SHUFFLED) throw new Error('Blosc with something else than zstd and byte shuffling');
  const out = new Uint8Array(size);
  for (let block = 0; block * blockSize < size; block++) {
    const length = Math.min(blockSize, size - block * blockSize);
    // Each byte of the numbers was a stream of its own, but in a last block that is shorter.
    const split = !(flags & NOT_SPLIT) && length === blockSize && width <= 16 && blockSize / width >= 128;
    const streams = split ? width : 1;
    const whole = new Uint8Array(length);
    let at = view.getUint32(HEADER + 4 * block, true);
    for (let stream = 0; stream < streams; stream++) {
      const packed = view.getUint32(at, true);
      const content = bytes.subarray(at + 4, at + 4 + packed);
      whole.set(packed === length / streams ? content : decompress(content), (stream * length) / streams);
      at += 4 + packed;
    }
    unshuffle(whole, flags & SHUFFLED ? width : 1, out.subarray(block * blockSize));
  }
  return out;
}

function unshuffle(bytes, width, out) {
  const count = Math.floor(bytes.length / width);
  for (let byte = 0; byte < width; byte++) {
    for (let at = 0; at < count; at++) out[at * width + byte] = bytes[byte * count + at];
  }
  out.set(bytes.subarray(count * width), count * width);
}

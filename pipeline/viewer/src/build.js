// Builds what is in ../static beside the page and its style: one bundle, and the licences of what that contains.

import { build } from 'esbuild';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';

const here = new URL('.', import.meta.url).pathname;
const target = `${here}../static/`;

const sources = readdirSync(here).filter((name) => /\.(js|json)$/.test(name)).sort();
const digest = createHash('sha256');
for (const name of sources) digest.update(`${name}\0`).update(readFileSync(here + name));

const result = await build({
  absWorkingDir: here,
  entryPoints: ['viewer.js'],
  outdir: target,
  bundle: true,
  format: 'esm',
  target: 'es2022',
  minify: true,
  legalComments: 'none',
  metafile: true,
  // Codecs of data that no result has.
  external: ['numcodecs/blosc', 'numcodecs/lz4', 'numcodecs/zstd'],
  banner: { js: `/* seamfree ${digest.digest('hex')}; the licences are in licences.txt */` },
});

const packages = new Set();
for (const { inputs } of Object.values(result.metafile.outputs)) {
  for (const [path, { bytesInOutput }] of Object.entries(inputs)) {
    const found = path.match(/.*node_modules\/((?:@[^/]+\/)?[^/]+)/);
    if (found && bytesInOutput) packages.add(found[0]);
  }
}
const texts = [...packages].sort().map((folder) => {
  const { name, version, license } = JSON.parse(readFileSync(`${here}${folder}/package.json`));
  const file = readdirSync(here + folder).find((each) => /^licen[cs]e/i.test(each));
  const text = file && existsSync(`${here}${folder}/${file}`) ? readFileSync(`${here}${folder}/${file}`, 'utf8').trim() : '';
  return `${name} ${version}, ${license}\n\n${text}\n`;
});
writeFileSync(`${target}licences.txt`, `What the viewer contains of others, and their terms.\n\n${texts.join(`\n${'-'.repeat(80)}\n\n`)}`);

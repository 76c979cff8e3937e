#!/usr/bin/env node
// put.js SHARD KEY VAL - from now on KEY has the one value VAL, whatever it had before and whoever else puts.
//
// This is the loop of a writer whose rows depend on those that are there: read the upper, read the rows, append at
// that upper, and begin anew if somebody else was faster. KEY and VAL are given as rows have them, escapes and all.
'use strict';
const fs = require('fs');
const os = require('os');

function put(shard, key, val) {
  for (;;) {
    // The upper first: when somebody commits before the snapshot is opened, the append is refused.
    const upper = BigInt(fs.readFileSync(`${shard}/upper`, 'utf8')); // times have 64 bits, a Number 53
    // latin1 keeps every byte as it is, also of what is not UTF-8.
    const rows = fs.readFileSync(`${shard}/snapshot`, 'latin1').split('\n').slice(0, -1)
      .map((row) => row.split('\t'))
      .filter(([, , k]) => k === key)
      .map(([, diff, k, v]) => `${upper}\t${-BigInt(diff)}\t${k}\t${v}\n`);
    rows.push(`${upper}\t1\t${key}\t${val}\n`);
    try {
      fs.writeFileSync(`${shard}/append`,
        `begin expected_upper=${upper} new_upper=${upper + 1n}\n${rows.join('')}commit\n`, 'latin1');
      return;
    } catch (e) {
      // By number: e.code is 'UNKNOWN' here, Node has no name for this errno.
      if (e.errno !== -os.constants.errno.ESTALE) throw e;
    }
  }
}

const [shard, ...words] = process.argv.slice(2);
put(shard, ...words.map((word) => Buffer.from(word).toString('latin1')));

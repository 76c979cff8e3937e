#!/usr/bin/env node
// append.js SHARD EXPECTED_UPPER NEW_UPPER [ROWS] - commit the rows of a file, or of stdin, as one transaction.
//
// Exit status: 0 it is committed; 75 the upper was another one, nothing was changed; 1 all else. The verdict of
// the shard is on stderr when it is not 0.
'use strict';
const { createReadStream } = require('fs');
const { open } = require('fs/promises');

// If the rows cannot be read to their end this throws, and commit is never reached.
async function* transaction(expectedUpper, newUpper, rows) {
  yield `begin expected_upper=${expectedUpper} new_upper=${newUpper}\n`;
  yield* rows === undefined ? process.stdin : createReadStream(rows);
  yield 'commit\n';
}

// The verdict: it begins with "ok " if, and only if, all of the rows were committed.
async function append(shard, expectedUpper, newUpper, rows) {
  // For reading too: the descriptor that takes a transaction gives the verdict on it.
  const file = await open(`${shard}/append`, 'r+');
  try {
    // writeFile goes on after short counts, as file.write() does not.
    const failure = await file.writeFile(transaction(expectedUpper, newUpper, rows)).catch((e) => e);
    const { buffer, bytesRead } = await file.read();
    const verdict = buffer.toString('utf8', 0, bytesRead).trimEnd();
    if (failure && !verdict.startsWith('error ')) return String(failure);
    // No failure is no proof: when the last row lacks its newline, the word commit belongs to that row.
    return verdict || 'not committed: is the last row whole?';
  } finally {
    await file.close();
  }
}

async function main([shard, expectedUpper, newUpper, rows]) {
  const verdict = await append(shard, expectedUpper, newUpper, rows);
  if (verdict.startsWith('ok ')) return 0;
  console.error(`append.js: ${verdict}`);
  return /^error \w+ errno=ESTALE /.test(verdict) ? 75 : 1;
}

main(process.argv.slice(2)).then((status) => { process.exitCode = status; });

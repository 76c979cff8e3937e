#!/usr/bin/env node
// follow.js SHARD [FROM [SEEN]] - print the updates of a shard as they are committed, from the frontier FROM on.
//
// FROM is `now` if it is not given. SEEN is a file that keeps the upper of what was printed; when it is there already,
// it says where to go on. Exit status: 0 the shard is finished; else it cannot be followed, and stderr says why.
'use strict';
const fs = require('fs');
const os = require('os');
const readline = require('readline');

function follow(shard, from = 'now', seen = undefined) {
  if (seen && fs.existsSync(seen)) from = fs.readFileSync(seen, 'utf8').trim();
  let upper;
  let rows = [];
  // latin1 keeps every byte as it is, and has no line separators but \n.
  const input = fs.createReadStream(`${shard}/listen/${from}`, 'latin1');
  const lines = readline.createInterface({ input });
  lines.on('error', (e) => {
    process.exitCode = 1;
    console.error(`follow.js: ${e.message}`);
    // By number: Node 18 has no name for this errno. FROM is not above since.
    if (e.errno === -os.constants.errno.ENODATA) console.error('since is', fs.readFileSync(`${shard}/since`, 'utf8'));
  });
  lines.on('line', (line) => {
    if (line.startsWith('begin ')) {
      upper = / upper=(\S+)/.exec(line)[1];
      rows = [];
    } else if (line !== 'commit') {
      rows.push(`${line}\n`); // until the commit line the transaction may break off
    } else {
      const next = upper;
      process.stdout.write(rows.join(''), 'latin1', (e) => {
        if (e || !seen) return; // e comes as an `error` event too, which nobody listens to
        // Behind the rows: whoever dies in between prints this transaction again, and loses none.
        fs.writeFileSync(`${seen}.new`, `${next}\n`);
        fs.renameSync(`${seen}.new`, seen);
      });
    }
  });
}

// A read that waits has one of Node's four threads for files, and process.exit() waits for it: till the next commit.
// A signal does not, so a process that has to end earlier kills itself. Node does nothing else at SIGTERM and SIGINT,
// if they have no listener; one that has to tidy up first is made by process.once() and ends with process.kill().
process.on('uncaughtException', (e) => {
  fs.writeSync(2, `follow.js: ${e.stack}\n`);
  process.kill(process.pid, 'SIGKILL');
});
follow(...process.argv.slice(2));

"use strict";
// Runs before every npm script that needs Node 26, on whatever Node the machine has: plain CommonJS, no new syntax.
var major = parseInt(process.versions.node, 10);
if (major < 26) {
  process.stderr.write(
    "edgesync: Node 26 or later is needed and this is " +
      process.version +
      "; run `npm ci` without --omit=optional (it brings Node 26 for linux x64 and arm64) or install Node 26 yourself.\n",
  );
  process.exit(78);
}

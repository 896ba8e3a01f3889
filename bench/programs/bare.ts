/** The least that a Node process which answers probes can be. */
import { createServer } from "node:http";

createServer((_, response) => response.end("ok\n")).listen(Number(process.env["EDGESYNC_PORT"]));

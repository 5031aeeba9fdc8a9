// ws, on node.

import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";

import { announce, cert, deflate, deflateBytesMin, isBroadcast, key, load, messageBytesMax } from "./arguments.mjs";

const { WebSocketServer } = load();
const server = cert ? https.createServer({ cert: readFileSync(cert), key: readFileSync(key) }) : http.createServer();
const sockets = new WebSocketServer({
  server,
  maxPayload: messageBytesMax,
  perMessageDeflate: deflate && { threshold: deflateBytesMin, serverMaxWindowBits: 12, zlibDeflateOptions: { level: 1 } },
});

sockets.on("connection", (socket) => {
  // A peer that resets the connection is no reason to end.
  socket.on("error", () => {});
  socket.on("message", (data, binary) => {
    if (!isBroadcast) {
      socket.send(data, { binary });
      return;
    }
    for (const member of sockets.clients) {
      member.send(data, { binary });
    }
  });
});

server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () => announce(server.address().port));

// Bun's own server.

import { announce, cert, deflate, deflateBytesMin, isBroadcast, key, messageBytesMax } from "./arguments.mjs";

const size = (message) => (typeof message === "string" ? message.length : message.byteLength);
const compresses = (message) => deflate && size(message) >= deflateBytesMin;

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  tls: cert && { cert: Bun.file(cert), key: Bun.file(key) },
  fetch: (request, server) => (server.upgrade(request) ? undefined : new Response("a WebSocket is wanted", { status: 426 })),
  websocket: {
    maxPayloadLength: messageBytesMax,
    backpressureLimit: 64 << 20,
    idleTimeout: 0,
    sendPings: false,
    perMessageDeflate: deflate && { compress: "4KB", decompress: "4KB" },
    open: (socket) => {
      if (isBroadcast) {
        socket.subscribe("all");
      }
    },
    message: (socket, message) => {
      if (isBroadcast) {
        server.publish("all", message, compresses(message));
      } else {
        socket.send(message, compresses(message));
      }
    },
  },
});

announce(server.port);

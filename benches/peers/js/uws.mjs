// uWebSockets.js, on node.

import { announce, cert, deflate, isBroadcast, key, load, messageBytesMax } from "./arguments.mjs";

const uWS = load();
const app = cert ? uWS.SSLApp({ cert_file_name: cert, key_file_name: key }) : uWS.App();

app.ws("/*", {
  maxPayloadLength: messageBytesMax,
  maxBackpressure: 64 << 20,
  idleTimeout: 0,
  compression: deflate ? uWS.DEDICATED_COMPRESSOR_4KB | uWS.DEDICATED_DECOMPRESSOR_4KB : uWS.DISABLED,
  open: (socket) => {
    if (isBroadcast) {
      socket.subscribe("all");
    }
  },
  message: (socket, message, isBinary) => {
    if (isBroadcast) {
      app.publish("all", message, isBinary, deflate);
    } else {
      socket.send(message, isBinary, deflate);
    }
  },
});

app.listen("127.0.0.1", 0, (listening) => {
  if (!listening) {
    throw new Error("cannot listen");
  }
  announce(uWS.us_socket_local_port(listening));
});

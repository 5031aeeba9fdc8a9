//! Sans-IO WebSocket and HTTP/1.1: no descriptor, clock, ring or hub.

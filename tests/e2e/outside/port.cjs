// Preloaded into a Node sample whose port is written into it: it listens on $PORT instead, and only on loopback.
const net = require("net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  const callback = rest.find((argument) => typeof argument === "function");
  return listen.call(this, Number(process.env.PORT), "127.0.0.1", callback);
};

// A bot for eslbot, with `npm install ws`: greets, can be interrupted, takes a key, and hands over.
"use strict";

const fs = require("node:fs");
const { WebSocketServer } = require("ws");

const GROUPS = { 1: "sales", 2: "support" };
const GREETING = process.env.GREETING ? fs.readFileSync(process.env.GREETING) : null;
const LOUD = 500, ENOUGH = 5, QUIET = 20; // RMS of 20 ms; so many loud ones are speech, so many quiet ones end it

function tone(hertz, seconds, rate) {
  const samples = Buffer.alloc(2 * Math.round(rate * seconds));
  for (let n = 0; n < samples.length / 2; n++)
    samples.writeInt16LE(Math.trunc(8000 * Math.sin((2 * Math.PI * hertz * n) / rate)), 2 * n);
  return samples;
}

// What has to outlive a connection.
class Conversation {
  rate = 8000;
  greeting = "not heard";
  unheard = []; // marks that have not come back
  end = null;
  loud = 0;
  quiet = 0;

  attach(socket) {
    this.socket = socket;
    this.held = false;
  }

  send(type, fields = {}) {
    this.socket.send(JSON.stringify({ type, ...fields }));
  }

  // Speech, and a mark that tells when it was heard.
  say(name, speech) {
    if (speech.subarray(0, 4).toString() === "RIFF")
      this.send("streamAudio", { data: { audioDataType: "wav", audioData: speech.toString("base64") } });
    else this.socket.send(speech, { binary: true });
    this.unheard.push(name);
    this.send("mark", { name });
  }

  // What another connection has to be told; speech is not repeated.
  sayAgain() {
    for (const name of this.unheard) this.send("mark", { name });
    if (this.end) this.send("end", this.end);
  }

  // Whether the caller has begun to speak in this very frame.
  begins(frame) {
    let energy = 0;
    for (let at = 0; at + 1 < frame.length; at += 2) energy += frame.readInt16LE(at) ** 2;
    if (Math.sqrt(energy / (frame.length / 2)) >= LOUD) {
      this.quiet = 0;
      return ++this.loud === ENOUGH;
    }
    this.quiet++;
    if (this.loud < ENOUGH || this.quiet >= QUIET) this.loud = 0;
    return false;
  }

  heard(frame) {
    if (this.held || !this.begins(frame) || !this.unheard.length || this.end) return;
    this.send("clear"); // barge-in
    this.say("yes", tone(550, 0.3, this.rate));
  }

  told(message) {
    switch (message.type) {
      case "start":
        this.rate = message.audio.sample_rate;
        if (message.resumed) this.sayAgain(); // the call is not new: it was greeted
        else this.say("greeted", GREETING ?? tone(440, 3.0, this.rate));
        break;
      case "mark":
        if (!this.unheard.includes(message.name)) break;
        this.unheard.splice(this.unheard.indexOf(message.name), 1);
        if (message.name === "greeted") this.greeting = message.cleared ? "interrupted" : "heard";
        break;
      case "hold":
        this.held = message.on;
        break;
      case "dtmf": {
        if (this.end) break;
        this.send("clear");
        this.say("good-bye", tone(660, 0.4, this.rate));
        const summary = `pressed ${message.digit}, greeting ${this.greeting}`;
        const properties = { agent_group: GROUPS[message.digit] ?? "general", summary };
        this.end = { properties, reason: "key pressed" };
        this.send("end", this.end);
        break;
      }
      case "stop":
      case "error":
        console.log(JSON.stringify(message));
    }
  }
}

const conversations = new Map(); // by X-Call-ID: all connections of a call have to come here
const port = Number(process.env.PORT ?? 9000);
const server = new WebSocketServer({ host: "127.0.0.1", port, perMessageDeflate: false, maxPayload: 1 << 18 });

server.on("connection", (socket, request) => {
  const id = request.headers["x-call-id"];
  const conversation = conversations.get(id) ?? new Conversation();
  conversations.set(id, conversation);
  conversation.attach(socket);
  socket.on("message", (data, isBinary) => {
    try {
      if (isBinary) conversation.heard(data);
      else conversation.told(JSON.parse(data));
    } catch (error) {
      console.error(error);
      socket.close(1011, "the bot has failed"); // a human takes over; close() without a code is 1005
    }
  });
  socket.on("error", (error) => console.error(error.message));
  socket.on("close", () => {
    const forget = () => conversation.socket === socket && conversations.delete(id);
    setTimeout(forget, 30_000).unref(); // another connection comes within seconds, or none
  });
});

process.on("SIGTERM", () => server.close()); // calls that are up go on

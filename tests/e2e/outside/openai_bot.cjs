// A bot on OpenAI's Twilio transport (@openai/agents-extensions, as published), with a model of a few lines in the
// place of OpenAI's, on loopback. Runs in a folder that has @openai/agents, @openai/agents-extensions and ws; the
// port is $PORT. When the caller is there it says 440 Hz for 600 ms, then five seconds of it, in which it is
// interrupted by the model's finding that the caller speaks; says 880 Hz for 400 ms, and closes without a code when
// that has been heard. (What it says before it has had `start`, this transport cannot interrupt: it forgets it there.)
const here = (name) => require(require.resolve(name, { paths: [process.cwd()] }));
const { WebSocketServer } = here("ws");
const { TwilioRealtimeTransportLayer } = here("@openai/agents-extensions");

const say = (text) => process.stdout.write(`${text}\n`);

function mulaw(sample) {
  const sign = sample < 0 ? 0x80 : 0;
  const value = Math.min(Math.abs(sample), 32635) + 0x84;
  const exponent = Math.floor(Math.log2(value)) - 7;
  return ~(sign | (exponent << 4) | ((value >> (exponent + 3)) & 0x0f)) & 0xff;
}

function tone(frequency, milliseconds) {
  const bytes = Buffer.alloc(milliseconds * 8);
  for (let n = 0; n < bytes.length; n++)
    bytes[n] = mulaw(Math.round(8000 * Math.sin((2 * Math.PI * frequency * n) / 8000)));
  return bytes.toString("base64");
}

// The model: an utterance is one response with one item and one delta.
const model = new WebSocketServer({ port: 0, host: "127.0.0.1" });
model.on("connection", (socket) => {
  let heard = 0, number = 0;
  const send = (event) => socket.send(JSON.stringify({ event_id: "e", ...event }));
  const utter = (frequency, milliseconds) => {
    const response_id = `r${++number}`, item_id = `i${number}`;
    const about = { response_id, item_id, output_index: 0, content_index: 0 };
    send({ type: "response.created", response: { id: response_id } });
    send({ type: "response.output_audio.delta", ...about, delta: tone(frequency, milliseconds) });
    send({ type: "response.output_audio.done", ...about });
    send({ type: "response.done", response: { id: response_id, output: [] } });
  };
  socket.on("message", (text) => {
    const event = JSON.parse(text.toString());
    if (event.type === "input_audio_buffer.append") {
      const before = heard;
      if (before === 0) {
        utter(440, 600);
        utter(440, 5000);
      }
      heard += Buffer.from(event.audio, "base64").length;
      if (before < 8 * 1000 && heard >= 8 * 1000) {
        send({ type: "input_audio_buffer.speech_started", item_id: "caller", audio_start_ms: 0 });
        utter(880, 400);
      }
    } else if (event.type === "conversation.item.truncate") {
      say(`TRUNCATED ${event.item_id} ${event.audio_end_ms}`);
    }
    socket.heard = heard;
  });
  socket.on("close", () => say(`HEARD ${heard}`));
});

model.on("listening", () => {
  const url = `ws://127.0.0.1:${model.address().port}`;
  const server = new WebSocketServer({ port: Number(process.env.PORT), host: "127.0.0.1" });
  server.on("connection", async (twilio) => {
    const transport = new TwilioRealtimeTransportLayer({ twilioWebSocket: twilio });
    let last = null;
    transport.on("audio", (audio) => {
      last = audio.responseId;
    });
    transport.on("error", (error) => say(`ERROR ${JSON.stringify(error)}`));
    transport.on("*", (event) => {
      if (event.type !== "twilio_message") return;
      if (event.message.event === "start") say(`CALL ${JSON.stringify(event.message.start.customParameters)}`);
      const name = event.message.event === "mark" ? event.message.mark.name : "";
      if (name) say(`MARK ${name}`);
      if (last === "r3" && name.startsWith("done:i3:")) twilio.close();
    });
    twilio.on("close", (code) => say(`CLOSED ${code}`));
    await transport.connect({ apiKey: "none", url });
  });
});

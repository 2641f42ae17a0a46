// An ingest as it is usually written for Node: verifies with `svix`, publishes with Confluent's client, and acknowledges when
// Kafka has. It writes the same records with the same settings as Usher: KAFKA TOPIC SECRET.
import http from "node:http";
import kafka from "@confluentinc/kafka-javascript";
import { Webhook } from "svix";

const [broker, topic, secret] = process.argv.slice(2);
const webhook = new Webhook(secret);
const client = new kafka.KafkaJS.Kafka({
  "bootstrap.servers": broker,
  log_level: 3,
});
const producer = client.producer({
  partitioner: "murmur2_random",
  "enable.idempotence": true,
  acks: -1,
  "message.timeout.ms": 8000,
  "linger.ms": 0.5,
  "queue.buffering.max.messages": 20000,
  "compression.codec": "lz4",
  "socket.nagle.disable": true,
});

function read(request) {
  return new Promise((resolve, reject) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => resolve(Buffer.concat(chunks)));
    request.on("error", reject);
  });
}

async function receive(request) {
  const body = await read(request);
  const text = body.toString();
  try {
    webhook.verify(text, request.headers);
  } catch {
    return 401;
  }
  const event = JSON.parse(text);
  const headers = {
    "usher-event-id": request.headers["svix-id"],
    "usher-type": event.type,
    "usher-source": "clerk",
    "usher-instance": "default",
    "usher-occurred-at": new Date(event.timestamp).toISOString(),
    "usher-received-at": new Date().toISOString(),
    "svix-id": request.headers["svix-id"],
    "svix-timestamp": request.headers["svix-timestamp"],
    "svix-signature": request.headers["svix-signature"],
  };
  await producer.send({ topic, messages: [{ key: event.data.id, value: body, headers }] });
  return 204;
}

const server = http.createServer((request, response) => {
  receive(request).then(
    (status) => response.writeHead(status).end(),
    () => response.writeHead(503).end(),
  );
});

await producer.connect();
server.listen(0, "127.0.0.1", () => console.log(`listening on 127.0.0.1:${server.address().port}`));

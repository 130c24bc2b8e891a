// A typical web app with Express and BullMQ that accepts a callback.
const express = require("express");
const { Queue } = require("bullmq");

const { hostname, port } = new URL(process.env.REDIS_URL);
const queue = new Queue("callbacks", { connection: { host: hostname, port: Number(port) } });
const app = express();
app.use(express.urlencoded({ extended: false }));
app.post("/callback/:pbx/:extension/:type/:token", async (request, response) => {
  await queue.add("callback", request.body);
  response.sendStatus(204);
});
app.listen(Number(process.argv[2]), "127.0.0.1");

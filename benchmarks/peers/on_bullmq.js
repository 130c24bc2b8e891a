// BullMQ: a job for each event.
// node on_bullmq.js work | node on_bullmq.js enqueue COUNT PER_CALL RATE
const fs = require("fs");
const { Queue, Worker } = require("bullmq");

const { hostname, port } = new URL(process.env.REDIS_URL);
const connection = { host: hostname, port: Number(port), maxRetriesPerRequest: null };
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function event(call, step) {
  return {
    CallID: `call-${String(call).padStart(16, "0")}`,
    CallerIDNum: "01614960207",
    CallerIDName: "Müller GmbH",
    CalledDID: "442079460100",
    CalledExtension: "0003*210",
    CallStatus: String(step),
    CallFlow: "IN",
    CallerExtension: "",
    CalledNumber: "442079460100",
    accepted: String((performance.timeOrigin + performance.now()) / 1000),
  };
}

const options = { removeOnComplete: true, removeOnFail: true };

async function enqueue(count, perCall, rate) {
  const queue = new Queue("events", { connection });
  if (!rate) {
    for (let first = 0; first < count; first += 1000) {
      const jobs = [];
      for (let n = first; n < Math.min(first + 1000, count); n++) {
        jobs.push({ name: "e", data: event(Math.floor(n / perCall), n % perCall), opts: options });
      }
      await queue.addBulk(jobs);
    }
  } else {
    const began = performance.now();
    for (let n = 0; n < count; n++) {
      const call = Math.floor(n / perCall);
      const step = n % perCall;
      const due = began + (perCall > 1 ? (call * perCall * 1000) / rate + step : (n * 1000) / rate);
      while (performance.now() < due) await sleep(Math.max(0, due - performance.now() - 1));
      await queue.add("e", event(call, step), options);
    }
  }
  await queue.close();
}

async function work() {
  const what = process.env.DO;
  let count = 0;
  // With `post` the target counts.
  const progress = what !== "post" && fs.openSync(process.env.PROGRESS, "r+");
  const bytes = Buffer.alloc(8);
  setInterval(() => {
    if (!progress) return;
    bytes.writeBigUInt64LE(BigInt(count));
    fs.writeSync(progress, bytes, 0, 8, 0);
  }, 5);
  const { request, Agent } = require("undici");
  const dispatcher = new Agent({ connections: 64 });
  const record = (data) => {
    const now = (performance.timeOrigin + performance.now()) / 1000;
    fs.appendFileSync(
      process.env.RECORDS,
      `${data.CallID} ${data.CallStatus} ${data.accepted} ${now}\n`,
    );
  };
  const handlers = {
    nothing: async () => void count++,
    wait: async () => {
      await sleep(100);
      count++;
    },
    post: async (data) => {
      const { body } = await request(process.env.TARGET, {
        dispatcher,
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(data),
      });
      await body.dump();
    },
    linger: async (data) => {
      await sleep(Math.random() * 20);
      record(data);
    },
    record: async (data) => record(data),
  };
  new Worker("events", (job) => handlers[what](job.data), {
    connection,
    concurrency: Number(process.env.CONCURRENCY),
  });
}

if (process.argv[2] === "work") work();
else enqueue(...process.argv.slice(3).map(Number)).then(() => process.exit(0));

// Teachable Machine, by its published library (@teachablemachine/image) in Node, with the settings of its page: 50
// epochs, batch 16, learning rate 0.001, 100 dense units, and 15 % of the images held out at random.
//
//     node teachable_machine.mjs JOB.json        (run in the folder that holds node_modules)
//
// MobileNet's weights are a download. The backbone is EfficientNet-Lite0 in their place, a descendant of MobileNetV2.
// The WebAssembly backend computes it; a browser would use its GPU.

import { createRequire } from 'node:module';
import fs from 'node:fs';
import path from 'node:path';

const require = createRequire(path.join(process.cwd(), 'package.json'));
const tf = require('@tensorflow/tfjs');
const { setWasmPaths } = require('@tensorflow/tfjs-backend-wasm');
const { createCanvas, loadImage } = require('@napi-rs/canvas');
globalThis.document = { createElement: () => createCanvas(1, 1) }; // all that the library needs of a browser
globalThis.HTMLVideoElement = class {};
const teachable = require('@teachablemachine/image');

const TRAINING = { denseUnits: 100, epochs: 50, learningRate: 0.001, batchSize: 16 };

const job = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
setWasmPaths(path.join(process.cwd(), 'node_modules/@tensorflow/tfjs-backend-wasm/dist/'));
await tf.setBackend('wasm');
const results = job.mode === 'train' ? await train() : await loop();
fs.writeFileSync(job.results, JSON.stringify(results));

async function train() {
  const backbone = readModel(path.join(job.weights, 'efficientnet_lite0_tfjs'));
  const options = { checkpointUrl: tf.io.fromMemory(backbone), trainingLayer: 'out_relu' };
  const model = await teachable.createTeachable({ labels: job.labels }, options);
  model.setLabels(job.labels);
  model.setSeed(String(job.seed));
  for (const [classId, label] of job.labels.entries()) {
    const folder = path.join(job.train, label);
    for (const file of fs.readdirSync(folder).sort()) {
      await model.addExample(classId, cropCenter(await loadImage(path.join(folder, file))));
    }
  }
  let claim = null;
  await model.train(TRAINING, { onEpochEnd: (epoch, logs) => { claim = logs.val_acc; } });
  await model.save(tf.io.withSaveHandler(async (artifacts) => writeModel(job.model, artifacts)));
  const { userCPUTime, systemCPUTime } = process.resourceUsage();
  const columns = {
    seconds: Date.now() / 1000 - job.started,
    cpu_seconds: (userCPUTime + systemCPUTime) / 1e6,
    memory_mb: memory(),
  };
  const trained = await open();
  const probabilities = [];
  for (const file of job.test) {
    probabilities.push((await trained.predict(await loadImage(file))).map((answer) => answer.probability));
  }
  return { ...columns, probabilities, claim, model_mb: fs.statSync(path.join(job.model, 'weights.bin')).size / 2 ** 20 };
}

async function loop() {
  const model = await open();
  const image = await loadImage(job.image);
  const frame = createCanvas(image.width, image.height);
  frame.getContext('2d').drawImage(image, 0, 0);
  const classify = async () => {
    const answers = await model.predict(frame);
    return answers.reduce((best, answer) => (answer.probability > best.probability ? answer : best)).className;
  };
  console.log(`label ${await classify()}`);
  const latencies = [];
  for (let number = -job.num_warm_up; number < job.num_images; number++) {
    const started = performance.now();
    await classify();
    if (number >= 0) latencies.push((performance.now() - started) / 1000);
  }
  return { latencies, memory_mb: memory() };
}

function open() {
  return teachable.load(tf.io.fromMemory(readModel(job.model)), { labels: job.labels });
}

// The page of Teachable Machine crops its camera to a square of 224 pixels before it adds an example.
function cropCenter(image) {
  const canvas = createCanvas(teachable.IMAGE_SIZE, teachable.IMAGE_SIZE);
  const size = Math.min(image.width, image.height);
  const [left, top] = [(image.width - size) / 2, (image.height - size) / 2];
  canvas.getContext('2d').drawImage(image, left, top, size, size, 0, 0, canvas.width, canvas.height);
  return canvas;
}

function readModel(folder) {
  const { modelTopology, weightsManifest } = JSON.parse(fs.readFileSync(path.join(folder, 'model.json'), 'utf8'));
  const content = fs.readFileSync(path.join(folder, 'weights.bin'));
  const weightData = content.buffer.slice(content.byteOffset, content.byteOffset + content.byteLength);
  return { modelTopology, weightSpecs: weightsManifest[0].weights, weightData };
}

function writeModel(folder, artifacts) {
  const weightsManifest = [{ paths: ['weights.bin'], weights: artifacts.weightSpecs }];
  const text = JSON.stringify({ modelTopology: artifacts.modelTopology, weightsManifest });
  fs.writeFileSync(path.join(folder, 'model.json'), text);
  fs.writeFileSync(path.join(folder, 'weights.bin'), Buffer.from(artifacts.weightData));
  return { modelArtifactsInfo: { dateSaved: new Date(), modelTopologyType: 'JSON' } };
}

// The largest resident memory in MB. Linux only; resourceUsage() would give that of the parent, if it is larger.
function memory() {
  const file = '/proc/self/status';
  return fs.existsSync(file) ? Number(/VmHWM:\s*(\d+)/.exec(fs.readFileSync(file, 'utf8'))[1]) / 1024 : null;
}

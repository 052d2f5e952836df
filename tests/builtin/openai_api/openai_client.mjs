// What OpenAI's JavaScript client does with a server: prints what it got as JSON.
import { createRequire } from "node:module";

const [kind, url, modules] = process.argv.slice(2);
const OpenAI = createRequire(`${modules}/`)("openai").default;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const print = (value) => console.log(JSON.stringify(value));

if (kind === "image") {
  const answer = await client.images.generate({ prompt: "a", n: 2, seed: 7, response_format: "b64_json" });
  const stream = await client.images.generate({ prompt: "a", stream: true, partial_images: 1 });
  const events = [];
  for await (const event of stream) events.push(event.type);
  const refused = await client.images.generate({ prompt: "a", foo: 1 }).catch((error) => error);
  const models = [];
  for await (const model of client.models.list()) models.push(model.id);
  const sizes = answer.data.map((image) => Buffer.from(image.b64_json, "base64").subarray(1, 4).toString());
  print({ sizes, events, models, refused: [refused.status, refused.code, refused.param] });
} else {
  let video = await client.videos.create({ prompt: "a", seconds: "4" });
  while (video.status === "queued" || video.status === "in_progress") {
    await new Promise((resolve) => setTimeout(resolve, 50));
    video = await client.videos.retrieve(video.id);
  }
  const read = async (variant) => {
    const content = await client.videos.downloadContent(video.id, { variant });
    return [content.headers.get("content-type"), (await content.arrayBuffer()).byteLength > 30];
  };
  const variants = [await read("video"), await read("thumbnail"), await read("spritesheet")];
  const listed = (await client.videos.list({ limit: 1 })).data.map((item) => item.id === video.id);
  const deleted = await client.videos.delete(video.id);
  print({ status: video.status, seconds: video.seconds, variants, listed, deleted: deleted.deleted });
}

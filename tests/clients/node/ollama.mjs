// Ollama's own client for JavaScript, changed in nothing but its host: what it makes of the answers.
import { Ollama } from "ollama";

const [url, ...texts] = process.argv.slice(2);
const client = new Ollama({ host: url });
const refused = async (options) => {
  try {
    await client.embed({ model: "minilm", input: texts, ...options });
    return "no error";
  } catch (error) {
    return { status: error.status_code, words: error.error };
  }
};
const loaded = await client.embed({ model: "all-minilm", input: [] });
const { models } = await client.list();
const running = (await client.ps()).models.map((model) => model.name);
const plain = await client.embed({ model: "all-MiniLM-L6-v2", input: texts, keep_alive: "5m" });
const listed = models.find((model) => model.name === "all-minilm:latest");
const shown = await client.show({ model: "All-MiniLM" });
console.log(
  JSON.stringify({
    nothing: loaded.embeddings,
    running,
    plain: plain.embeddings,
    small: (await client.embed({ model: "minilm", input: texts, dimensions: 128 })).embeddings,
    role: (await client.embed({ model: "minilm:query", input: "cats" })).embeddings,
    older: (await client.embeddings({ model: "minilm", prompt: texts[0] })).embedding,
    size: listed.size,
    modified: [listed.modified_at, shown.modified_at],
    capabilities: shown.capabilities,
    unknown: await refused({ model: "minlm" }),
    long: await refused({ input: "b ".repeat(600), truncate: false }),
  }),
);

// OpenAI's SDK for Node, changed in nothing but its baseURL: what it makes of the answers.
import OpenAI from "openai";

const [url, ...texts] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "any", maxRetries: 0 });
const vectors = async (options) => {
  const answer = await client.embeddings.create({ model: "minilm", input: texts, ...options });
  return answer.data.map((row) => Array.from(row.embedding));
};
const refused = async (options) => {
  try {
    await vectors(options);
    return "no error";
  } catch (error) {
    const { status, code, param } = error;
    return { type: error.constructor.name, status, code, param };
  }
};
const models = [];
for await (const model of client.models.list()) models.push(model.id);
const many = Array.from({ length: 2048 }, (_, number) => `text ${number}`);
console.log(
  JSON.stringify({
    plain: await vectors({}),
    float: await vectors({ encoding_format: "float" }),
    small: await vectors({ dimensions: 128 }),
    role: await vectors({ model: "minilm:query", input: ["cats"] }),
    many: (await vectors({ input: many })).length,
    models,
    model: (await client.models.retrieve("sentence-transformers/all-MiniLM-L6-v2")).id,
    unknown: await refused({ model: "minlm" }),
    empty: await refused({ input: [] }),
    ids: await refused({ input: [1, 2] }),
  }),
);

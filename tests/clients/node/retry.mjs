// OpenAI's SDK for Node and a full queue: says each status it meets, then how long the vector is.
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: `${process.argv[2]}/v1`,
  apiKey: "any",
  fetch: async (...request) => {
    const response = await fetch(...request);
    console.log(response.status);
    return response;
  },
});
const answer = await client.embeddings.create({ model: "minilm", input: "a" });
console.log(answer.data[0].embedding.length);

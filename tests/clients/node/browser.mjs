// OpenAI's SDK for Node as it runs in a web page, where the browser asks first and hides headers.
import OpenAI from "openai";

const [url, origin] = process.argv.slice(2);
const SAFE = new Set(["accept", "accept-language", "content-language"]);
const names = (header) => (header ?? "").split(",").map((name) => name.trim().toLowerCase());
let asked = [];

// What the Fetch standard has a browser do for a page of another origin.
async function fetchAsPage(target, options) {
  const headers = new Headers(options.headers);
  headers.delete("user-agent"); // a page cannot set it
  asked = [...headers.keys()].filter((name) => !SAFE.has(name)).sort();
  const preflight = await fetch(target, {
    method: "OPTIONS",
    headers: {
      Origin: origin,
      "Access-Control-Request-Method": options.method,
      "Access-Control-Request-Headers": asked.join(","),
    },
  });
  const allowed = new Set(names(preflight.headers.get("access-control-allow-headers")));
  const missing = asked.filter((name) => !allowed.has(name));
  if (!preflight.ok || preflight.headers.get("access-control-allow-origin") !== origin)
    throw new TypeError(`refused: ${preflight.status}`);
  if (missing.length) throw new TypeError(`not allowed: ${missing}`);
  headers.set("origin", origin);
  const answer = await fetch(target, { ...options, headers });
  const shown = new Set(names(answer.headers.get("access-control-expose-headers")));
  const seen = [...answer.headers].filter(([name]) => name === "content-type" || shown.has(name));
  return new Response(await answer.text(), { status: answer.status, headers: seen });
}

const client = new OpenAI({
  baseURL: `${url}/v1`,
  apiKey: "any",
  maxRetries: 0,
  dangerouslyAllowBrowser: true,
  defaultHeaders: { "dangerously-allow-browser": "true" },
  fetch: fetchAsPage,
});
try {
  const made = await client.embeddings
    .create({ model: "minilm", input: "first" })
    .withResponse();
  const { data, response, request_id } = made;
  const fingerprint = response.headers.get("x-emberd-fingerprint");
  console.log(
    JSON.stringify({ vector: Array.from(data.data[0].embedding), asked, request_id, fingerprint }),
  );
} catch (error) {
  console.log(JSON.stringify({ error: String(error.cause ?? error) }));
}

// What an embedder does that speaks to the server emberd replaces: fetch, with its time limits.
const [url, ...texts] = process.argv.slice(2);
const json = async (path, limit_ms, options = {}) => {
  const response = await fetch(url + path, { ...options, signal: AbortSignal.timeout(limit_ms) });
  return { ok: response.ok, status: response.status, body: await response.json() };
};
const post = (body) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});
const health = await json("/health", 2000);
const embedded = await json("/embed", 30000, post({ texts }));
const empty = await json("/embed", 3000, post({ texts: [] }));
const unloaded = await json("/unload", 30000, { method: "POST" });
const afterwards = await json("/health", 2000);
console.log(JSON.stringify({ health, embedded, empty, unloaded, afterwards }));

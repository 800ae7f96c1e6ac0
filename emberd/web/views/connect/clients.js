// What one types into each client to have it use this server. `tested`: the tests of emberd drive that library.
//
// `of` is {address, model, key, kind, needsToken}; `key` is the token, or what stands for it.

const json = (value) => JSON.stringify(value);
const curl = ({ address, needsToken, key }, path, body) =>
  [
    `curl ${address}${path} \\`,
    ...(needsToken ? [`  -H 'Authorization: Bearer ${key}' \\`] : []),
    `  -H 'Content-Type: application/json' \\`,
    `  -d '${json(body)}'`,
  ].join("\n");
const python = (...lines) => lines.join("\n");
const TEXTS = ["The kettle is on.", "Tea will be ready soon."];
const LIST = '["The kettle is on.", "Tea will be ready soon."]';
const QUERY = "When is tea?";

export const CLIENTS = [
  {
    id: "curl", title: "curl", tested: true, kinds: ["embed", "rerank", "sparse"],
    code: (of) =>
      of.kind === "rerank"
        ? curl(of, "/v1/rerank", { model: of.model, query: QUERY, documents: TEXTS })
        : curl(of, "/embed", { model: of.model, texts: TEXTS }),
  },
  {
    id: "python", title: "Python: emberd.Client", tested: true, kinds: ["embed", "rerank", "sparse"],
    code: ({ address, model, key, kind, needsToken }) => {
      const client = `with emberd.Client(${json(address)}${needsToken ? `, token=${json(key)}` : ""}) as client:`;
      const asked = {
        embed: [`    vectors = client.embed(${LIST}, model=${json(model)}).vectors  # a NumPy array`],
        sparse: [`    found = client.embed_sparse(${LIST}, model=${json(model)})`],
        rerank: [`    ranking = client.rerank(${json(QUERY)}, ${LIST}, model=${json(model)})`],
      }[kind];
      return python("import emberd", "", client, ...asked);
    },
  },
  {
    id: "openai-python", title: "OpenAI SDK, Python", tested: true, kinds: ["embed"],
    code: ({ address, model, key }) =>
      python(
        "from openai import OpenAI", "",
        `client = OpenAI(base_url=${json(`${address}/v1`)}, api_key=${json(key)})`,
        `answer = client.embeddings.create(model=${json(model)}, input=${LIST})`,
        "vectors = [row.embedding for row in answer.data]",
      ),
  },
  {
    id: "openai-js", title: "OpenAI SDK, JavaScript", tested: true, kinds: ["embed"],
    code: ({ address, model, key }) =>
      python(
        'import OpenAI from "openai";', "",
        `const client = new OpenAI({ baseURL: ${json(`${address}/v1`)}, apiKey: ${json(key)} });`,
        `const answer = await client.embeddings.create({ model: ${json(model)}, input: ${LIST} });`,
        "const vectors = answer.data.map((row) => row.embedding);",
      ),
    note: "In a browser, list the page's origin under server.allowed_origins.",
  },
  {
    id: "ollama-python", title: "Ollama, Python", tested: true, kinds: ["embed"],
    code: ({ address, model, key, needsToken }) =>
      python(
        "import ollama", "",
        `client = ollama.Client(host=${json(address)}${needsToken ? `, headers={"Authorization": ${json(`Bearer ${key}`)}}` : ""})`,
        `vectors = client.embed(model=${json(model)}, input=${LIST}).embeddings`,
      ),
  },
  {
    id: "ollama-js", title: "Ollama, JavaScript", tested: true, kinds: ["embed"],
    code: ({ address, model, key, needsToken }) =>
      python(
        'import { Ollama } from "ollama";', "",
        `const client = new Ollama({ host: ${json(address)}${needsToken ? `, headers: { Authorization: ${json(`Bearer ${key}`)} }` : ""} });`,
        `const { embeddings } = await client.embed({ model: ${json(model)}, input: ${LIST} });`,
      ),
  },
  {
    id: "langchain", title: "LangChain", tested: true, kinds: ["embed"],
    code: ({ address, model, key }) =>
      python(
        "from langchain_openai import OpenAIEmbeddings", "",
        "embeddings = OpenAIEmbeddings(",
        `    base_url=${json(`${address}/v1`)}, api_key=${json(key)}, model=${json(model)},`,
        "    check_embedding_ctx_length=False,  # otherwise it sends token ids of another tokenizer",
        ")",
        `vectors = embeddings.embed_documents(${LIST})`,
      ),
    note: "langchain-ollama, langchain-cohere and langchain-huggingface work, too.",
  },
  {
    id: "llamaindex", title: "LlamaIndex", kinds: ["embed", "rerank"], tested: (kind) => kind === "rerank",
    code: ({ address, model, key, kind }) =>
      kind === "rerank"
        ? python(
            "from llama_index.postprocessor.cohere_rerank import CohereRerank", "",
            `reranker = CohereRerank(base_url=${json(address)}, api_key=${json(key)}, model=${json(model)}, top_n=5)`,
          )
        : python(
            "from llama_index.embeddings.openai_like import OpenAILikeEmbedding", "",
            `embeddings = OpenAILikeEmbedding(api_base=${json(`${address}/v1`)}, api_key=${json(key)}, model_name=${json(model)})`,
          ),
  },
  {
    id: "cohere", title: "Cohere SDK", tested: true, kinds: ["embed", "rerank"],
    code: ({ address, model, key, kind }) =>
      python(
        "import cohere", "",
        `client = cohere.ClientV2(base_url=${json(address)}, api_key=${json(key)})`,
        ...(kind === "rerank"
          ? [`ranking = client.rerank(model=${json(model)}, query=${json(QUERY)}, documents=${LIST})`]
          : [
              "answer = client.embed(",
              `    model=${json(model)}, texts=${LIST},`,
              '    input_type="search_document", embedding_types=["float"],',
              ")",
            ]),
      ),
  },
  {
    id: "voyage", title: "Voyage SDK", tested: true, kinds: ["embed"],
    code: ({ address, model, key }) =>
      python(
        "import voyageai", "",
        `client = voyageai.Client(base_url=${json(`${address}/v1`)}, api_key=${json(key)})`,
        `vectors = client.embed(${LIST}, model=${json(model)}, input_type="document").embeddings`,
      ),
  },
  {
    id: "jina", title: "Jina’s API", tested: true, kinds: ["embed", "rerank"],
    code: (of) =>
      of.kind === "rerank"
        ? curl(of, "/v1/rerank", { model: of.model, query: QUERY, documents: TEXTS, top_n: 1 })
        : curl(of, "/v1/embeddings", { model: of.model, task: "retrieval.passage", input: TEXTS }),
    note: "Whatever speaks to Jina works with this address in place of theirs.",
  },
  {
    id: "tei", title: "text-embeddings-inference", tested: true, kinds: ["embed", "sparse"],
    code: ({ address, key, kind, needsToken, ...of }) =>
      kind === "sparse"
        ? curl({ address, key, needsToken, ...of }, "/embed_sparse", { inputs: TEXTS })
        : python(
            "from huggingface_hub import InferenceClient", "",
            `client = InferenceClient(model=${json(address)}${needsToken ? `, token=${json(key)}` : ""})`,
            `vectors = client.feature_extraction(${LIST})`,
          ),
    note: "Its requests name no model: the server’s default answers.",
  },
  {
    id: "litellm", title: "LiteLLM", tested: true, kinds: ["embed", "rerank"],
    code: ({ address, model, key, kind }) =>
      kind === "rerank"
        ? python(
            "from litellm import rerank", "",
            `ranking = rerank(model=${json(`cohere/${model}`)}, query=${json(QUERY)}, documents=${LIST},`,
            `                 api_base=${json(address)}, api_key=${json(key)})`,
          )
        : python(
            "from litellm import embedding", "",
            `answer = embedding(model=${json(`openai/${model}`)}, input=${LIST},`,
            `                   api_base=${json(`${address}/v1`)}, api_key=${json(key)})`,
          ),
  },
  {
    id: "open-webui", title: "Open WebUI", kinds: ["embed", "rerank"], tested: (kind) => kind === "rerank",
    code: ({ address, model, key, kind }) => {
      const inside = address.replace(/127\.0\.0\.1|localhost/, "host.docker.internal");
      return kind === "rerank"
        ? python(
            "RAG_RERANKING_ENGINE=external",
            `RAG_EXTERNAL_RERANKER_URL=${inside}/v1/rerank`,
            `RAG_EXTERNAL_RERANKER_API_KEY=${key}`,
            `RAG_RERANKING_MODEL=${model}`,
          )
        : python(
            "RAG_EMBEDDING_ENGINE=openai",
            `RAG_OPENAI_API_BASE_URL=${inside}/v1`,
            `RAG_OPENAI_API_KEY=${key}`,
            `RAG_EMBEDDING_MODEL=${model}`,
          );
    },
    note: "The address is the one from inside a container; emberd has to listen where the container can reach it, which needs a token. Environment variables count at the first start only; later, change it under Admin Settings, Documents.",
  },
  {
    id: "continue", title: "Continue", kinds: ["embed"], tested: false,
    code: ({ address, model, key }) =>
      python(
        "# ~/.continue/config.yaml", "models:",
        `  - name: ${json(model)}`, "    provider: openai", `    model: ${json(model)}`,
        `    apiBase: ${json(`${address}/v1`)}`, `    apiKey: ${json(key)}`, "    roles: [embed]",
      ),
  },
  {
    id: "llm", title: "llm", kinds: ["embed"], tested: false,
    code: ({ address, model }) =>
      python("llm install llm-ollama", `OLLAMA_HOST=${address} llm embed -m ${model}:latest -c 'The kettle is on.'`),
    note: "By its plugin for Ollama, whose dialect emberd speaks.",
  },
  {
    id: "cmem", title: "cmem", tested: true, kinds: ["embed"],
    code: () => "emberd service install --replace   # where the old server of cmem runs",
    note: "cmem looks for its server on port 8767 of this machine and names no model, so the server’s default is its model. Nothing in cmem has to change.",
  },
];

export function isTested({ tested }, kind) {
  return typeof tested === "function" ? tested(kind) : tested;
}

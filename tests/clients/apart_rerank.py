"""Re-rankers of LangChain, LlamaIndex and LiteLLM: the scores are those of the reference.

Runs in the environment that `apart.py` makes, where nothing of emberd is.
"""

import json
import math
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

RERANKER = Path(__file__).parent.parent / "reference" / "rerankers" / "bert"
GIVEN = json.loads((RERANKER / "reference.json").read_text())
QUERY, TEXTS = GIVEN["query"], GIVEN["texts"]
SCORES = [1 / (1 + math.exp(-logit)) for logit in GIVEN["logits"]]
ORDER = sorted(range(len(TEXTS)), key=lambda index: -GIVEN["logits"][index])
MOST = 3

Found = list[tuple[int, float]]
"""Each result's place in the request, and its score."""


def check(name: str, found: Found, most: int) -> None:
    """Raise when these are not the best `most` texts, the best first, with their scores."""
    assert [index for index, _ in found] == ORDER[:most], name
    assert all(abs(score - SCORES[index]) < 1e-4 for index, score in found), name


def langchain(name: str, url: str) -> Found:
    """Compress documents, as in a chain."""
    if name == "langchain-cohere":
        made = import_module("langchain_cohere").CohereRerank(
            model="tiny", base_url=url, cohere_api_key="any", top_n=MOST
        )
    else:
        module: Any = import_module("langchain_community.document_compressors.jina_rerank")
        module.JINA_API_URL = f"{url}/v1/rerank"  # a constant: it has no option for the address
        made = module.JinaRerank(model="tiny", jina_api_key="any", top_n=MOST)
    document = import_module("langchain_core.documents").Document
    given = [document(text, metadata={"at": at}) for at, text in enumerate(TEXTS)]
    kept = made.compress_documents(given, QUERY)
    return [(each.metadata["at"], each.metadata["relevance_score"]) for each in kept]


def llama_index(name: str, url: str) -> Found:
    """Postprocess nodes, as in a query engine."""
    if name.endswith("tei-rerank"):
        module = import_module("llama_index.postprocessor.tei_rerank")
        made = module.TextEmbeddingInference(base_url=url, top_n=MOST)
    elif name.endswith("cohere-rerank"):
        module = import_module("llama_index.postprocessor.cohere_rerank")
        made = module.CohereRerank(model="tiny", api_key="any", base_url=url, top_n=MOST)
    else:
        module = import_module("llama_index.postprocessor.jinaai_rerank")
        made = module.JinaRerank(model="tiny", api_key="any", base_url=f"{url}/v1", top_n=MOST)
    schema = import_module("llama_index.core.schema")
    given = [
        schema.NodeWithScore(node=schema.TextNode(text=text, id_=str(at)), score=0.5)
        for at, text in enumerate(TEXTS)
    ]
    kept = made.postprocess_nodes(given, query_str=QUERY)
    return [(int(each.node.node_id), each.score) for each in kept]


def litellm(url: str) -> None:
    """Raise when anything is amiss: it speaks all of the dialects."""
    rerank = import_module("litellm").rerank
    first_api = {"max_chunks_per_doc": 10}  # which Cohere's second does not have
    for provider, base, options in (
        ("cohere", url, {}),
        ("cohere", url, first_api),
        ("jina_ai", url, {}),
        ("infinity", url, {}),
        ("hosted_vllm", f"{url}/v1", {}),
        ("huggingface", url, {}),
    ):
        answer = rerank(
            model=f"{provider}/tiny",
            query=QUERY,
            documents=TEXTS,
            top_n=MOST,
            api_base=base,
            api_key="any",
            **options,
        )
        cuts = provider != "huggingface"  # TEI has no top_n
        found = [(row["index"], row["relevance_score"]) for row in answer.results]
        check(provider, found, MOST if cuts else len(TEXTS))
        for row in answer.results:  # Cohere's second API gives no texts back
            assert row.get("document", {}).get("text", "") in ("", TEXTS[row["index"]]), provider
        if (provider, options) != ("cohere", {}):
            assert any("document" in row for row in answer.results), provider


if __name__ == "__main__":
    which, address = sys.argv[1:]
    if which == "litellm":
        litellm(address)
    elif which.startswith("llama-index"):
        check(which, llama_index(which, address), MOST)
    else:
        check(which, langchain(which, address), MOST)

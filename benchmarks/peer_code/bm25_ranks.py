"""BM25 by bm25s: documents and queries as JSON on stdin, the best documents of each on stdout.

{"documents": [...], "queries": [...], "most": 100} -> a list of numbers of documents for each.
"""

import json
import sys

import bm25s

asked = json.load(sys.stdin)
words = bm25s.tokenize(asked["documents"], stopwords="en", show_progress=False)
index = bm25s.BM25()
index.index(words, show_progress=False)
queries = bm25s.tokenize(asked["queries"], stopwords="en", show_progress=False)
most = min(asked["most"], len(asked["documents"]))
found, scores = index.retrieve(queries, k=most, show_progress=False)
ranks = [
    [int(document) for document, score in zip(*row, strict=True) if score > 0]
    for row in zip(found, scores, strict=True)
]
json.dump(ranks, sys.stdout)

"""How many of the ten nearest neighbours smaller vectors keep: `output_dtype`, on real texts.

    .venv/bin/python benchmarks/small_vectors.py [--model minilm] [--texts FILE] [--ranges]

By default the texts are docstrings of Python's own library, up to 600 characters each: those of
this machine's Python, so that another version of it has slightly other ones. A sixteenth of them
are queries; the others are searched, by exact search. A model embeds each text once and gives its
vector in every dtype. Neighbours are kept if they are among the ten nearest by float32 as well.

`--ranges` adds what emberd does not do: int8 with a range for each dimension, from the lowest to
the highest number of the texts that are searched.
"""

import argparse
import ast
import asyncio
import base64
import json
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emberd.config.load import load_config
from emberd.dtypes import NUMPY, Dtype, row_bytes
from emberd.pool.manager import Pool
from emberd.pool.request import EmbedRequest
from emberd.vectors import quantize
from emberd.worker.wire import BETWEEN, Encoding

NEAREST = 10
AT_ONCE = 500
SHORTEST, LONGEST = 40, 600  # characters
EVERY = 16  # text is a query
SMALL: Sequence[Dtype] = ("float16", "int8", "ubinary")
FORMS: Sequence[tuple[Encoding, Dtype]] = [("base64", dtype) for dtype in SMALL]
Numbers = npt.NDArray[np.float32]


def docstrings() -> Iterator[str]:
    """Yield the docstrings of Python's library, without those of its tests and of packages."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(root.rglob("*.py")):
        if {"site-packages", "test", "tests", "idle_test"} & {*file.parts}:
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield ast.get_docstring(node) or ""


def chosen(texts: Iterable[str]) -> list[str]:
    """Return those that are long enough, each once, cut."""
    return [*dict.fromkeys(text[:LONGEST] for text in texts if len(text) >= SHORTEST)]


async def embedded(model: str, texts: Sequence[str]) -> Mapping[Dtype, Numbers]:
    """Return the vectors of texts in each dtype; bits as 1 and -1."""
    rows: dict[Dtype, list[npt.NDArray[np.generic]]] = {"float": [], **{each: [] for each in SMALL}}
    async with Pool(load_config()) as pool:
        for at in range(0, len(texts), AT_ONCE):
            batch = texts[at : at + AT_ONCE]
            asked = EmbedRequest(texts=batch, model=model, encoding="base64", also=FORMS)
            answer = await pool.embed(asked)
            for fragment in answer.fragments:
                for dtype, form in zip(rows, fragment.split(BETWEEN), strict=True):
                    content = base64.b64decode(json.loads(form))
                    rows[dtype].append(np.frombuffer(content, NUMPY[dtype]))
    found = {dtype: np.stack(each) for dtype, each in rows.items()}
    signs = np.unpackbits(found["ubinary"].astype(np.uint8), axis=1)
    numbers = {dtype: each.astype(np.float32) for dtype, each in found.items()}
    return {**numbers, "ubinary": 2 * signs.astype(np.float32) - 1}


def best(scores: Numbers, count: int = NEAREST) -> npt.NDArray[np.intp]:
    """Return the columns of the highest scores of each row."""
    return np.argpartition(-scores, count, axis=1)[:, :count]


def rescored(
    candidates: npt.NDArray[np.intp], queries: Numbers, rows: Numbers
) -> npt.NDArray[np.intp]:
    """Return the best of the candidates by the products of these vectors."""
    found = [
        near[np.argsort(-(rows[near] @ query))[:NEAREST]]
        for near, query in zip(candidates, queries, strict=True)
    ]
    return np.array(found)


def unit(rows: Numbers) -> Numbers:
    """Return rows of length 1."""
    scaled: Numbers = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


def results(
    queries: Mapping[Dtype, Numbers], rows: Mapping[Dtype, Numbers]
) -> Iterator[tuple[str, Dtype, float]]:
    """Yield how a search is made, what is stored, and the share of neighbours that it keeps."""
    truth = best(queries["float"] @ rows["float"].T)

    def kept(found: npt.NDArray[np.intp]) -> float:
        same = [len({*a} & {*b}) for a, b in zip(truth.tolist(), found.tolist(), strict=True)]
        return sum(same) / truth.size

    yield "cosine", "float16", kept(best(unit(queries["float16"]) @ unit(rows["float16"]).T))
    small, asked = rows["int8"], queries["int8"]
    yield "cosine", "int8", kept(best(unit(asked) @ unit(small).T))
    yield "L2", "int8", kept(best(2 * asked @ small.T - (small**2).sum(axis=1)))
    yield "product with the float32 query", "int8", kept(best(queries["float"] @ small.T))
    bits = queries["ubinary"] @ rows["ubinary"].T
    yield "Hamming", "binary", kept(best(bits))
    for count in (4 * NEAREST, 10 * NEAREST):
        near = best(bits, count)
        how = f"Hamming, the first {count} by the float32 query and "
        yield f"{how}the bits", "binary", kept(rescored(near, queries["float"], rows["ubinary"]))
        yield f"{how}int8 beside them", "binary", kept(rescored(near, queries["float"], small))


def by_ranges(
    queries: Mapping[Dtype, Numbers], rows: Mapping[Dtype, Numbers]
) -> tuple[Mapping[Dtype, Numbers], Mapping[Dtype, Numbers]]:
    """Return the same vectors with an int8 that has a range for each dimension."""
    ranges = np.stack([rows["float"].min(axis=0), rows["float"].max(axis=0)])
    small = (quantize(each["float"], "int8", ranges).astype(np.float32) for each in (queries, rows))
    asked, stored = small
    return {**queries, "int8": asked}, {**rows, "int8": stored}


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--texts", type=Path, help="one text a line")
    parser.add_argument("--ranges", action="store_true")
    asked = parser.parse_args()
    given = asked.texts.read_text(encoding="utf-8").splitlines() if asked.texts else docstrings()
    texts = chosen(given)
    vectors = asyncio.run(embedded(asked.model, texts))
    is_query = np.arange(len(texts)) % EVERY == 0
    size = vectors["float"].shape[1]
    queries = {dtype: each[is_query] for dtype, each in vectors.items()}
    rows = {dtype: each[~is_query] for dtype, each in vectors.items()}
    print(f"{asked.model}: {len(rows['float'])} texts, {len(queries['float'])} queries\n")
    print("| stored | bytes | searched by | neighbours kept at 10 |\n|---|---|---|---|")
    for how, dtype, share in results(queries, rows):
        print(f"| {dtype} | {row_bytes(size, dtype)} | {how} | {share:.1%} |")
    if asked.ranges:
        for how, dtype, share in results(*by_ranges(queries, rows)):
            if dtype == "int8":
                print(f"| int8, ranges | {size} | {how} | {share:.1%} |")


if __name__ == "__main__":
    main()

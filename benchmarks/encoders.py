"""A checkpoint of each architecture at its real sizes, with random weights, and what it computes.

Which tensors there are, and in which shapes, is what emberd's own graph asks for; sizes that other
benchmarks need as well are in `checkpoints.py`. Vocabularies and some layers are left out, since
each layer takes the same time; `of_layers` says how many there are. The tokenizer's words are the
numbers of the tokens, so that a text has as many as one wants.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import checkpoints
import numpy as np
import numpy.typing as npt
from checkpoints import Sizes
from safetensors.numpy import save_file

from emberd.backends.architectures.base import Architecture
from emberd.backends.architectures.distilbert import DistilBert
from emberd.backends.architectures.mpnet import MPNet
from emberd.backends.architectures.native import class_of
from emberd.backends.architectures.rotary_bert import Gte
from emberd.backends.checkpoint import Checkpoint
from emberd.backends.config import ModelConfig

TORCH = "transformers, torch"
LLAMA = "llama.cpp"
Halves = npt.NDArray[np.float16]

VOCABULARY = 30_522
SEED = 11
SPREAD, OFFSET_SPREAD = 1.3, 0.1

_BERT_IDS: Sizes = {"pad_token_id": 0}
_BASE: Sizes = checkpoints.BERT_BASE | _BERT_IDS
_ROBERTA_IDS: Sizes = {
    "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
_ROBERTA: Sizes = (
    checkpoints.BERT_BASE | {"max_position_embeddings": 514, "layer_norm_eps": 1e-5} | _ROBERTA_IDS
)


def _inverse(kind: type[Architecture]) -> Mapping[str, str]:
    return {ours: theirs for theirs, ours in kind.other_names.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that stands for its architecture.

    `config` is its config.json, from its repository on the Hub, with `layers` of its `of_layers`.
    `width` is the size of all heads together, `within` how far tokens of `local` layers see.
    `biases` are parts of the names of linear layers with one, where that differs; `names` says what
    emberd's names of tensors are in the published files. `longest` is the length of the long texts;
    0: the model takes none. `lacking` says which peers do not have it, and why.
    """

    like: str
    config: Sizes
    layers: int = 12
    of_layers: int = 12
    width: int = 768
    longest: int = 0
    local: int = 0
    within: int = 0
    is_causal: bool = False
    biases: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    norms_around: float = 1.0
    lacking: Mapping[str, str] = field(default_factory=dict)

    @property
    def hidden_size(self) -> int:
        """Length of a vector."""
        keys = ("hidden_size", "dim", "d_model")
        return next(int(cast("int", self.config[key])) for key in keys if key in self.config)

    @property
    def max_tokens(self) -> int:
        """Where texts are cut."""
        return max(512, self.longest)

    def shallow(self) -> "Model":
        """Return it with one layer of each kind, to see whether everything runs."""
        if not self.layers:
            return self
        layers = 2 if self.local else 1
        keys = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
        config = self.config | {key: layers for key in keys if key in self.config}
        if "layer_types" in config:
            config["layer_types"] = ["sliding_attention", "full_attention"]
        return replace(self, config=config, layers=layers, local=layers - 1)

    def attention_flop(self, length: int) -> float:
        """Return the operations of the products in attention, for the pairs that see each other.

        A multiplication and an addition count as two; per pair, scores and weighted values.
        """
        everywhere = length * (length + 1) / 2 if self.is_causal else length * length
        near = everywhere
        if self.local and length > self.within:
            near = length * (2 * self.within + 1) - self.within * (self.within + 1)
            near = min(near, everywhere)
        return 4 * self.width * ((self.layers - self.local) * everywhere + self.local * near)


MODELS: Mapping[str, Model] = {
    "bert (MiniLM)": Model(
        like="sentence-transformers/all-MiniLM-L6-v2",
        config=checkpoints.MINILM | _BERT_IDS,
        layers=6, of_layers=6, width=384,
    ),
    "bert": Model(like="BAAI/bge-base-en-v1.5", config=_BASE),
    "mpnet": Model(
        like="sentence-transformers/all-mpnet-base-v2",
        config=checkpoints.MPNET | _ROBERTA_IDS,
        names=_inverse(MPNet),
        lacking={LLAMA: "its BERT has no biases by distance"},
    ),
    "distilbert": Model(
        like="distilbert/distilbert-base-uncased",
        config={
            "model_type": "distilbert", "dim": 768, "n_layers": 6, "n_heads": 12,
            "hidden_dim": 3072, "activation": "gelu", "max_position_embeddings": 512,
            "pad_token_id": 0,
        },
        layers=6, of_layers=6, names=_inverse(DistilBert),
    ),
    "roberta": Model(
        like="sentence-transformers/all-distilroberta-v1",
        config=_ROBERTA | {"model_type": "roberta", "num_hidden_layers": 6},
        layers=6, of_layers=6,
    ),
    "xlm-roberta": Model(
        like="intfloat/multilingual-e5-base", config=_ROBERTA | {"model_type": "xlm-roberta"}
    ),
    "deberta-v2": Model(
        like="mixedbread-ai/mxbai-rerank-base-v1",
        config=_BASE | {
            "model_type": "deberta-v2", "layer_norm_eps": 1e-7, "type_vocab_size": 0,
            "relative_attention": True, "position_biased_input": False, "position_buckets": 256,
            "max_relative_positions": -1, "norm_rel_ebd": "layer_norm", "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
        },
        names={f"self.{part}.": f"self.{part}_proj." for part in ("query", "key", "value")},
        lacking={LLAMA: "it has no DeBERTa"},
    ),
    "nomic_bert": Model(
        like="nomic-ai/nomic-embed-text-v1.5",
        config=checkpoints.NOMIC_BERT | {
            "architectures": ["NomicBertModel"], "causal": False, "pad_vocab_size_multiple": 1,
            "parallel_block": False, "prenorm": False, "rotary_emb_interleaved": False,
            "rotary_emb_scale_base": None, "rotary_scaling_factor": None, "use_rms_norm": False,
            **{key: value for key, value in _BASE.items() if key != "model_type"},
            "hidden_act": "silu", "max_position_embeddings": 2048,
            "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"},
        },
        longest=2048,
    ),
    "gte": Model(
        like="Alibaba-NLP/gte-multilingual-base",
        config=_BASE | {
            "model_type": "gte", "layer_norm_type": "layer_norm", "logn_attention_scale": False,
            "max_position_embeddings": 8192, "pack_qkv": True, "position_embedding_type": "rope",
            "pad_token_id": 1, "type_vocab_size": 1, "rope_scaling": None, "rope_theta": 20000,
        },
        longest=2048, biases=("Wqkv", "out_proj", "fc2"),
        names=_inverse(Gte),
        lacking={LLAMA: "its BERT with rotary positions gates by SiLU"},
    ),
    "jina_bert": Model(
        like="jinaai/jina-embeddings-v2-small-en",
        config=_BASE | {
            "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8,
            "num_hidden_layers": 4, "max_position_embeddings": 8192,
            "position_embedding_type": "alibi", "feed_forward_type": "geglu",
        },
        layers=4, of_layers=4, width=512, longest=2048,
        lacking={TORCH: "it has this architecture only by code from the Hub"},
    ),
    "modernbert": Model(
        like="answerdotai/ModernBERT-base",
        config=checkpoints.MODERNBERT_BASE | {
            "norm_bias": False, "attention_bias": False, "mlp_bias": False, "pad_token_id": 0,
            "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2,
        },
        layers=22, of_layers=22, longest=2048, local=14, within=64,
    ),
    "t5": Model(
        like="sentence-transformers/sentence-t5-base",
        config=checkpoints.T5_BASE | {
            "architectures": ["T5EncoderModel"], "relative_attention_max_distance": 128,
            "pad_token_id": 0, "eos_token_id": 1, "is_encoder_decoder": False, "use_cache": False,
        },
        names={"block.": "encoder.block.", "final_": "encoder.final_"},
    ),
    "gemma3_text": Model(
        like="google/embeddinggemma-300m",
        config=checkpoints.GEMMA_300M | {
            "attention_bias": False, "sliding_window_pattern": 6, "_sliding_window_pattern": 6,
            "rope_scaling": None, "attn_logit_softcapping": None, "final_logit_softcapping": None,
            "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 4,
            "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "use_cache": False,
        },
        layers=24, of_layers=24, longest=2048, local=20, within=256, norms_around=0.0,
    ),
    "qwen3": Model(
        like="Qwen/Qwen3-Embedding-0.6B",
        config=checkpoints.QWEN3_0_6B | {
            "num_hidden_layers": 6, "max_window_layers": 6, "attention_bias": False,
            "rope_scaling": None, "use_sliding_window": False, "sliding_window": None,
            "tie_word_embeddings": True, "use_cache": False,
            "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
        },
        layers=6, of_layers=28, width=2048, longest=2048, is_causal=True,
    ),
    "model2vec": Model(
        like="minishlab/potion-base-8M",
        config={"model_type": "model2vec", "hidden_size": 256, "hidden_dim": 256,
                "seq_length": 1000000, "normalize": True},
        layers=0, of_layers=0, width=0, longest=2048,
        lacking={LLAMA: "it has no models without layers"},
    ),
}  # fmt: skip
"""By name, which is the `model_type` but for MiniLM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A checkpoint, and the shapes of its layers' products: `(inputs, outputs)` of each matrix."""

    folder: Path
    products: tuple[tuple[int, int], ...]


class _Drawn:
    """Stands in for a checkpoint: whatever tensor the graph asks for is drawn, and kept.

    Tensors are large enough that texts differ, and that attention prefers some tokens to others.
    """

    heads = ()
    takes_pairs = False
    sparse = None

    def __init__(self, model: Model, folder: Path) -> None:
        self.folder = folder
        self._draw = np.random.default_rng(SEED)
        self._model = model
        self.tensors: dict[str, Halves] = {}
        self.products: list[tuple[int, int]] = []

    def has(self, name: str) -> bool:
        return name.endswith(".bias") and any(part in name for part in self._model.biases)

    def dense_matrix(self, name: str, rows: int, columns: int) -> npt.NDArray[np.float32]:
        if name in self.tensors:
            return self.tensors[name].astype(np.float32)
        is_table = "embed" in name or "shared" in name or "relative" in name
        if not is_table:
            self.products.append((columns, rows))
        spread = 1.0 if is_table else SPREAD * columns**-0.5
        return self._keep(name, spread * self._normal((rows, columns)))

    def bf16_matrix(self, name: str, rows: int, columns: int) -> None:
        """Return nothing: all numbers are float32."""

    def vector(self, name: str, length: int) -> npt.NDArray[np.float32]:
        middle = self._model.norms_around if name.endswith("weight") else 0.0
        return self._keep(name, middle + OFFSET_SPREAD * self._normal((length,)))

    def _normal(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        return self._draw.standard_normal(shape, np.float32)

    def _keep(self, name: str, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        self.tensors[name] = values.astype(np.float16)
        return self.tensors[name].astype(np.float32)


def write(model: Model, folder: Path) -> Made:
    """Write a checkpoint in the layout of a Hub repository, in float16."""
    folder.mkdir(parents=True)
    config = model.config | {"vocab_size": VOCABULARY}
    (folder / "config.json").write_text(json.dumps(config))
    _write_tokenizer(folder)
    if model.config["model_type"] == "model2vec":
        table = np.random.default_rng(SEED).standard_normal((VOCABULARY, model.hidden_size))
        save_file({"embeddings": table.astype(np.float16)}, folder / "model.safetensors")
        return Made(folder=folder, products=())
    drawn = _Drawn(model, folder)
    stated = ModelConfig(folder / "config.json", config)
    _build(class_of(stated).read(stated), drawn)
    named = {_published(name, model): values for name, values in drawn.tensors.items()}
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    return Made(folder=folder, products=tuple(drawn.products))


def _build(architecture: Architecture, drawn: _Drawn) -> None:
    from emberd.backends.openvino.graph import Weights
    from emberd.backends.openvino.model import build

    build(architecture, Weights(cast("Checkpoint", drawn), compute="f32", scratch=drawn.folder))


def _published(name: str, model: Model) -> str:
    """Return the name that a tensor has in the published files."""
    for ours, theirs in model.names.items():
        name = name.replace(ours, theirs)
    return name


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {str(number): number for number in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="0"))  # noqa: S106 - a token
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))


def texts(lengths: Sequence[int]) -> list[str]:
    """Return texts of these lengths, in tokens, which are drawn anew for each."""
    draw = np.random.default_rng(SEED)
    return [" ".join(map(str, draw.integers(1000, VOCABULARY, length))) for length in lengths]


def linear_flop(products: Sequence[tuple[int, int]]) -> float:
    """Return the operations of all layers' products for a token."""
    return float(sum(2 * inputs * outputs for inputs, outputs in products))

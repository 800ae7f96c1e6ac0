"""A tiny checkpoint of each architecture, and what Hugging Face transformers makes of it.

Writes one folder per architecture under `tiny/`, in the layout of a Hub repository: random weights
from a fixed seed (far from the usual zeros and ones, so that a forgotten bias, norm or mask moves
every vector), a small trained tokenizer, and the sentence-transformers files. Next to them,
`reference.npz` holds token ids and pooled vectors of a few texts, `reference.json` their
provenance. It uses nothing of the server under test. A second run writes the same bytes.
"""

import hashlib
import importlib.metadata
import json
import math
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import jina_bert
import numpy as np
import numpy.typing as npt
import published
import torch
import transformers
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoConfig,
    AutoModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

Vectors = npt.NDArray[np.float32]
Json = Mapping[str, object]

TINY = Path(__file__).parent / "tiny"
PACKAGES = ("transformers", "torch", "tokenizers", "safetensors", "numpy", "sentence-transformers")
MAX_FOLDER_BYTES = 300_000
MIN_COSINE = 0.9999999
OFFSET_STD = 0.2
RELATIVE_BIAS_STD = 1.0
MODULES = "sentence_transformers.models"
HIDDEN = 64
HEADS = 4
POOLING_MODES = {"mean": "mean", "cls": "cls", "last": "lasttoken"}
POOLING_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "sqrt": "pooling_mode_mean_sqrt_len_tokens",
    "weighted": "pooling_mode_weightedmean_tokens",
    "last": "pooling_mode_lasttoken",
}

CORPUS = """\
An ember is what stays of a fire when the flame is gone. It glows while there is air and goes cold
when nobody asks for it. A server turns texts into vectors: it reads a text, cuts it into tokens,
looks up a vector for each of them, and lets every token look at the others. At the end one vector
is left, and two texts that mean the same have vectors that point the same way. What does it cost?
A second of time, a little memory, and somebody who measures it. The first answer is slow, the
second is fast, and the hundredth is as fast as the second. Numbers: 0, 1, 2, 3, 10, 42, 1984.
We keep ash, coal and warm stones; we give back what we do not need. Déjà vu, a naïve café.
"""
PASSAGE = (
    "The server keeps a model warm while somebody asks, and lets it go cold when nobody does."
    " A cold model is read from its files, which takes a second; a warm one answers at once."
)


def texts(pad_token: str) -> dict[str, str]:
    """Return the texts by what they are for; `pad_token` stands in one of them as written."""
    return {
        "empty": "",
        "one-token": "a",
        "question": "What is an ember?",
        "sentence": "A server turns texts into vectors.",
        "same-words-other-order": "Vectors into texts a server turns.",
        "repeated-token": "glow glow glow glow glow glow glow",
        "capitals-digits-punctuation": "WARM ASH -- 3.14% (x1F); #7!",
        "accents": "Déjà vu: naïve café, Übergröße.",
        "unknown-characters": "火 🔥 ember",
        "whitespace": "  two\n\n\tlines  ",
        "pad-token-in-the-text": f"ash {pad_token} coal",
        "long": "It keeps a model warm while somebody asks.",
        "cut": f"{PASSAGE} {PASSAGE}",
        "cut-from-far-more": " ".join(PASSAGE.split()[::-1] * 3),
    }


class LlamaBidirecConfig(LlamaConfig):
    """Llama without the causal mask, for which transformers has no `model_type` of its own."""

    model_type: ClassVar[str] = "llama_bidirec"
    is_causal: ClassVar[bool] = False


class LlamaBidirecModel(LlamaModel):
    """The model of `LlamaBidirecConfig`."""

    config_class = LlamaBidirecConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What makes one architecture's checkpoint; its name is its `model_type` and its folder.

    `pooling` is what `1_Pooling` states, `poolings` are those with reference vectors. `heads` are
    the widths after each Dense head. `special` are the roles in `tokenizer_config.json`. A norm
    that adds one to its weight has weights around zero. `tensors` are those of the published
    checkpoints, where transformers has others. `model` is its class in transformers, unless that
    has none and a class here stands in. A static model is a table of vectors, of which a text has
    the mean; it has no class there.
    """

    name: str
    config: Json
    tokenizer: Callable[[], Tokenizer]
    tokenizer_class: str
    special: Mapping[str, str]
    max_tokens: int
    pooling: str
    poolings: tuple[str, ...]
    heads: tuple[int, ...] = ()
    has_pooler: bool = True
    has_sdpa: bool = True
    norms_add_one: bool = False
    weight_std: float = 0.2
    tokenizer_config: Json = field(default_factory=dict)
    states_max_seq_length: bool = True
    tensors: Callable[[PreTrainedConfig], published.Shapes] | None = None
    model: str | type[PreTrainedModel] = "AutoModel"
    is_static: bool = False


# Tokenizers: a small one of each kind that real repositories have, with a vocabulary made of
# CORPUS. Those of the library's trainers that give the same result every time are used.


def frequent_pieces(words: Iterable[str], count: int) -> list[tuple[str, int]]:
    """Return every character of `words` and the `count` pieces that save the most, with counts."""
    seen = Counter(
        word[start:end]
        for word in words
        for start in range(len(word))
        for end in range(start + 1, len(word) + 1)
    )
    longer = [piece for piece in seen if len(piece) > 1 and seen[piece] > 1]
    longer.sort(key=lambda piece: (-seen[piece] * (len(piece) - 1), piece))
    characters = sorted(piece for piece in seen if len(piece) == 1)
    return [(piece, seen[piece]) for piece in [*characters, *longer[:count]]]


def finish(tokenizer: Tokenizer, template: str, last: tuple[str, ...] = ()) -> Tokenizer:
    """Add special tokens after the vocabulary, and put a text into `template`."""
    for text in last:
        tokenizer.add_special_tokens([AddedToken(text, lstrip=text == "<mask>", special=True)])
    names = [part for part in template.split() if part != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(name, tokenizer.token_to_id(name)) for name in names]
    )
    return tokenizer


def word_pieces(
    first: tuple[str, ...], template: str, last: tuple[str, ...] = (), count: int = 40
) -> Tokenizer:
    """Return BERT's kind: lower case, no accents, whole words and `##` pieces."""
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words = [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(CORPUS))]
    heads = [piece for piece, _ in frequent_pieces(words, count)]
    tails = [f"##{piece}" for piece, _ in frequent_pieces((word[1:] for word in words), count)]
    vocabulary = {token: index for index, token in enumerate([*first, *heads, *tails])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(first))
    return finish(tokenizer, template, last)


def unigram(
    first: tuple[str, ...],
    template: str,
    last: tuple[str, ...],
    *,
    count: int = 120,
    unknown: str = "<unk>",
) -> Tokenizer:
    """Return XLM-R's kind: SentencePiece's unigram model, each word marked in front."""
    pieces = frequent_pieces((f"▁{word}" for word in CORPUS.split()), count)
    total = sum(count for _, count in pieces)
    scores = [(piece, round(math.log(count / total), 4)) for piece, count in pieces]
    tokenizer = Tokenizer(
        models.Unigram([*((token, 0.0) for token in first), *scores], first.index(unknown))
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(list(first))
    return finish(tokenizer, template, last)


def deberta_unigram(first: tuple[str, ...], template: str, last: tuple[str, ...]) -> Tokenizer:
    """Return DeBERTa's kind: `unigram`, whose texts are normalized as `DebertaV2Tokenizer` does."""
    tokenizer = unigram(first, template, last, unknown="[UNK]")
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "),
            normalizers.NFC(),
            normalizers.Strip(left=False, right=True),
        ]
    )
    return tokenizer


ALL_BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
ASCII = [chr(code) for code in range(33, 127)]


def byte_pairs(
    first: tuple[str, ...],
    template: str,
    last: tuple[str, ...],
    alphabet: list[str],
    size: int,
) -> Tokenizer:
    """Return GPT-2's kind: merges of bytes. A byte outside `alphabet` and CORPUS is dropped."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        (f" {word}" for word in CORPUS.split()),
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(first),
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    return finish(tokenizer, template, last)


def character_pairs(first: tuple[str, ...], template: str) -> Tokenizer:
    """Return Gemma's kind: merges of characters, of which the space is one."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))  # noqa: S106
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Replace("▁", " ")
    tokenizer.train_from_iterator(
        (f" {word}" for word in CORPUS.split()),
        trainers.BpeTrainer(vocab_size=120, special_tokens=list(first), show_progress=False),
    )
    return finish(tokenizer, template)


BERT_SIZES = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "intermediate_size": HIDDEN,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
}
ROBERTA_IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
ROBERTA_FIRST = ("<s>", "<pad>", "</s>", "<unk>")
ROBERTA_SPECIAL = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
BERT_FIRST = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BERT_SPECIAL = {
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}
BERT_TOKENIZER: Mapping[str, Any] = {
    "tokenizer": lambda: word_pieces(BERT_FIRST, "[CLS] $A [SEP]"),
    "tokenizer_class": "BertTokenizer",
    "tokenizer_config": {"do_lower_case": True, "tokenize_chinese_chars": True},
    "special": BERT_SPECIAL,
}
DECODER_SIZES = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "head_dim": HIDDEN // HEADS,
    "intermediate_size": HIDDEN,
    "hidden_act": "silu",
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-06,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_cache": True,
}
T5_SIZES = {
    "d_model": HIDDEN,
    "d_ff": HIDDEN,
    "num_layers": 2,
    "d_kv": HIDDEN // HEADS,
    "n_positions": 130,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-06,
    "initializer_factor": 1.0,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "is_encoder_decoder": False,
    "use_cache": False,
}
ENCODER_POOLINGS = ("mean", "cls", "last")

FAMILIES = (
    Family(
        name="bert",
        config={
            "architectures": ["BertModel"],
            **BERT_SIZES,
            "layer_norm_eps": 1e-12,
            "max_position_embeddings": 40,
            "pad_token_id": 0,
            "position_embedding_type": "absolute",
            "type_vocab_size": 2,
            "use_cache": True,
        },
        **BERT_TOKENIZER,
        max_tokens=40,
        pooling="mean",
        poolings=ENCODER_POOLINGS,
    ),
    Family(
        name="roberta",
        config={
            "architectures": ["RobertaModel"],
            **BERT_SIZES,
            **ROBERTA_IDS,
            "layer_norm_eps": 1e-05,
            "max_position_embeddings": 42,
            "position_embedding_type": "absolute",
            "type_vocab_size": 1,
            "use_cache": True,
        },
        tokenizer=lambda: byte_pairs(ROBERTA_FIRST, "<s> $A </s>", ("<mask>",), ASCII, size=180),
        tokenizer_class="RobertaTokenizer",
        tokenizer_config={"add_prefix_space": False, "trim_offsets": True},
        special=ROBERTA_SPECIAL,
        max_tokens=40,
        pooling="mean",
        poolings=ENCODER_POOLINGS,
        has_pooler=False,
    ),
    Family(
        name="xlm-roberta",
        config={
            "architectures": ["XLMRobertaModel"],
            **BERT_SIZES,
            **ROBERTA_IDS,
            "layer_norm_eps": 1e-05,
            "max_position_embeddings": 42,
            "output_past": True,
            "position_embedding_type": "absolute",
            "type_vocab_size": 1,
            "use_cache": True,
        },
        tokenizer=lambda: unigram(ROBERTA_FIRST, "<s> $A </s>", ("<mask>",)),
        tokenizer_class="XLMRobertaTokenizer",
        special=ROBERTA_SPECIAL,
        max_tokens=40,
        pooling="mean",
        poolings=ENCODER_POOLINGS,
    ),
    Family(
        name="mpnet",
        config={
            "architectures": ["MPNetModel"],
            **BERT_SIZES,
            **ROBERTA_IDS,
            "layer_norm_eps": 1e-05,
            "max_position_embeddings": 132,
            "relative_attention_num_buckets": 32,
        },
        tokenizer=lambda: word_pieces(
            (*ROBERTA_FIRST, "[UNK]"), "<s> $A </s>", ("<mask>",), count=36
        ),
        tokenizer_class="MPNetTokenizer",
        tokenizer_config={"do_lower_case": True, "tokenize_chinese_chars": True},
        special={**ROBERTA_SPECIAL, "unk_token": "[UNK]"},
        max_tokens=130,
        pooling="mean",
        poolings=ENCODER_POOLINGS,
        has_pooler=False,
        has_sdpa=False,
    ),
    Family(
        name="deberta-v2",
        config={
            "architectures": ["DebertaV2Model"],
            **BERT_SIZES,
            "layer_norm_eps": 1e-07,
            "max_position_embeddings": 64,
            "max_relative_positions": -1,
            "norm_rel_ebd": "layer_norm",
            "pad_token_id": 0,
            "pooler_dropout": 0,
            "pooler_hidden_act": "gelu",
            "pooler_hidden_size": HIDDEN,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "position_buckets": 16,
            "relative_attention": True,
            "share_att_key": True,
            "type_vocab_size": 0,
        },
        tokenizer=lambda: deberta_unigram(
            ("[PAD]", "[CLS]", "[SEP]", "[UNK]"), "[CLS] $A [SEP]", ("[MASK]",)
        ),
        tokenizer_class="DebertaV2Tokenizer",
        special=BERT_SPECIAL,
        max_tokens=64,
        pooling="mean",
        poolings=ENCODER_POOLINGS,
        has_pooler=False,
        has_sdpa=False,
    ),
    Family(
        name="distilbert",
        config={
            "architectures": ["DistilBertModel"],
            "dim": HIDDEN,
            "n_layers": 2,
            "n_heads": HEADS,
            "hidden_dim": HIDDEN,
            "activation": "gelu",
            "max_position_embeddings": 40,
            "pad_token_id": 0,
            "sinusoidal_pos_embds": False,
            "tie_weights_": True,
        },
        tokenizer=lambda: word_pieces(
            ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), "[CLS] $A [SEP]"
        ),
        tokenizer_class="DistilBertTokenizer",
        tokenizer_config={"do_lower_case": True, "tokenize_chinese_chars": True},
        special=BERT_SPECIAL,
        max_tokens=40,
        pooling="mean",
        poolings=ENCODER_POOLINGS,
    ),
    *(
        Family(
            name=name,
            config={
                "model_type": "t5",
                "architectures": ["T5EncoderModel"],
                **T5_SIZES,
                "num_heads": heads,
                "feed_forward_proj": feed_forward,
            },
            tokenizer=lambda: unigram(("<pad>", "</s>", "<unk>"), "$A </s>", ()),
            tokenizer_class="T5Tokenizer",
            tokenizer_config={"extra_ids": 0},
            special={"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
            max_tokens=130,
            pooling="mean",
            weight_std=0.1,
            poolings=ENCODER_POOLINGS,
            has_sdpa=False,
            model="T5EncoderModel",
        )
        for name, feed_forward, heads in (
            ("t5", "relu", HEADS),
            ("t5-gated", "gated-gelu", HEADS // 2),
        )
    ),
    Family(
        name="model2vec",
        config={
            "architectures": ["StaticModel"],
            "tokenizer_name": "tiny",
            "apply_pca": HIDDEN,
            "hidden_dim": HIDDEN,
            "seq_length": 1000000,
            "normalize": True,
        },
        # it adds special tokens, which must not be asked for
        tokenizer=lambda: word_pieces(("[PAD]", "[UNK]", "[CLS]", "[SEP]"), "[CLS] $A [SEP]"),
        tokenizer_class="PreTrainedTokenizerFast",
        special={"unk_token": "[UNK]", "pad_token": "[PAD]"},
        max_tokens=40,
        pooling="mean",
        poolings=("mean",),
        has_sdpa=False,
        states_max_seq_length=False,
        is_static=True,
    ),
    Family(
        name="nomic_bert",
        config={
            "architectures": ["NomicBertModel"],
            "activation_function": "swiglu",
            "causal": False,
            "layer_norm_epsilon": 1e-12,
            "max_trained_positions": 32,
            "mlp_fc1_bias": False,
            "mlp_fc2_bias": False,
            "n_embd": HIDDEN,
            "n_head": HEADS,
            "n_inner": HIDDEN,
            "n_layer": 2,
            "n_positions": 64,
            "pad_vocab_size_multiple": 1,
            "parallel_block": False,
            "prenorm": False,
            "qkv_proj_bias": False,
            "rotary_emb_base": 700,
            "rotary_emb_fraction": 1.0,
            "rotary_emb_interleaved": False,
            "rotary_emb_scale_base": None,
            "rotary_scaling_factor": None,
            "type_vocab_size": 2,
            "use_rms_norm": False,
            # the same in the words of Transformers 5, as in the published files of today
            **BERT_SIZES,
            "hidden_act": "silu",
            "max_position_embeddings": 32,
            "rope_parameters": {"rope_theta": 700.0, "rope_type": "default"},
            "pad_token_id": 0,
        },
        **BERT_TOKENIZER,
        max_tokens=64,
        pooling="mean",
        poolings=ENCODER_POOLINGS,
        tensors=published.nomic_bert,
    ),
    *(
        Family(
            name=name,
            config={
                "model_type": "bert",
                "architectures": ["JinaBertForMaskedLM"],
                "auto_map": {"AutoModel": f"jinaai/{code}--modeling_bert.JinaBertModel"},
                **BERT_SIZES,
                "emb_pooler": "mean",
                "feed_forward_type": feed_forward,
                "layer_norm_eps": 1e-12,
                "max_position_embeddings": 300,
                "model_max_length": 300,
                "pad_token_id": 0,
                "position_embedding_type": "alibi",
                "type_vocab_size": 2,
                "use_cache": True,
            },
            **{
                **BERT_TOKENIZER,
                "tokenizer": lambda: word_pieces(BERT_FIRST, "[CLS] $A [SEP]", count=30),
            },
            max_tokens=300,
            pooling="mean",
            poolings=ENCODER_POOLINGS,
            has_sdpa=False,
            model=jina_bert.JinaBertModel,
        )
        for name, code, feed_forward in (
            ("jina_bert", "jina-bert-implementation", "geglu"),
            ("jina_bert-code", "jina-bert-v2-qk-post-norm", "reglu"),
        )
    ),
    Family(
        name="new",
        config={
            "architectures": ["NewModel"],
            **BERT_SIZES,
            "layer_norm_eps": 1e-12,
            "layer_norm_type": "layer_norm",
            "logn_attention_clip1": False,
            "logn_attention_scale": False,
            "max_position_embeddings": 64,
            "pack_qkv": True,
            "pad_token_id": 0,
            "position_embedding_type": "rope",
            "rope_scaling": {"factor": 3.0, "type": "ntk"},
            "rope_theta": 500,
            "type_vocab_size": 0,
            "unpad_inputs": False,
            "use_memory_efficient_attention": False,
        },
        **BERT_TOKENIZER,
        max_tokens=64,
        pooling="mean",
        poolings=ENCODER_POOLINGS,
        tensors=published.gte,
    ),
    Family(
        name="gte",
        config={
            "architectures": ["GteModel"],
            **BERT_SIZES,
            "layer_norm_eps": 1e-12,
            "layer_norm_type": "layer_norm",
            "logn_attention_scale": False,
            "max_position_embeddings": 64,
            "pack_qkv": True,
            "pad_token_id": 1,
            "position_embedding_type": "rope",
            "rope_scaling": None,
            "rope_theta": 4000,
            "type_vocab_size": 1,
        },
        tokenizer=lambda: unigram(ROBERTA_FIRST, "<s> $A </s>", ("<mask>",), count=100),
        tokenizer_class="XLMRobertaTokenizer",
        special=ROBERTA_SPECIAL,
        max_tokens=64,
        pooling="mean",
        poolings=ENCODER_POOLINGS,
        tensors=published.gte,
    ),
    Family(
        name="modernbert",
        config={
            "architectures": ["ModernBertModel"],
            "hidden_size": HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": HEADS,
            "intermediate_size": HIDDEN,
            "hidden_activation": "gelu",
            "max_position_embeddings": 64,
            "global_attn_every_n_layers": 3,
            "global_rope_theta": 20000.0,
            "local_attention": 16,
            "local_rope_theta": 1000.0,
            "norm_eps": 1e-05,
            "norm_bias": False,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "embedding_dropout": 0.0,
            "mlp_bias": False,
            "mlp_dropout": 0.0,
            "classifier_pooling": "mean",
            "position_embedding_type": "absolute",
            "pad_token_id": 3,
            "bos_token_id": 1,
            "cls_token_id": 1,
            "eos_token_id": 2,
            "sep_token_id": 2,
            "tie_word_embeddings": True,
        },
        tokenizer=lambda: byte_pairs(
            ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"), "[CLS] $A [SEP]", (), ASCII, size=150
        ),
        tokenizer_class="PreTrainedTokenizerFast",
        tokenizer_config={"model_input_names": ["input_ids", "attention_mask"]},
        special=BERT_SPECIAL,
        max_tokens=64,
        pooling="mean",
        weight_std=0.15,
        poolings=ENCODER_POOLINGS,
    ),
    Family(
        name="qwen3",
        config={
            "architectures": ["Qwen3ForCausalLM"],
            **DECODER_SIZES,
            "rope_theta": 50000,
            "rope_scaling": None,
            "max_window_layers": 2,
            "sliding_window": None,
            "use_sliding_window": False,
            "bos_token_id": 280,
            "eos_token_id": 280,
            "tie_word_embeddings": True,
        },
        tokenizer=lambda: byte_pairs(
            (), "$A <|endoftext|>", ("<|endoftext|>", "<|im_end|>"), ALL_BYTES, size=280
        ),
        tokenizer_class="Qwen2Tokenizer",
        tokenizer_config={"padding_side": "left", "add_prefix_space": False, "unk_token": None},
        special={"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        max_tokens=64,
        pooling="last",
        weight_std=0.15,
        poolings=("last", "mean"),
        states_max_seq_length=False,
    ),
    Family(
        name="gemma3_text",
        config={
            "architectures": ["Gemma3TextModel"],
            **{key: DECODER_SIZES[key] for key in DECODER_SIZES if key != "hidden_act"},
            "num_key_value_heads": 1,
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": 24,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window_pattern": 2,
            "_sliding_window_pattern": 2,
            "sliding_window": 16,
            "use_bidirectional_attention": True,
            "rope_theta": 200000.0,
            "rope_local_base_freq": 2000.0,
            "rope_scaling": None,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
        },
        tokenizer=lambda: character_pairs(("<pad>", "<eos>", "<bos>", "<unk>"), "<bos> $A <eos>"),
        tokenizer_class="GemmaTokenizer",
        tokenizer_config={"add_bos_token": True, "add_eos_token": True, "padding_side": "right"},
        special={
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
        },
        max_tokens=64,
        pooling="mean",
        weight_std=0.15,
        poolings=("mean",),
        heads=(4 * HIDDEN, HIDDEN),
        norms_add_one=True,
    ),
    Family(
        name="llama_bidirec",
        config={
            "architectures": ["LlamaBidirectionalModel"],
            **DECODER_SIZES,
            "mlp_bias": False,
            "pooling": "avg",
            "rope_theta": 100000.0,
            "rope_scaling": {
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 64,
                "rope_type": "llama3",
            },
            "rms_norm_eps": 1e-05,
            "bos_token_id": 280,
            "eos_token_id": 281,
            "tie_word_embeddings": True,
        },
        tokenizer=lambda: byte_pairs(
            (),
            "<|begin_of_text|> $A",
            ("<|begin_of_text|>", "<|end_of_text|>"),
            ALL_BYTES,
            size=280,
        ),
        tokenizer_class="PreTrainedTokenizerFast",
        tokenizer_config={"padding_side": "right"},
        special={
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|end_of_text|>",
            "pad_token": "<|end_of_text|>",
        },
        max_tokens=64,
        pooling="mean",
        weight_std=0.15,
        poolings=ENCODER_POOLINGS,
    ),
)


# The checkpoint: what a Hub repository of this architecture holds.


def random_weight(family: Family, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return what a trained tensor of this name could hold, the same on every run."""
    seed = int.from_bytes(hashlib.sha256(f"{family.name}/{name}".encode()).digest()[:8], "little")
    noise = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    if "relative_attention_bias" in name:
        noise *= RELATIVE_BIAS_STD
    elif len(shape) > 1:
        noise *= family.weight_std
    else:
        noise *= OFFSET_STD
        if name.endswith("weight") and not family.norms_add_one:
            noise += 1
    return torch.from_numpy(noise)


def write_checkpoint(family: Family, folder: Path) -> None:
    """Write a folder in the layout of a Hub repository, with random weights in float32."""
    tokenizer = family.tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    write_json(
        folder / "config.json",
        {
            "model_type": family.name,
            "vocab_size": tokenizer.get_vocab_size(),
            "torch_dtype": "float32",
            **family.config,
        },
    )
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": family.tokenizer_class,
            "model_max_length": family.max_tokens,
            "clean_up_tokenization_spaces": False,
            **family.special,
            **family.tokenizer_config,
        },
    )
    if family.states_max_seq_length:
        write_json(
            folder / "sentence_bert_config.json",
            {"max_seq_length": family.max_tokens, "do_lower_case": False},
        )
    if family.is_static:
        write_static(family, folder, tokenizer.get_vocab_size())
        return
    tensors = {
        name: random_weight(family, name, shape)
        for name, shape in shapes_of(family, AutoConfig.from_pretrained(folder)).items()
        if family.has_pooler or not name.startswith("pooler.")
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_modules(family, folder)


def write_static(family: Family, folder: Path, tokens: int, size: int = HIDDEN) -> None:
    """Write a static model whose tokens share fewer vectors, each with a weight of its own."""
    rows = tokens * 3 // 4
    mapping = torch.from_numpy(np.random.default_rng(5).permutation(tokens) % rows)
    tensors = {
        "embeddings": random_weight(family, "embeddings", (rows, size)),
        "weights": random_weight(family, "weights", (tokens,)) + 1,
        "mapping": mapping,
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(
        folder / "modules.json",
        [
            {"idx": 0, "name": "0", "path": ".", "type": f"{MODULES}.StaticEmbedding"},
            {"idx": 1, "name": "1", "path": "1_Normalize", "type": f"{MODULES}.Normalize"},
        ],
    )


def class_of(family: Family) -> Any:  # noqa: ANN401 - AutoModel is no PreTrainedModel
    """Return the class of its model."""
    return getattr(transformers, family.model) if isinstance(family.model, str) else family.model


def shapes_of(family: Family, config: PreTrainedConfig) -> published.Shapes:
    """Return the shapes of a checkpoint's tensors by their names."""
    if family.tensors:
        return family.tensors(config)
    kind = class_of(family)
    model = kind.from_config(config) if family.model == "AutoModel" else kind(config)
    names = model.state_dict().keys() - (model._tied_weights_keys or {}).keys()
    return {name: tuple(model.state_dict()[name].shape) for name in names}


def write_modules(family: Family, folder: Path, size: int = HIDDEN) -> None:
    """Write the steps of sentence-transformers: pooling, Dense heads, unit length."""
    steps = [("", "Transformer"), ("1_Pooling", "Pooling")]
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": size,
            **{flag: mode == family.pooling for mode, flag in POOLING_FLAGS.items()},
            "include_prompt": True,
        },
    )
    width = size
    for index, out in enumerate(family.heads, start=2):
        step = f"{index}_Dense"
        steps.append((step, "Dense"))
        write_json(
            folder / step / "config.json",
            {
                "in_features": width,
                "out_features": out,
                "bias": False,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
        )
        weight = random_weight(family, f"{step}/linear.weight", (out, width))
        save_file(
            {"linear.weight": weight.to(torch.bfloat16)},
            folder / step / "model.safetensors",
            metadata={"format": "pt"},
        )
        width = out
    steps.append((f"{len(steps)}_Normalize", "Normalize"))
    write_json(
        folder / "modules.json",
        [
            {
                "idx": index,
                "name": str(index),
                "path": path,
                "type": f"{MODULES}.{kind}",
            }
            for index, (path, kind) in enumerate(steps)
        ],
    )


# The reference: what transformers makes of that folder.


def load_model(family: Family, folder: Path, attention: str) -> PreTrainedModel:
    """Return the model in float32 on the CPU, read from the folder."""
    model: PreTrainedModel = class_of(family).from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention, local_files_only=True
    )
    return model.eval()


def pool(token_vectors: torch.Tensor, pooling: str) -> torch.Tensor:
    """Reduce `(T, D)`, all of it tokens, to `(D,)`."""
    if pooling == "mean":
        return token_vectors.mean(dim=0)
    return token_vectors[0 if pooling == "cls" else -1]


def embed(family: Family, folder: Path, attention: str, ids: list[list[int]]) -> dict[str, Vectors]:
    """Return for each pooling a vector of each text, computed alone; not of unit length."""
    model = load_model(family, folder, attention)
    heads = [
        load_file(folder / f"{index}_Dense" / "model.safetensors")["linear.weight"].float()
        for index, _ in enumerate(family.heads, start=2)
    ]
    rows: dict[str, list[torch.Tensor]] = {pooling: [] for pooling in family.poolings}
    for tokens in ids:
        batch = torch.tensor([tokens])
        with torch.inference_mode():
            out = model(input_ids=batch, attention_mask=torch.ones_like(batch)).last_hidden_state
            for pooling in family.poolings:
                vector = pool(out[0], pooling)
                for head in heads:
                    vector = head @ vector
                rows[pooling].append(vector)
    return {pooling: torch.stack(vectors).numpy() for pooling, vectors in rows.items()}


def embed_static(folder: Path, ids: list[list[int]]) -> dict[str, Vectors]:
    """Return the mean of each text's weighted token vectors, as model2vec computes it."""
    arrays = load_file(folder / "model.safetensors")
    by_token = arrays["embeddings"][arrays["mapping"]] * arrays["weights"][:, None]
    return {"mean": torch.stack([by_token[tokens].mean(dim=0) for tokens in ids]).numpy()}


def embed_by_sentence_transformers(
    family: Family, folder: Path, pooling: str, wanted: list[str]
) -> Vectors:
    """Return what sentence-transformers makes of the folder and the texts, all in one batch."""
    model = SentenceTransformer(
        str(folder),
        device="cpu",
        local_files_only=True,
        model_kwargs={"dtype": torch.float32, "attn_implementation": "eager"},
    )
    if not isinstance(family.model, str):  # it has loaded the class that transformers has
        model[0].model = load_model(family, folder, "eager")
    if pooling != family.pooling:
        model[1] = Pooling(HIDDEN, pooling_mode=POOLING_MODES[pooling])
    vectors: Vectors = model.encode(wanted, batch_size=len(wanted), convert_to_numpy=True)
    return vectors


def lowest_cosine(one: Vectors, other: Vectors) -> float:
    """Return the lowest cosine between rows of the same text."""
    left, right = one.astype(np.float64), other.astype(np.float64)
    products = (left * right).sum(axis=1)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float((products / lengths).min())


def is_known(tokenizer: Tokenizer, text: str) -> bool:
    """Say whether a text has tokens, all of which the tokenizer knows."""
    unknown = tokenizer.token_to_id(tokenizer.model.unk_token)
    return bool(text) and unknown not in tokenizer.encode(text).ids


def write_reference(family: Family, folder: Path, old: dict[str, object]) -> None:
    """Write `reference.npz` and `reference.json`.

    Raises:
        SystemExit: another way to compute the vectors gives others.
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    wanted = texts(family.special["pad_token"])
    if family.is_static:
        # model2vec leaves unknown tokens out, sentence-transformers does not
        tokenizer.post_processor = None
        wanted = {kind: text for kind, text in wanted.items() if is_known(tokenizer, text)}
    whole = [tokenizer.encode(text).ids for text in wanted.values()]
    if not family.is_static:  # sentence-transformers cuts no text of a static model
        tokenizer.enable_truncation(family.max_tokens)
    ids = [tokenizer.encode(text).ids for text in wanted.values()]
    vectors = embed_static(folder, ids) if family.is_static else embed(family, folder, "eager", ids)

    others = {
        "sentence-transformers, all texts in one padded batch": {
            pooling: embed_by_sentence_transformers(family, folder, pooling, list(wanted.values()))
            for pooling in family.poolings
        }
    }
    if family.has_sdpa:
        others["transformers with sdpa attention"] = embed(family, folder, "sdpa", ids)
    for way, other in others.items():
        for pooling in family.poolings:
            if (cosine := lowest_cosine(vectors[pooling], other[pooling])) < MIN_COSINE:
                raise SystemExit(f"{family.name}, {pooling}: cosine {cosine:.9f} by {way}")

    longest = max(map(len, ids))
    pad = tokenizer.token_to_id(family.special["pad_token"])
    np.savez_compressed(
        folder / "reference.npz",
        token_ids=np.array([row + [pad] * (longest - len(row)) for row in ids], np.int32),
        mask=np.array([[1] * len(row) + [0] * (longest - len(row)) for row in ids], np.int32),
        **vectors,
    )
    record: dict[str, object] = {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "sha256": {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
        "device": "cpu",
        "dtype": "float32",
        "attention": "eager",
        "normalized": False,
        "same_by": {"ways": sorted(others), "lowest_cosine": MIN_COSINE},
        "max_tokens": family.max_tokens,
        "pad_token_id": pad,
        "poolings": list(family.poolings),
        "texts": [
            {
                "row": row,
                "kind": kind,
                "text": text,
                "tokens": len(fed),
                "cut": len(all_) > len(fed),
            }
            for row, ((kind, text), fed, all_) in enumerate(
                zip(wanted.items(), ids, whole, strict=True)
            )
        ],
    }
    date = old.pop("date", None)
    today = datetime.now(tz=UTC).date().isoformat()
    record = {"date": date if date and old == record else today, **record}
    write_json(folder / "reference.json", record)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file, in a new folder if need be."""
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(value, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    """Write `tiny/` next to this script: all of it, or the architectures that are named.

    Raises:
        SystemExit: a folder is too big.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    AutoConfig.register("llama_bidirec", LlamaBidirecConfig)
    AutoModel.register(LlamaBidirecConfig, LlamaBidirecModel)
    AutoConfig.register("new", published.NewConfig)
    AutoModel.register(published.NewConfig, published.NewModel)
    published.register()

    for family in FAMILIES:
        if sys.argv[1:] and family.name not in sys.argv[1:]:
            continue
        folder = TINY / family.name
        record = folder / "reference.json"
        old = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_checkpoint(family, folder)
        write_reference(family, folder, old)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if size >= MAX_FOLDER_BYTES:
            raise SystemExit(f"{family.name} has {size} bytes")


if __name__ == "__main__":
    main()

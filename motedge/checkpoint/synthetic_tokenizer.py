"""A small byte-level BPE tokenizer with the real special ids, for checkpoints made here.

Its vocabulary is learned from the project's own sentences. Ids between the vocabulary and the special tokens stay
unused, as the embedding table has room for the real ones. The special tokens stand in the BPE vocabulary under their
real ids, because loaders number added tokens by the vocabulary's size otherwise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from motedge.checkpoint.synthetic_corpus import sentences
from motedge.files import atomic_open, write_json

# The real tokenizer needs 158 tokens for the DROID prompt; with this many learned tokens this one needs about as many.
MAX_LEARNED = 550

# Edge: the Nemotron family's first 32 ids are special; those without a known use are reserved.
_EDGE_NAMED = {
    0: "<pad>",
    1: "<s>",
    2: "</s>",
    10: "<|im_start|>",
    11: "<|im_end|>",
    12: "<think>",
    13: "</think>",
    18: "<|video_pad|>",
    19: "<|image_pad|>",
    20: "<|vision_start|>",
    21: "<|vision_end|>",
}
_EDGE_SPECIAL = {index: _EDGE_NAMED.get(index, f"<reserved_{index}>") for index in range(32)}
# Nano and Super: Qwen's published ids
_QWEN_SPECIAL = {
    151643: "<|endoftext|>",
    151644: "<|im_start|>",
    151645: "<|im_end|>",
    151652: "<|vision_start|>",
    151653: "<|vision_end|>",
    151654: "<|vision_pad|>",
    151655: "<|image_pad|>",
    151656: "<|video_pad|>",
}

# A content is a text, or a list of parts: {"type": "image"}, {"type": "video"}, {"type": "text", "text": ...}
_SHOWN = """\
{%- macro shown(content) -%}
{%- if content is string -%}
{{- content -}}
{%- else -%}
{%- for part in content -%}
{%- if part['type'] == 'text' -%}
{{- part['text'] -}}
{%- else -%}
{{- '<|vision_start|><|' + part['type'] + '_pad|><|vision_end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
"""
# The empty prompt must give 17 tokens with the generation prompt, the published count of Edge's scaffold.
# `/think` and `/no_think` are the family's switches; thinking is on unless the caller says otherwise.
_EDGE_TEMPLATE = (
    _SHOWN
    + """\
{%- set enable_thinking = enable_thinking if enable_thinking is defined else true -%}
{%- set switch = '/think' if enable_thinking else '/no_think' -%}
{%- if messages and messages[0]['role'] == 'system' -%}
{{- '<|im_start|>system\\n' + shown(messages[0]['content']) + ' ' + switch + '<|im_end|>\\n' -}}
{%- else -%}
{{- '<|im_start|>system\\n' + switch + '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages if message['role'] != 'system' -%}
{{- '<|im_start|>' + message['role'] + '\\n' + shown(message['content']) + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' + ('<think>\\n' if enable_thinking else '<think></think>') -}}
{%- endif -%}
"""
)
_QWEN_TEMPLATE = (
    _SHOWN
    + """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + shown(message['content']) + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
)


def write_tokenizer(folder: Path, family: str, vocab_size: int) -> None:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja.

    Args:
        folder: made if missing.
        family: decides the special ids and the template.
        vocab_size: rows of the embedding table; no id reaches it.

    Raises:
        HostError: the disk is full or not writable.
    """
    edge = family == "edge"
    special = _EDGE_SPECIAL if edge else _QWEN_SPECIAL
    first = len(special) if edge else 0
    room = vocab_size - first if edge else min(special)
    write_json(folder / "tokenizer.json", _tokenizer_json(special, first, min(room, MAX_LEARNED)))
    write_json(folder / "tokenizer_config.json", _settings(special, edge))
    with atomic_open(folder / "chat_template.jinja", "w") as stream:
        stream.write(_EDGE_TEMPLATE if edge else _QWEN_TEMPLATE)


def _tokenizer_json(special: dict[int, str], first: int, room: int) -> dict[str, Any]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=room, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(sentences(), trainer)
    description: dict[str, Any] = json.loads(tokenizer.to_str())
    learned = sorted(description["model"]["vocab"].items(), key=lambda item: item[1])
    vocab = {token: first + index for token, index in learned}
    vocab.update({token: index for index, token in special.items()})
    description["model"]["vocab"] = dict(sorted(vocab.items(), key=lambda item: item[1]))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    description["added_tokens"] = [{"id": index, "content": token, **flags} for index, token in special.items()]
    return description


def _settings(special: dict[int, str], edge: bool) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "bos_token": special[1] if edge else None,
        "eos_token": "<|im_end|>",
        "pad_token": special[0] if edge else special[151643],
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 131072 if edge else 262144,
        "added_tokens_decoder": {
            str(index): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for index, token in special.items()
        },
    }

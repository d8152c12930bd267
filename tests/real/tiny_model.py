"""Writes a language model of half a megabyte with random weights: it says nothing, at the speed of a model that does.

Architecture llama, two layers, one token a byte. What it writes is noise, so only what a grammar forces on it is ever
right; that makes it a hard examiner of everything around the model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

#: longest context the weights are declared for; what a server offers is its own setting
MAX_CONTEXT_TOKENS = 32_768

_SEED = 20_260_714
#: standard deviation of the weights
_SPREAD = 0.08
_EMBEDDING = 64
_FEED_FORWARD = 128
_LAYERS = 2
_HEADS = 4

#: llama.cpp takes a gpt2 vocabulary only with merges; this one is enough
_MERGE = ("t", "h")
_TEXT_END, _MESSAGE_BEGIN, _MESSAGE_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_model(path: Path) -> None:
    """The same bytes every time."""
    normal = [*_signs_of_bytes(), "".join(_MERGE)]
    tokens = [*normal, _TEXT_END, _MESSAGE_BEGIN, _MESSAGE_END]
    writer = GGUFWriter(path, "llama")
    writer.add_name("narrun tiny random")
    writer.add_context_length(MAX_CONTEXT_TOKENS)
    writer.add_vocab_size(len(tokens))
    writer.add_embedding_length(_EMBEDDING)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_block_count(_LAYERS)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(_EMBEDDING // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL] * len(normal) + [TokenType.CONTROL] * 3)
    writer.add_token_merges([" ".join(_MERGE)])
    writer.add_bos_token_id(tokens.index(_TEXT_END))
    writer.add_eos_token_id(tokens.index(_MESSAGE_END))
    writer.add_add_bos_token(False)
    writer.add_chat_template(_CHATML)
    _add_weights(writer, n_tokens=len(tokens))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_weights(writer: GGUFWriter, *, n_tokens: int) -> None:
    random = np.random.default_rng(_SEED)

    def add_matrix(name: str, rows: int, columns: int) -> None:
        writer.add_tensor(f"{name}.weight", random.normal(0, _SPREAD, (rows, columns)).astype(np.float32))

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(_EMBEDDING, np.float32))

    add_matrix("token_embd", n_tokens, _EMBEDDING)
    for layer in (f"blk.{number}" for number in range(_LAYERS)):
        add_norm(f"{layer}.attn_norm")
        for part in ("q", "k", "v", "output"):
            add_matrix(f"{layer}.attn_{part}", _EMBEDDING, _EMBEDDING)
        add_norm(f"{layer}.ffn_norm")
        add_matrix(f"{layer}.ffn_gate", _FEED_FORWARD, _EMBEDDING)
        add_matrix(f"{layer}.ffn_up", _FEED_FORWARD, _EMBEDDING)
        add_matrix(f"{layer}.ffn_down", _EMBEDDING, _FEED_FORWARD)
    add_norm("output_norm")
    add_matrix("output", n_tokens, _EMBEDDING)


def _signs_of_bytes() -> list[str]:
    """One printable sign for each byte, as byte-level vocabularies write them: itself where it can be seen, else one
    from U+0100 on, in order."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    stand_ins = iter(range(0x100, 0x200))
    return [chr(byte if byte in visible else next(stand_ins)) for byte in range(0x100)]

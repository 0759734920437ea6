"""llama.cpp as a contender: a GGUF file with a GPT-2 of ours, and greedy completion of several texts at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

from tripel.models.decoder import Decoder

KINDS = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
_NAMES = (
    ("decoder.final_norm", "output_norm"),
    ("tokens.weight", "token_embd.weight"),
    ("embedding.positions.weight", "position_embd.weight"),
    ("decoder.blocks.", "blk."),
    ("mixer_wiring.norm", "attn_norm"),
    ("mixer.query_key_value", "attn_qkv"),
    ("mixer.output", "attn_output"),
    ("feed_forward_wiring.norm", "ffn_norm"),
    ("feed_forward.inner", "ffn_up"),
    ("feed_forward.outer", "ffn_down"),
)


def write_gguf(model: Decoder, path: Path, kind: str) -> None:
    """A GPT-2 as llama.cpp reads it, its matrices in this kind (a key of KINDS), without a tokenizer."""
    config, quantization = model.config, KINDS[kind]
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(config.max_len)
    writer.add_embedding_length(config.d_model)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_block_count(config.n_layers)
    writer.add_head_count(config.mixer.n_heads)
    writer.add_layer_norm_eps(config.norm_eps)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(model.vocabulary.target_size)
    for name, tensor in model.state_dict().items():
        for ours, theirs in _NAMES:
            name = name.replace(ours, theirs)
        numbers = tensor.float().numpy()
        plain = numbers.ndim == 1 or name.startswith("position_embd")  # as llama.cpp's own converter leaves them
        chosen = gguf.GGMLQuantizationType.F32 if plain else quantization
        writer.add_tensor(name, gguf.quants.quantize(numbers, chosen), raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Llama:
    """A model file with a context for each of some numbers of texts that are completed together."""

    def __init__(self, path: Path, length: int, threads: int, sizes: Sequence[int]) -> None:
        llama_cpp.llama_log_set(_SILENT, None)
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot read {path}")
        self.n_tokens = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.contexts = {size: self._context(size, length, threads) for size in sizes}

    def _context(self, size: int, length: int, threads: int) -> Any:
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx, parameters.n_seq_max = size * (length + 8), size
        parameters.n_batch = parameters.n_ubatch = 512
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.no_perf = True
        return llama_cpp.llama_init_from_model(self.model, parameters)

    def complete(self, prompts: list[list[int]], n_tokens: int) -> list[list[int]]:
        """The n_tokens likeliest ids after each prompt, one after another."""
        context = self.contexts[len(prompts)]
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        batch = llama_cpp.llama_batch_init(512, 0, 1)
        answers: list[list[int]] = [[] for _ in prompts]
        new, start = prompts, 0
        for _ in range(n_tokens):
            for answer, token in zip(answers, self._read(context, batch, new, start), strict=True):
                answer.append(token)
            start += len(new[0])
            new = [answer[-1:] for answer in answers]
        llama_cpp.llama_batch_free(batch)
        return answers

    def _read(self, context: Any, batch: Any, new: list[list[int]], start: int) -> list[int]:
        """Read equally many ids of every text; the likeliest next id of each."""
        last, i = [], 0
        for row, ids in enumerate(new):
            for place, token in enumerate(ids):
                batch.token[i], batch.pos[i] = token, start + place
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, row
                batch.logits[i] = place + 1 == len(ids)
                i += 1
            last.append(i - 1)
        batch.n_tokens = i
        if llama_cpp.llama_decode(context, batch) != 0:
            raise RuntimeError("llama.cpp cannot decode")
        logits = [llama_cpp.llama_get_logits_ith(context, place) for place in last]
        return [int(np.argmax(np.ctypeslib.as_array(x, (self.n_tokens,)))) for x in logits]


@llama_cpp.llama_log_callback
def _SILENT(level: int, text: bytes, data: Any) -> None:
    pass

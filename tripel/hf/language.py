"""What the formats of language models share: token ids, settings of generate(), the head, the model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from tripel.hf.common import as_float32, require_equal
from tripel.models.config import DecoderConfig, Vocabulary

HEAD = "lm_head.weight"


class LanguageSettings(BaseModel):
    """The keys that every config.json of a language model has. Defaults are the formats' own, in subclasses."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    vocab_size: int = Field(ge=4, le=1 << 24)
    pad_token_id: int | None = None
    bos_token_id: int | None = Field(None, ge=0)
    eos_token_id: int = Field(ge=0)
    tie_word_embeddings: bool

    @field_validator("eos_token_id", mode="before")
    @classmethod
    def _one_id_ends_a_text(cls, value: Any) -> Any:
        if isinstance(value, list) and len(value) == 1:
            return value[0]
        if value is None or isinstance(value, list):
            raise ValueError("one id that ends a text; write the one you want into config.json")
        return value

    def vocabulary(self) -> Vocabulary:
        """Without a padding token inside the vocabulary, pad_id is eos_id: then no token is for padding alone."""
        pad, eos, bos = self.pad_token_id, self.eos_token_id, self.bos_token_id
        return Vocabulary(
            source_size=self.vocab_size,
            target_size=self.vocab_size,
            pad_id=pad if pad is not None and 0 <= pad < self.vocab_size else eos,
            eos_id=eos,
            start_id=eos if bos is None else bos,
        )


def token_ids(vocabulary: Vocabulary) -> dict[str, int | None]:
    """The special tokens of a config.json."""
    return {
        "bos_token_id": vocabulary.start_id,
        "eos_token_id": vocabulary.eos_id,
        "pad_token_id": vocabulary.padding_id,
    }


def generation(config: DecoderConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """Their generation_config.json under which generate() never says padding, and stops where the context ends."""
    banned = {} if vocabulary.padding_id is None else {"bad_words_ids": [[vocabulary.padding_id]]}
    return {**token_ids(vocabulary), "pad_token_id": vocabulary.pad_id, **banned, "max_length": config.max_len}


def stored_tensors(tensors: Mapping[str, Tensor], prefix: str, embedding: str, *, tied: bool) -> dict[str, Tensor]:
    """The tensors of a folder under the names of the model with its head, a tied matrix once.

    prefix: of the model without its head, whose folders have names without it. embedding: the matrix's name there.
    Raises FormatError when the matrices that are said to be tied differ.
    """
    rest = {
        name if name.startswith((prefix, "lm_head.")) else prefix + name: tensor
        for name, tensor in as_float32(tensors).items()
    }
    if tied and HEAD in rest:
        head = rest.pop(HEAD)
        require_equal("tie_word_embeddings", rest.setdefault(embedding, head), head)
    return rest


def usage(model_class: str) -> str:
    """A section of the model card: how to run the folder with transformers."""
    return f"""## With transformers

```python
from transformers import {model_class}, PreTrainedTokenizerFast

folder = "."
model = {model_class}.from_pretrained(folder)
tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
ids = tokenizer("...", return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids)[0], skip_special_tokens=True))
```

Answers end where the context does (max_length) or earlier; Tripel's window slides on.
"""

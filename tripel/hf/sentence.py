"""Folders of sentence-transformers (Reimers & Gurevych 2019): a model, and how one vector is made of its hidden states."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from tripel.errors import FormatError
from tripel.hf.bert import SentenceSettings
from tripel.models.config import EncoderConfig, Pooling
from tripel.storage import read_json, write_json
from tripel.text.tokenizer import Tokenizer

MODULES, POOLING, NORMALIZE, CUT = "modules.json", "1_Pooling", "2_Normalize", "sentence_bert_config.json"
# Older versions have a key for each, newer ones a name under pooling_mode.
_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class SentenceFolder:
    """model: the folder inside it that transformers opens. max_length: tokens after which it cuts a text, frame included."""

    model: Path
    settings: SentenceSettings
    max_length: int | None
    lowercase: bool

    def require_case(self, tokenizer: Tokenizer) -> None:
        """Refuse a folder that lower-cases texts before a tokenizer that does not. Raises FormatError."""
        if self.lowercase and tokenizer.encode("A") != tokenizer.encode("a"):
            raise FormatError(
                f"{CUT} lower-cases texts, the tokenizer does not",
                given="do_lower_case: true",
                expected="do_lower_case: false, or a tokenizer that lower-cases",
                mend="set do_lower_case in tokenizer_config.json instead, and save the tokenizer again",
            )


def read_sentence_folder(folder: Path) -> SentenceFolder | None:
    """What modules.json says; None without one. Raises FormatError for other modules than model, pooling, normalisation."""
    if not (folder / MODULES).exists():
        return None
    modules = _modules(folder)
    model = modules["Transformer"]
    cut = read_json(model / CUT) if (model / CUT).exists() else {}
    max_length = cut.get("max_seq_length")
    return SentenceFolder(
        model,
        SentenceSettings(pool=_pool(modules["Pooling"]), normalize="Normalize" in modules),
        max_length if isinstance(max_length, int) else None,
        cut.get("do_lower_case") is True,
    )


def write_sentence_folder(folder: Path, config: EncoderConfig) -> None:
    """Beside a model's files, those with which sentence-transformers opens the folder. Raises OSError."""
    names = [("", "Transformer"), (POOLING, "Pooling"), *([(NORMALIZE, "Normalize")] if config.normalize else [])]
    for path, _ in names:
        (folder / path).mkdir(exist_ok=True)
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(names)
    ]
    (folder / MODULES).write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")
    modes = {key: mode == config.pool for key, mode in _MODES.items()}
    write_json(folder / POOLING / "config.json", {"word_embedding_dimension": config.d_model, **modes})
    write_json(folder / CUT, {"max_seq_length": config.max_len, "do_lower_case": False})
    if config.normalize:
        write_json(folder / NORMALIZE / "config.json", {})


def _modules(folder: Path) -> dict[str, Path]:
    """The folder of each module, by the last part of its type."""
    try:
        listed: Any = json.loads((folder / MODULES).read_text(encoding="utf-8"))
        entries = [(str(module["type"]).rsplit(".", 1)[-1], module.get("path", "")) for module in listed]
        if not all(isinstance(path, str) and path == Path(path).name for _, path in entries):
            raise ValueError("a module's path leads out of the folder")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _refused(folder, f"{error}") from None
    names = [name for name, _ in entries]
    if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise _refused(folder, ", ".join(names))
    return {name: folder / path for name, path in entries}


def _refused(folder: Path, given: str) -> FormatError:
    return FormatError(
        f"Tripel cannot compute the modules of {MODULES}",
        given=f"{folder / MODULES}: {given}",
        expected="Transformer, Pooling and at most Normalize, in this order",
        mend="use a model without other modules, or import its inner model alone: remove modules.json from a copy",
    )


def _pool(folder: Path) -> Pooling:
    settings = read_json(folder / "config.json")
    named = settings.get("pooling_mode")
    if named is None:
        modes = [mode for key, mode in _MODES.items() if settings.get(key) is True]
    else:
        modes = list(named) if isinstance(named, list) else [named]
    if len(modes) != 1 or modes[0] not in get_args(Pooling):
        raise FormatError(
            "Tripel does not know this way of making one vector of a text",
            given=f"{folder / 'config.json'}: pooling_mode: {' and '.join(map(str, modes)) or 'none'}",
            expected=f"one of {', '.join(get_args(Pooling))}",
            mend="use a model that was trained with one of these",
        )
    return cast(Pooling, modes[0])

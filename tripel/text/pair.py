"""The tokenizers of a translation: one for both sides, or one each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tripel.text.tokenizer import Tokenizer, TokenizerConfig

FILE = "tokenizer.json"
TARGET_FILE = "tokenizer_target.json"


@dataclass(frozen=True)
class TokenizerPair:
    """source and target: the same object when the vocabulary is shared."""

    source: Tokenizer
    target: Tokenizer

    @property
    def shared(self) -> bool:
        """Whether one tokenizer serves both sides."""
        return self.source is self.target

    def equals(self, other: TokenizerPair) -> bool:
        """Whether both give the same ids for every text, on either side."""
        sides = ((self.source, other.source), (self.target, other.target))
        return all(ours is theirs or ours.to_json() == theirs.to_json() for ours, theirs in sides)

    @classmethod
    def train(cls, config: TokenizerConfig, sources: Iterable[str], targets: Iterable[str]) -> TokenizerPair:
        """One tokenizer on both sides' texts if config.shared, else one on each. Raises as Tokenizer.train."""
        if config.shared:
            tokenizer = Tokenizer.train(config, itertools.chain(sources, targets))
            return cls(tokenizer, tokenizer)
        return cls(Tokenizer.train(config, sources), Tokenizer.train(config, targets))

    @classmethod
    def load(cls, folder: str | Path) -> TokenizerPair:
        """Read tokenizer.json and, where it exists, tokenizer_target.json. Raises as Tokenizer.load."""
        folder = Path(folder)
        source = Tokenizer.load(folder / FILE)
        target_file = folder / TARGET_FILE
        return cls(source, Tokenizer.load(target_file) if target_file.exists() else source)

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and, when the sides differ, tokenizer_target.json."""
        folder = Path(folder)
        self.source.save(folder / FILE)
        if self.shared:
            (folder / TARGET_FILE).unlink(missing_ok=True)
        else:
            self.target.save(folder / TARGET_FILE)

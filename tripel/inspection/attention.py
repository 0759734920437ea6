"""Who looks at whom: the attention of a translation over its source, in words, as a grid for the terminal and a PNG."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text
from torch import Tensor

from tripel.errors import InputError
from tripel.files import atomic_writer
from tripel.inspection.taps import Recorder
from tripel.pipelines.translate import Translator
from tripel.text.tokenizer import Tokenizer

END = "</s>"
_SHADES, _ASCII_SHADES = " ░▒▓█", " .+*#"
_LEAST = (0.08, 0.25, 0.45, 0.7)  # weights from which a cell gets the next darker shade


@dataclass(frozen=True)
class CrossAttention:
    """How much each target word looked at each source word. weights_TS: rows are target words and sum to 1.

    The last word of each side is the end of the sentence. layer counts from 0. print() of rich draws a grid as wide as the
    console allows; save_png draws a picture.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    weights_TS: Tensor
    layer: int

    def best(self) -> list[tuple[str, str, float]]:
        """For each target word the source word it looked at most, and the weight."""
        values, indices = self.weights_TS.max(dim=1)
        found = zip(self.target, indices.tolist(), values.tolist(), strict=True)
        return [(word, self.source[index], value) for word, index, value in found]

    def save_png(self, path: str | Path) -> Path:
        """Write the picture; return its path. Raises InputError when it cannot be written."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import, and no window is wanted
        from matplotlib.figure import Figure

        n_rows, n_columns = self.weights_TS.shape
        figure = Figure(figsize=(2.4 + 0.52 * n_columns, 1.9 + 0.42 * n_rows), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(self.weights_TS.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(n_columns), self.source, rotation=45, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(n_rows), self.target)
        axes.xaxis.tick_top()
        axes.set_xlabel("source: what it looked at")
        axes.set_ylabel("translation: word being written")
        axes.set_title(f"Cross-attention, decoder layer {self.layer}, mean of its heads", fontsize=10)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        for row, column in self.weights_TS.gt(0.1).nonzero().tolist():
            weight = float(self.weights_TS[row, column])
            colour = "white" if weight > 0.55 else "black"
            axes.text(column, row, f"{weight:.1f}".lstrip("0"), ha="center", va="center", color=colour, fontsize=7)
        figure.colorbar(image, ax=axes, shrink=0.6, label="weight")
        path = Path(path)
        try:
            with atomic_writer(path) as file:
                FigureCanvasAgg(figure).print_png(file)
        except OSError as error:
            raise InputError(
                "the picture cannot be written",
                given=f"{path}: {error.strerror or error}",
                expected="a folder that this user may write to",
                mend="name another place",
            ) from None
        return path

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        label = max(map(cell_len, self.target))
        words = [max(cell_len(word), 2) for word in self.source]
        if label + sum(words) + 2 * len(words) <= options.max_width:
            yield Text(
                " " * label + "".join("  " + set_cell_size(w, n) for w, n in zip(self.source, words, strict=True))
            )
            yield from self._rows(label, words, options)
        elif label + 3 * len(words) <= options.max_width:
            height = max(map(len, self.source))
            for line in range(height):  # the words stand upright, their ends on one line
                letters = (word.rjust(height)[line] if cell_len(word) == len(word) else "?" for word in self.source)
                yield Text((" " * label + "".join(f"  {letter}" for letter in letters)).rstrip())
            yield from self._rows(label, [1] * len(words), options)
        else:
            for word, looked_at, weight in self.best():
                yield Text(f"{set_cell_size(word, label)}  {looked_at} {weight:.2f}", overflow="ellipsis", no_wrap=True)

    def _rows(self, label: int, widths: list[int], options: ConsoleOptions) -> Iterator[Text]:
        shades = _ASCII_SHADES if options.ascii_only else _SHADES
        for word, row in zip(self.target, self.weights_TS.tolist(), strict=True):
            line = Text(" " * (label - cell_len(word)) + word)
            for weight, width in zip(row, widths, strict=True):
                line.append("  ").append(shades[sum(weight >= least for least in _LEAST)] * width, style="blue")
            yield line


@torch.inference_mode()
def cross_attention(
    translator: Translator, text: str, translation: str | None = None, *, layer: int | None = None
) -> CrossAttention:
    """The cross-attention of a translation, given or made here by the translator's own search.

    A word's row is the mean over its pieces and over the layer's heads; a column is the sum over a source word's pieces.
    layer: the last by default, which comes nearest to word alignment in the models trained here. Raises InputError for a
    blank text, one longer than the model reads at once, or a layer that is not there.
    """
    model, tokenizers = translator.model, translator.tokenizers
    n_layers = model.config.decoder.n_layers
    if layer is None:
        layer = n_layers - 1
    if not 0 <= layer < n_layers:
        raise InputError("there is no such decoder layer", given=layer, expected=f"0 to {n_layers - 1}")
    if translation is None:
        translation = translator.translate(text).text
    source, target = _Words.of(tokenizers.source, text), _Words.of(tokenizers.target, translation)
    longest = max(len(source.ids), len(target.ids)) + 1
    if not text.strip() or longest > model.config.max_len:
        raise InputError(
            "the attention of this text cannot be shown",
            given=f"{longest} tokens" if text.strip() else "a blank text",
            expected=f"a sentence of at most {model.config.max_len} tokens, end token included",
        )
    vocabulary, device = model.vocabulary, next(model.parameters()).device
    recorder = Recorder(only=[f"decoder.{layer}.cross.weights"])
    source_BS = torch.tensor([[*source.ids, vocabulary.eos_id]], device=device)
    target_BT = torch.tensor([[vocabulary.start_id, *target.ids]], device=device)
    model.features(source_BS, target_BT, taps=recorder)
    weights_TS = recorder[f"decoder.{layer}.cross.weights"][0].mean(dim=0).cpu()
    sums_TS = weights_TS.new_zeros(len(weights_TS), len(source.words)).index_add_(1, source.numbers, weights_TS)
    means_TS = sums_TS.new_zeros(len(target.words), len(source.words)).index_add_(0, target.numbers, sums_TS)
    means_TS /= target.numbers.bincount()[:, None]
    return CrossAttention(source.words, target.words, means_TS, layer)


@dataclass(frozen=True)
class _Words:
    """A text's ids; its words, the end of the sentence as the last; for each id, and the end, the number of its word."""

    ids: tuple[int, ...]
    words: tuple[str, ...]
    numbers: Tensor

    @classmethod
    def of(cls, tokenizer: Tokenizer, text: str) -> _Words:
        explained, [(_, word_ids)] = tokenizer.explain(text), tokenizer.encode_words([text])
        spans: list[tuple[int, int]] = []
        numbers: list[int] = []
        previous: int | None = None
        for (start, end), word_id in zip(explained.offsets, word_ids, strict=True):
            if word_id is not None and word_id == previous:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
            previous = word_id
            numbers.append(len(spans) - 1)
        words = (text[start:end].strip() for start, end in spans)
        return cls(explained.ids, (*words, END), torch.tensor([*numbers, len(spans)]))

"""Translation speed against transformers' generate and CTranslate2 on the same weights, in one interleaved run.

    python benchmarks/decode_translation.py --run runs/en-de [--sentences 1000] [--rounds 5] [--workers 2] [--cpu] [--write]

Every contender translates the same sentences of Multi30k's test_2016_flickr (token ids in, token ids out) with greedy
search and with beam 5, as a whole and one sentence at a time, and takes its turn in every round; ratios are made within a
round and reported as medians with their spread. --cpu counts processor seconds instead of time, with one worker: for a
machine that is busy with other things. BLEU shows that all of them do the same work. Without --run a
tiny model with random weights writes answers of a fixed length instead, and there is no BLEU. Needs multi30k under
TRIPEL_DATA (or a connection to fetch it) and the packages `transformers` and `ctranslate2`.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctranslate2
import sacrebleu
import torch
import transformers
import yaml
from common import machine, markdown_table, spread, versions, write_result
from ctranslate2.converters.transformers import BartLoader
from rich.console import Console

from tripel.checkpoint import load_run, save_run
from tripel.data.checks import DataConfig
from tripel.data.parallel import load_splits
from tripel.decode import DecodeConfig, generate
from tripel.decode.prepare import prepare
from tripel.models.build import build
from tripel.models.catalog import transformer_tiny
from tripel.tasks.translation import vocabulary_of
from tripel.text.pair import TokenizerPair
from tripel.text.tokenizer import TokenizerConfig

FORCED_LENGTH = 16  # of the answers of a random model
TEST = "multi30k/test_2016_flickr"
Ids = list[list[int]]


@dataclass(frozen=True)
class Contender:
    """translate(sources, beam) gives the ids of the best answers. share: of the sentences it is given to time."""

    name: str
    translate: Callable[[Ids, int], Ids]
    share: float = 1.0


@dataclass(frozen=True)
class Setting:
    """What is timed: a search, on all sentences at once or on one after another."""

    name: str
    beam: int
    single: bool


SETTINGS = (
    Setting("all, greedy", 1, False),
    Setting("all, beam 5", 5, False),
    Setting("one, greedy", 1, True),
    Setting("one, beam 5", 5, True),
)


def main() -> None:
    arguments = _arguments()
    console = Console(stderr=True)
    torch.set_num_threads(arguments.workers)
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or _random_run(Path(folder) / "run")
        loaded = load_run(run)
        texts, references = _sentences(loaded.tokenizers, loaded.recipe_yaml, arguments.sentences)
        eos = loaded.vocabulary.eos_id
        sources = [[*ids, eos] for ids in loaded.tokenizers.source.encode_batch(texts)]
        contenders = _contenders(run, Path(folder), arguments.workers, forced=arguments.run is None)
        if arguments.skip:
            contenders = [contender for contender in contenders if not contender.name.startswith(arguments.skip)]
        console.print(f"{len(sources)} sentences, {sum(map(len, sources)) / len(sources):.1f} tokens each")
        bleu = _quality(contenders, sources, references, loaded.tokenizers, console) if arguments.run else {}
        clock = time.process_time if arguments.cpu else time.perf_counter
        timings = _timings(contenders, sources, arguments.rounds, clock, console)
    table = _table(contenders, timings, bleu)
    print(table)
    if arguments.write:
        write_result("decode_translation", title="Translation speed", table=table, notes=_notes(arguments))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a trained run folder; without it, random weights")
    parser.add_argument("--sentences", type=int, default=1000, help="how many sentences of the test set")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="workers of one thread each (threads of transformers)")
    parser.add_argument("--cpu", action="store_true", help="count processor seconds, with one worker")
    parser.add_argument("--skip", default="", help="leave out contenders whose name begins so, such as transformers")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/decode_translation.md")
    arguments = parser.parse_args()
    if arguments.cpu:
        arguments.workers = 1
    return arguments


def _random_run(run: Path) -> Path:
    """A tiny model with random weights and a tokenizer of 10,000 pieces, saved as a run."""
    torch.manual_seed(1)
    text = [pair for split in [_test_split()] for pair in (*split.sources, *split.targets)]
    tokenizers = TokenizerPair.train(TokenizerConfig(vocab_size=10_000), text, [])
    save_run(run, build(transformer_tiny(), vocabulary_of(tokenizers)), tokenizers, recipe_yaml=None, card="")
    return run


def _test_split(source: str = "en", target: str = "de") -> Any:
    return load_splits(DataConfig(train=TEST, valid=None, test=TEST), source, target).test


def _sentences(tokenizers: TokenizerPair, recipe: str | None, count: int) -> tuple[list[str], list[str]]:
    task = yaml.safe_load(recipe)["task"] if recipe else {}
    split = _test_split(task.get("source", "en"), task.get("target", "de"))
    return list(split.sources[:count]), list(split.targets[:count])


def _contenders(run: Path, folder: Path, workers: int, *, forced: bool) -> list[Contender]:
    model = load_run(run).model
    marian = transformers.MarianMTModel.from_pretrained(run).eval()
    contenders = [
        Contender("tripel, native float32", _ours(prepare(model, "native"), workers, forced)),
        Contender("tripel, native bfloat16", _ours(prepare(model, "native", "bfloat16"), workers, forced)),
        Contender("tripel, PyTorch only", _ours(prepare(model, "torch"), workers, forced)),
        Contender("transformers float32", _transformers(marian, forced), share=0.1),
    ]
    pieces = load_run(run).tokenizers.source.pieces(range(marian.config.vocab_size))
    for quantization in ("float32", "int8"):
        path = folder / quantization
        _convert(marian, pieces, path, quantization)
        translator = ctranslate2.Translator(
            str(path), compute_type=quantization, inter_threads=workers, intra_threads=1
        )
        contenders.append(Contender(f"CTranslate2 {quantization}", _ctranslate2(translator, pieces, forced)))
    return contenders


def _ours(model: Any, workers: int, forced: bool) -> Callable[[Ids, int], Ids]:
    fixed = {"max_length_ratio": 0.0, "max_length_extra": FORCED_LENGTH, "loop_guard": 0} if forced else {}

    def translate(sources: Ids, beam: int) -> Ids:
        answers = generate(model, sources, DecodeConfig(beam=beam, **fixed), workers=workers)
        return [hypotheses[0].ids for hypotheses in answers]

    return translate


def _transformers(model: Any, forced: bool) -> Callable[[Ids, int], Ids]:
    """In batches of 32 (greedy) and 64 (beam) sentences of like length."""
    pad, special = model.config.pad_token_id, {model.config.pad_token_id, model.config.eos_token_id}
    fixed = {"max_new_tokens": FORCED_LENGTH, "min_new_tokens": FORCED_LENGTH} if forced else {"max_new_tokens": 60}
    model.generation_config.max_length = None

    @torch.inference_mode()
    def translate(sources: Ids, beam: int) -> Ids:
        order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
        answers: Ids = [[] for _ in sources]
        size = 32 if beam == 1 else 64
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            longest = len(sources[batch[0]])
            ids = torch.tensor([sources[i] + [pad] * (longest - len(sources[i])) for i in batch])
            out = model.generate(
                ids, attention_mask=(ids != pad).long(), num_beams=beam, early_stopping=beam > 1, **fixed
            )
            for i, line in zip(batch, out[:, 1:].tolist(), strict=True):
                answers[i] = [token for token in line if token not in special]
        return answers

    return translate


class _Loader(BartLoader):  # type: ignore[misc]
    """CTranslate2's own reader of Marian layers, for a decoder that begins with a token and not with zeros."""

    def read(self, model: Any, pieces: Sequence[str]) -> Any:
        model.config.normalize_before = model.config.normalize_embedding = False
        spec = self.get_model_spec(model)
        self.set_vocabulary(spec, list(pieces))
        config, start = spec.config, pieces[model.config.decoder_start_token_id]
        config.bos_token, config.eos_token, config.unk_token = start, pieces[model.config.eos_token_id], pieces[1]
        config.decoder_start_token = start
        return spec


def _convert(model: Any, pieces: Sequence[str], path: Path, quantization: str) -> None:
    spec = _Loader().read(copy.deepcopy(model), pieces)  # it works on the weights themselves
    spec.validate()
    spec.optimize(quantization=None if quantization == "float32" else quantization)
    path.mkdir()
    spec.save(str(path))


def _ctranslate2(translator: Any, pieces: Sequence[str], forced: bool) -> Callable[[Ids, int], Ids]:
    number = {piece: i for i, piece in enumerate(pieces)}
    fixed = {"min_decoding_length": FORCED_LENGTH, "max_decoding_length": FORCED_LENGTH} if forced else {}

    def translate(sources: Ids, beam: int) -> Ids:
        tokens = [[pieces[i] for i in source] for source in sources]
        out = translator.translate_batch(tokens, beam_size=beam, max_batch_size=32 if beam == 1 else 64, **fixed)
        return [[number[piece] for piece in result.hypotheses[0]] for result in out]

    return translate


def _quality(
    contenders: Sequence[Contender], sources: Ids, references: list[str], tokenizers: TokenizerPair, console: Console
) -> dict[tuple[str, int], float]:
    bleu = {}
    for contender in contenders:
        for beam in (1, 5):
            texts = tokenizers.target.decode_batch(contender.translate(sources, beam))
            bleu[contender.name, beam] = sacrebleu.corpus_bleu(texts, [references]).score
            console.print(f"{contender.name}, beam {beam}: BLEU {bleu[contender.name, beam]:.2f}")
    return bleu


def _timings(
    contenders: Sequence[Contender], sources: Ids, rounds: int, clock: Callable[[], float], console: Console
) -> dict[tuple[str, str], list[float]]:
    """Sentences a second (all) or milliseconds a sentence (one), for every contender and setting, by round."""
    timings: dict[tuple[str, str], list[float]] = {}
    for number in range(-1, rounds):  # the first is to warm up
        for setting in SETTINGS:
            for contender in contenders:
                value = _time(contender, setting, sources, clock, warm_up=number < 0)
                if number >= 0:
                    timings.setdefault((contender.name, setting.name), []).append(value)
        console.print(f"round {number + 1} of {rounds}")
    return timings


def _time(contender: Contender, setting: Setting, sources: Ids, clock: Callable[[], float], *, warm_up: bool) -> float:
    if setting.single:
        count = max(2, int((20 if not warm_up else 2) * (1.0 if contender.share == 1.0 else 0.25)))
        chosen = sources[:: max(1, len(sources) // count)][:count]
        started = clock()
        for source in chosen:
            contender.translate([source], setting.beam)
        return (clock() - started) * 1000 / len(chosen)
    step = max(1, round(1 / (contender.share * (0.2 if warm_up else 1.0))))
    chosen = sources[::step]
    started = clock()
    contender.translate(chosen, setting.beam)
    return len(chosen) / (clock() - started)


def _table(
    contenders: Sequence[Contender], timings: dict[tuple[str, str], list[float]], bleu: dict[tuple[str, int], float]
) -> str:
    """One row per setting and contender; the ratio says how many times as fast ours is."""
    rows = []
    ours = contenders[0].name
    for setting in SETTINGS:
        for contender in contenders:
            values = timings[contender.name, setting.name]
            pairs = zip(timings[ours, setting.name], values, strict=True)
            ratios = [b / a if setting.single else a / b for a, b in pairs]
            quality = f"{bleu[contender.name, setting.beam]:.2f}" if bleu else "-"
            unit = "ms" if setting.single else "sentences/s"
            rows.append(
                [setting.name, contender.name, f"{spread(values, '.1f')} {unit}", spread(ratios, ".2f"), quality]
            )
    return markdown_table(["sentences, search", "contender", "speed", f"{ours} is faster by", "BLEU"], rows)


def _notes(arguments: argparse.Namespace) -> list[str]:
    command = f"python benchmarks/decode_translation.py{' --run RUN' if arguments.run else ''}"
    command += f" --sentences {arguments.sentences} --rounds {arguments.rounds} --workers {arguments.workers}"
    command += f"{' --cpu' if arguments.cpu else ''}{f' --skip {arguments.skip}' if arguments.skip else ''} --write"
    weights = "trained weights" if arguments.run else f"random weights, {FORCED_LENGTH} tokens an answer"
    return [
        f"Medians (smallest to largest) of {arguments.rounds} interleaved rounds; {weights}; sentences of "
        f"{TEST}. tripel and CTranslate2 have {arguments.workers} workers of one thread each, transformers "
        f"{arguments.workers} threads; the peers get batches of 32 (greedy) and 64 (beam 5) sentences of like length;"
        " transformers is timed on a tenth of the sentences; single sentences are 20 (transformers: 5)."
        + (" Processor seconds, since the machine was busy." if arguments.cpu else ""),
        f"Command: `{command}`",
        f"Machine: {machine()}",
        f"Versions: {versions('torch', 'transformers', 'ctranslate2')}",
    ]


if __name__ == "__main__":
    main()

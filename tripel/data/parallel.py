"""Parallel texts, read, checked and cleaned: what tokenizers are trained on and scores are computed from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tripel.data.checks import Action, DataConfig, DataReport, Finding, Tally, check_lengths, unusable
from tripel.data.names import PairFiles, find_pair
from tripel.data.readers import MAX_LINE_BYTES, Pair, read_pairs
from tripel.errors import DataError
from tripel.text.clean import clean


@dataclass(frozen=True)
class ParallelText:
    """A set's pairs. lines: where each was read; name and files: the parts they came from, with their sizes."""

    name: str
    sources: list[str]
    targets: list[str]
    lines: list[int]
    files: tuple[tuple[PairFiles, int], ...]
    _digest: list[str] = field(default_factory=list, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Pair:
        return Pair(self.sources[index], self.targets[index], self.lines[index])

    def __iter__(self) -> Iterator[Pair]:
        return map(Pair, self.sources, self.targets, self.lines)

    def place(self, index: int) -> str:
        """Where a pair was read, as file:line."""
        part, start = 0, 0
        while index >= start + self.files[part][1]:
            start += self.files[part][1]
            part += 1
        return f"{self.files[part][0].source}:{self.lines[index]}"

    @property
    def fingerprint(self) -> str:
        """A hash of the texts themselves, whatever file they came from: the key of what is derived from them."""
        if not self._digest:
            digest = hashlib.sha256()
            for side in (self.sources, self.targets):
                for text in side:
                    digest.update(text.encode("utf-8", "surrogatepass") + b"\n")
                digest.update(b"\0")
            self._digest.append(digest.hexdigest())
        return self._digest[0]


@dataclass(frozen=True)
class Splits:
    """The sets of a recipe, checked singly and against each other."""

    train: ParallelText
    valid: ParallelText | None
    test: ParallelText | None
    report: DataReport


def load_splits(config: DataConfig, source: str, target: str) -> Splits:
    """Read and check every set a recipe names. Raises DataError as load_parallel does.

    Training pairs of which a side is also in the validation or test set are reported; with drop_overlap they are
    dropped.
    """
    report = DataReport()
    parts = []
    for name in config.train_names:
        text, findings = load_parallel(name, source, target, config, training=True)
        parts.append(text)
        report.add(findings)
    train = _joined(parts)
    held_out: list[ParallelText | None] = []
    for held_out_name in (config.valid, config.test):
        if held_out_name is None:
            held_out.append(None)
            continue
        text, findings = load_parallel(held_out_name, source, target, config, training=False)
        report.add(findings)
        train = _against(train, text, config, report)
        held_out.append(text)
    return Splits(train, held_out[0], held_out[1], report)


def load_parallel(
    name: str, source: str, target: str, config: DataConfig, *, training: bool
) -> tuple[ParallelText, DataReport]:
    """Read and check one set.

    training: cleaned (see text.clean), unusable pairs dropped; otherwise every pair as the file has it. Raises
    DataError when it cannot be found or read, its sides differ in length, a line that is not for training is longer than
    MAX_LINE_BYTES, or a check refuses it.
    """
    files = find_pair(name, source, target)
    tally = Tally(name)
    sources: list[str] = []
    targets: list[str] = []
    lines: list[int] = []
    seen: set[int] = set()
    total = 0
    for pair in read_pairs(files, source, target):
        total += 1
        place = f"{files.source}:{pair.line}"
        if pair.problem == "over-long line" and not training:
            raise DataError(
                "the line is too long to be scored whole",
                file=files.source,
                line=pair.line,
                expected=f"at most {MAX_LINE_BYTES:,} bytes a line: of a set that is scored nothing is cut or left out",
                mend="split the pair into several, or take it out of the set",
            )
        cleaned, keep = _check_pair(pair, place, tally, seen, config)
        if training and not keep:
            continue
        used = cleaned if training else pair
        sources.append(used.source)
        targets.append(used.target)
        lines.append(pair.line)
    findings = tally.findings(total, config, training=training)
    findings += check_lengths(name, sources, targets, config)
    report = DataReport(findings, {name: (total, len(sources))})
    report.refuse()
    if not sources:
        mend = f"see the report\n\n{report}"
        raise DataError("no pair is left", file=files.source, given=f"{total} pairs", mend=mend)
    return ParallelText(name, sources, targets, lines, ((files, len(sources)),)), report


def _check_pair(pair: Pair, place: str, tally: Tally, seen: set[int], config: DataConfig) -> tuple[Pair, bool]:
    """The cleaned pair, and whether it can be trained on. seen: hashes of the pairs before it."""
    if pair.problem is not None:
        tally(pair.problem, place)
        return pair, False
    source, target = clean(pair.source), clean(pair.target)
    if source.n_controls or source.n_invisible or target.n_controls or target.n_invisible:
        tally("control characters", place)
    cleaned = replace(pair, source=source.text.strip(), target=target.text.strip())
    kind = unusable(cleaned.source, cleaned.target, config)
    if kind is not None:
        tally(kind, place)
        return cleaned, False
    if cleaned.source == cleaned.target:
        tally("target copies source", place)
    key = hash((cleaned.source, cleaned.target))
    if key in seen:
        tally("duplicate pair", place)
        return cleaned, not config.drop_duplicates
    seen.add(key)
    return cleaned, True


def _joined(parts: list[ParallelText]) -> ParallelText:
    if len(parts) == 1:
        return parts[0]
    return ParallelText(
        name=", ".join(part.name for part in parts),
        sources=[text for part in parts for text in part.sources],
        targets=[text for part in parts for text in part.targets],
        lines=[line for part in parts for line in part.lines],
        files=tuple(entry for part in parts for entry in part.files),
    )


def _against(train: ParallelText, other: ParallelText, config: DataConfig, report: DataReport) -> ParallelText:
    """Report (and drop, if asked for) the training pairs of which a side, or both, is in another set as well."""
    sources, targets = ([_key(text) for text in side] for side in (other.sources, other.targets))
    pairs, held_sources, held_targets = set(zip(sources, targets, strict=True)), set(sources), set(targets)
    common: dict[str, list[int]] = {"pair": [], "source": [], "target": []}
    for index, pair in enumerate(train):
        source, target = _key(pair.source), _key(pair.target)
        if (source, target) in pairs:
            common["pair"].append(index)
        elif source in held_sources:
            common["source"].append(index)
        elif target in held_targets:
            common["target"].append(index)
    for what, indices in common.items():
        if indices:
            kind, places = f"{what} also in {other.name}", tuple(train.place(index) for index in indices[:3])
            action: Action = "dropped" if config.drop_overlap else "kept"
            report.findings.append(Finding(train.name, kind, len(indices), len(train), action, places))
    return _without(train, set().union(*common.values())) if config.drop_overlap else train


def _without(text: ParallelText, dropped: set[int]) -> ParallelText:
    kept = [index for index in range(len(text)) if index not in dropped]
    files, start = [], 0
    for entry, size in text.files:
        files.append((entry, size - sum(start <= index < start + size for index in dropped)))
        start += size
    return ParallelText(
        name=text.name,
        sources=[text.sources[index] for index in kept],
        targets=[text.targets[index] for index in kept],
        lines=[text.lines[index] for index in kept],
        files=tuple(files),
    )


def _key(text: str) -> str:
    """What counts as the same sentence: up to cleaning, case and outer space."""
    return clean(text.strip(), lowercase=True).text

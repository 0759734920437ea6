"""Decoding many pictures at once, in processes beside this one.

A worker is a Python that knows this module and no more. It is started by a command of its own, not by forking or by
importing the user's script again, so that it works the same from a script, a notebook, a test and `python -c`. It reads the
names of files from its standard input and answers with pixels; when the input ends, because whoever asked is done or dead,
it ends.

    to a worker     a line of JSON, the form; then lines of JSON, each a list of files
    from a worker   a line `ready`; then for each file a line of JSON, and its pixels if it could be read
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, cast

import numpy as np
from PIL import Image

from tripel.data.pictures import Fit, PictureProblem, Resample, fitted, opened_picture
from tripel.errors import DataError

Originals = Sequence[Path] | np.ndarray
"""Pictures before they are decoded: a file for each, or pixels, uint8 [n, height, width] or [n, height, width, 3]."""

_log = logging.getLogger(__name__)

_COMMAND = "from tripel.data.decoding import work; work()"
_READY = b"ready\n"
# What a worker is given at a time.
_CHUNK = 32
# So many pictures are read sooner than a process starts.
_FEW = 512
_SHOWN_CHARACTERS = 300
_SECONDS_TO_END = 5.0


@dataclass(frozen=True)
class Form:
    """What every picture of a set is made: size x size pixels of so many channels. The rest: see ImageDataConfig."""

    size: int
    channels: int
    fit: Fit
    crop_share: float
    resample: Resample
    max_pixels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a picture's pixels."""
        return self.channels, self.size, self.size


@dataclass(frozen=True)
class Looked:
    """What was seen of a picture. digest: equal for equal pictures, whatever file they are in. width, height: as they were.
    problem: why it cannot be used; then the rest is 0."""

    digest: int = 0
    width: int = 0
    height: int = 0
    problem: str | None = None


Seen = tuple[Looked, np.ndarray | None]
"""A picture and its pixels, uint8 of Form.shape; None where there is a problem."""


def digest_of(pixels: np.ndarray) -> int:
    """A number below 2^64 that stands for a picture before its size is changed. pixels: uint8 [height, width(, 3)]."""
    height, width = pixels.shape[:2]
    return int.from_bytes(hashlib.sha256(b"%d %d " % (height, width) + pixels.tobytes()).digest()[:8], "big")


def look_at(original: Path | np.ndarray, form: Form) -> Seen:
    """A picture in the form asked for, or why there is none."""
    try:
        if isinstance(original, np.ndarray):
            picture = Image.fromarray(original).convert("L" if form.channels == 1 else "RGB")
        else:
            picture = opened_picture(original, channels=form.channels, max_pixels=form.max_pixels)
    except PictureProblem as problem:
        return Looked(problem=str(problem)), None
    pixels = fitted(picture, form.size, fit=form.fit, crop_share=form.crop_share, resample=form.resample)
    return Looked(digest_of(np.asarray(picture)), picture.width, picture.height), pixels


class Decoder:
    """Reads pictures of one set in one form, many at a time.

    workers: as ImageDataConfig has it. Few pictures, and those that need no decoding, are read by threads of this process.
    """

    def __init__(self, originals: Originals, form: Form, workers: int) -> None:
        self._originals, self._form = originals, form
        self._n = workers or os.cpu_count() or 1
        outside = self._n > 1 and len(originals) > _FEW and not isinstance(originals, np.ndarray)
        self._n_to_start = self._n if outside else 0
        self._threads = ThreadPoolExecutor(self._n, thread_name_prefix="pictures")
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._end = weakref.finalize(self, _end, self._threads, self._workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def read(self, rows: Sequence[int]) -> Iterator[list[Seen]]:
        """Some of the pictures in that order, a few at a time.

        Raises DataError when a worker dies, which names the picture that it was reading.
        """
        self._start()
        waiting: deque[Future[list[Seen]]] = deque()
        try:
            at_once = max(1, min(_CHUNK, -(-len(rows) // self._n)))
            for first in range(0, len(rows), at_once):
                waiting.append(self._threads.submit(self._chunk, rows[first : first + at_once]))
                # What is read and not yet fetched is held in memory.
                if len(waiting) > 2 * self._n:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _start(self) -> None:
        n, self._n_to_start = self._n_to_start, 0
        try:
            self._workers += [_Worker(self._form) for _ in range(n)]
        except OSError as error:
            _log.warning("no process can be started (%s): pictures are read in this one", error.strerror)
        for worker in list(self._workers) if n else ():
            if worker.is_ready():
                self._idle.put(worker)
            else:
                _log.warning("a process that should read pictures did not start: %s", worker.last_words())
                self._workers.remove(worker)

    def _chunk(self, rows: Sequence[int]) -> list[Seen]:
        if not self._workers:
            return [look_at(self._originals[row], self._form) for row in rows]
        worker = self._idle.get()
        try:
            return worker.read([str(self._originals[row]) for row in rows])
        finally:
            self._idle.put(worker)


class _Worker:
    """A process that reads pictures."""

    def __init__(self, form: Form) -> None:
        # What it says of its own accord is kept for the case that it ends before its time.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        paths = [path or os.getcwd() for path in sys.path]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for this process to hear, which then ends the others
        )
        assert self._process.stdin is not None
        self._questions, self._answers = self._process.stdin, cast(io.BufferedReader, self._process.stdout)
        self._form, self._said = form, ""
        self._ending = threading.Lock()

    def is_ready(self) -> bool:
        """Whether it came up; waits for that."""
        try:
            self._ask(asdict(self._form))
        except OSError:
            return False
        return self._answers.readline() == _READY

    def read(self, files: Sequence[str]) -> list[Seen]:
        """See Decoder.read."""
        found: list[Seen] = []
        try:
            self._ask(files)
            for _ in files:
                looked = Looked(**json.loads(self._answers.readline()))
                pixels = None if looked.problem is not None else np.empty(self._form.shape, np.uint8)
                if pixels is not None and self._answers.readinto(pixels.data) < pixels.nbytes:
                    raise EOFError
                found.append((looked, pixels))
        except (OSError, EOFError, ValueError):  # ValueError: half a line, or none
            raise DataError(
                "the process that was reading this picture ended",
                file=files[min(len(found), len(files) - 1)],
                given=self.last_words(),
                expected="a picture that can be read with the memory there is",
                mend="remove the picture, lower data.max_pixels, or use fewer processes (data.workers; 1: none)",
            ) from None
        return found

    def last_words(self) -> str:
        """How it ended, and what it said."""
        with suppress(subprocess.TimeoutExpired):  # what has closed its output may take a moment to end
            self._process.wait(_SECONDS_TO_END)
        self.end()
        code = self._process.returncode
        return (f"signal {-code}" if code < 0 else f"exit code {code}") + (f": {self._said}" if self._said else "")

    def end(self) -> None:
        """Let it go, at once if it is at work."""
        with self._ending:  # a thread that found it dead and the one that closes the decoder may come together
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            with suppress(OSError):
                self._questions.close()
            self._answers.close()
            if not self._errors.closed:
                self._errors.seek(0)
                self._said = self._errors.read().decode(errors="replace").strip()[-_SHOWN_CHARACTERS:]
                self._errors.close()

    def _ask(self, question: object) -> None:
        self._questions.write(json.dumps(question).encode() + b"\n")
        self._questions.flush()


def work() -> None:
    """What a worker does."""
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may speak between the answers
    form = Form(**json.loads(questions.readline()))
    answers.write(_READY)
    answers.flush()
    for question in questions:
        for file in json.loads(question):
            looked, pixels = look_at(Path(file), form)
            answers.write(json.dumps(asdict(looked)).encode() + b"\n")
            if pixels is not None:
                answers.write(pixels.data)
            answers.flush()  # so that it is known which picture was the last, if it was


def _end(threads: ThreadPoolExecutor, workers: list[_Worker]) -> None:
    for worker in workers:
        worker.end()
    threads.shutdown(wait=False, cancel_futures=True)

"""Data sets that are known by name: where they lie, what may be done with them, and fetching them safely."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from tripel.data.made import MADE
from tripel.errors import DataError, nearest
from tripel.files import atomic_writer, cache_folder

_MULTI30K = (
    "https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw/"
)
_OPUS = (
    "https://raw.githubusercontent.com/Helsinki-NLP/OPUS-MT-testsets/ac0f19c0be3cb4e0d9450fcb2d7a9847c4bdd180/testsets/"
)
_SHAKESPEARE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/"
_FASHION = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
_TATOEBA = "tatoeba-test-v2021-08-07."

_TEST = "test_2016_flickr"

_BLOCK = 1 << 16
_TIMEOUT_SECONDS = 30

Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes fetched so far and the bytes there are (0: not known)."""


@dataclass(frozen=True)
class KnownFile:
    """A file of a set. sha256, size: of the file as it is kept, that is unpacked where the address ends in .gz and the
    name does not."""

    name: str
    address: str
    sha256: str
    size: int

    @property
    def packed(self) -> bool:
        """Whether it is unpacked on arrival."""
        return self.address.endswith(".gz") and not self.name.endswith(".gz")


@dataclass(frozen=True)
class KnownSet:
    """A data set with a name. use: an example of how a recipe names it. classes: what its numbered labels stand for."""

    name: str
    what: str
    licence: str
    home: str
    use: str
    files: tuple[KnownFile, ...]
    classes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.size for file in self.files)


def list_known() -> Table:
    """The known sets as a table for the terminal: what each is, its size, licence, address, and whether it is here."""
    table = Table(show_lines=True)
    for column in ("name", "what", "MB", "licence", "from", "here"):
        table.add_column(column, overflow="fold", justify="right" if column == "MB" else "left")
    for known in KNOWN.values():
        here = any(all((root / known.name / file.name).is_file() for file in known.files) for root in search_folders())
        row = (known.name, known.what, f"{known.size / 1e6:.1f}", known.licence, known.home, "yes" if here else "no")
        table.add_row(*row)
    for made in MADE.values():
        here = made.is_made(data_folder())
        table.add_row(
            made.name, made.what, f"{made.size / 1e6:.1f}", made.licence, "made here", "yes" if here else "no"
        )
    return table


def search_folders() -> list[Path]:
    """The folders in which names are looked up, in order, after the name as a path."""
    given = os.environ.get("TRIPEL_DATA")
    return [*([Path(given).expanduser()] if given else []), data_folder()]


def data_folder() -> Path:
    """Where sets are put, unless told otherwise: the folder data in the user's cache."""
    return cache_folder() / "data"


def get(name: str, directory: str | Path | None = None, *, progress: Progress | None = None) -> Path:
    """Fetch (or make) a known set; return its folder, `directory/name`. What is there and whole is left as it is.

    A fetch that broke off goes on where it stopped; nothing takes its place before its checksum is right. directory:
    data_folder() if None. Raises DataError for an unknown name, no connection, a wrong checksum or a full disk.
    """
    if name in MADE:
        return MADE[name].make(Path(directory or data_folder()))
    known = KNOWN.get(name)
    if known is None:
        near = nearest(name, [*KNOWN, *MADE])
        raise DataError(
            f"there is no known set {name}",
            expected=", ".join([*KNOWN, *MADE]),
            mend=f"tripel data get {near}" if near else "see `tripel data list`",
        )
    folder = Path(directory or data_folder()) / known.name
    for file in known.files:
        path = folder / file.name
        try:
            if _sha256_of(path) != file.sha256:
                path.parent.mkdir(parents=True, exist_ok=True)
                _fetch(file, path, known, progress)
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            raise _offline(file, path, known, error) from None
        except OSError as error:
            raise DataError(
                f"the file cannot be written: {error.strerror or error}",
                file=path,
                expected=f"a folder that this user may write to, with {known.size / 1e6:.0f} MB of room",
                mend="make room, or choose another folder",
            ) from None
    return folder


def _fetch(file: KnownFile, path: Path, known: KnownSet, progress: Progress | None) -> None:
    part = path.with_name(path.name + ".part")
    _download(file, part, progress)
    try:
        with atomic_writer(path) as whole:
            digest = hashlib.sha256()
            for block in _blocks(part, unpack=file.packed):
                digest.update(block)
                whole.write(block)
            if digest.hexdigest() != file.sha256:
                raise ValueError(f"sha256 {digest.hexdigest()}")
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"what was fetched for {known.name}/{file.name} is not what it should be, and was thrown away",
            given=f"{file.address}: {error}",
            expected=f"sha256 {file.sha256}",
            mend=f"try again; if it stays so, the file at {known.home} has changed: fetch it by hand and look",
        ) from None
    finally:
        part.unlink(missing_ok=True)


def _download(file: KnownFile, part: Path, progress: Progress | None) -> None:
    """Bring part to its full length, from where it is."""
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(file.address, headers={"User-Agent": "tripel"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and done:
            return  # it was whole already
        raise
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        done = done if resumed else 0
        rest = int(response.headers.get("Content-Length") or 0)
        total = done + rest if rest else 0
        with part.open("ab" if resumed else "wb") as out:
            while block := response.read(_BLOCK):
                out.write(block)
                done += len(block)
                if progress is not None:
                    progress(file.name, done, total)
    if total and done < total:
        raise ConnectionError(f"the connection broke off after {done} of {total} bytes")


def _blocks(path: Path, *, unpack: bool) -> Iterator[bytes]:
    with gzip.open(path, "rb") if unpack else path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _sha256_of(path: Path) -> str | None:
    if not path.is_file():
        return None
    digest = hashlib.sha256()
    for block in _blocks(path, unpack=False):
        digest.update(block)
    return digest.hexdigest()


def _offline(file: KnownFile, path: Path, known: KnownSet, error: Exception) -> DataError:
    reason = getattr(error, "reason", None) or error
    unpacked = ", unpacked with gunzip" if file.packed else ""
    return DataError(
        f"{known.name}/{file.name} could not be fetched: {reason}",
        given=file.address,
        expected="a connection to that address",
        mend="run the same command again, it goes on where it stopped; or without a connection, put that file at "
        f"{path}{unpacked} (all {len(known.files)} files of the set go to {path.parent}), "
        f"or under $TRIPEL_DATA/{known.name}",
    )


def _multi30k(split: str, language: str, size: int, sha256: str) -> KnownFile:
    return KnownFile(f"{split}.{language}", f"{_MULTI30K}{split}.{language}.gz", sha256, size)


_SETS = (
    KnownSet(
        name="multi30k",
        what="English, German and French image captions: 29,000 train, 1,014 val, 1,000 test_2016_flickr",
        licence="for non-commercial research and education",
        home="https://github.com/multi30k/dataset",
        use="multi30k/train",
        files=(
            _multi30k("train", "en", 1801238, "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6"),
            _multi30k("train", "de", 2110398, "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72"),
            _multi30k("train", "fr", 2111303, "5925a3c18f1587b6b54b87743106e6e8ab93618edb6f65d19eac0621f853a10d"),
            _multi30k("val", "en", 63297, "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227"),
            _multi30k("val", "de", 75981, "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660"),
            _multi30k("val", "fr", 73924, "5304e444d842e962b2dda4d816b70b22a1765b15401642b7ca37a67477e708dc"),
            _multi30k(_TEST, "en", 62076, "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182"),
            _multi30k(_TEST, "de", 70649, "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16"),
            _multi30k(_TEST, "fr", 72261, "cb3160d69b002bb638e66cc7612fcd56cb0af82eadc9c142dedc438afb885ef6"),
        ),
    ),
    KnownSet(
        name="tatoeba",
        what="short everyday sentences with translations, en-de 17,565 and en-fr 12,681 pairs; one set, not split",
        licence="CC BY 2.0 FR at tatoeba.org, not stated at this address",
        home="https://github.com/Helsinki-NLP/OPUS-MT-testsets",
        use="tatoeba/all",
        files=(
            KnownFile(
                "all.en-de.en",
                f"{_OPUS}deu-eng/{_TATOEBA}eng",
                "5d0e3169914a5e3f4ca7bdec670880f2025385c5a7e29547d9cbd7992105e77f",
                672653,
            ),
            KnownFile(
                "all.en-de.de",
                f"{_OPUS}deu-eng/{_TATOEBA}deu",
                "a06d3300c05158e83bb5c1709a0bf5aecc2e28c895e66f03b1c914a7fdd8c8c6",
                782297,
            ),
            KnownFile(
                "all.en-fr.en",
                f"{_OPUS}eng-fra/{_TATOEBA}eng",
                "714a848bd6ab4421cafd1b9b09fd26328306fab1bc8006e820fa77a8cbe57636",
                458041,
            ),
            KnownFile(
                "all.en-fr.fr",
                f"{_OPUS}eng-fra/{_TATOEBA}fra",
                "095313ff04016e5ddeff7557d1c5590f19724d239e424cab313b2d03ca66d365",
                546578,
            ),
        ),
    ),
    KnownSet(
        name="shakespeare",
        what="tiny Shakespeare: 40,000 lines of the plays in one file, for character models",
        licence="the text is in the public domain",
        home="https://github.com/karpathy/char-rnn",
        use="shakespeare/input.txt",
        files=(
            KnownFile(
                "input.txt",
                f"{_SHAKESPEARE}input.txt",
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                1115394,
            ),
        ),
    ),
    KnownSet(
        name="fashion-mnist",
        what="28x28 grey pictures of clothing in 10 classes: 60,000 train, 10,000 test; IDX format",
        licence="MIT",
        home="https://github.com/zalandoresearch/fashion-mnist",
        use="fashion-mnist/train",
        classes=(  # the table Labels in the data set's README
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        files=(
            KnownFile(
                "train-images-idx3-ubyte",
                f"{_FASHION}train-images-idx3-ubyte.gz",
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                47040016,
            ),
            KnownFile(
                "train-labels-idx1-ubyte",
                f"{_FASHION}train-labels-idx1-ubyte.gz",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                60008,
            ),
            KnownFile(
                "t10k-images-idx3-ubyte",
                f"{_FASHION}t10k-images-idx3-ubyte.gz",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                7840016,
            ),
            KnownFile(
                "t10k-labels-idx1-ubyte",
                f"{_FASHION}t10k-labels-idx1-ubyte.gz",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                10008,
            ),
        ),
    ),
)
KNOWN: dict[str, KnownSet] = {known.name: known for known in _SETS}
"""The sets that `tripel data get` fetches, by name."""

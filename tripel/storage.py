"""Folders and tensor files that are whole or not there, and reading them back without trusting them.

A folder is drafted beside its place, flushed to the disk, then renamed:

    .step-500.1f2e3d4c.draft/   being written; a crash leaves it, nobody reads it, the next save removes it
    step-500/                   whole
    .step-500.9a8b7c6d.replaced/  the former step-500, for the instant in which the new one takes its place
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from tripel.errors import CheckpointError
from tripel.files import umask, write_atomically

MANIFEST = "manifest.json"
JSON_LIMIT = 64 << 20
"""Bytes of the largest JSON file that is read."""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """While the block runs no other process gets hold of folder; a crash lets go of it.

    Raises CheckpointError when another process has it. Where the system has no such locks, nothing is held.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    lock = folder / ".lock"
    with reporting_disk_errors(folder, 0):
        file = lock.open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CheckpointError(
                "another process is training in this folder",
                given=folder,
                expected="one process (or one torchrun) at a time",
                mend="wait for it or stop it (Ctrl-C saves its state), or name another folder with --out",
            ) from None
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path, *, needed: int = 0) -> Iterator[Path]:
    """An empty folder to fill, which becomes path when the block ends well and all of it is on the disk.

    A folder that was at path is replaced. When anything fails the draft is removed and path is as it was.
    needed: about how many bytes will be written, for the message. Raises CheckpointError for every error of the disk.
    """
    path = Path(path)
    with reporting_disk_errors(path, needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in hidden(path.parent, re.escape(path.name), "draft"):
            remove_folder(leftover)
        draft = _beside(path, "draft")
        draft.mkdir()
        try:
            yield draft
            _sync_tree(draft)
            _take_place(draft, path)
        except BaseException:
            remove_folder(draft)
            raise


def atomic_write(path: str | Path, content: bytes | str) -> None:
    """Replace one file, whole or not at all. Raises CheckpointError for every error of the disk."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with reporting_disk_errors(Path(path), len(data)):
        write_atomically(Path(path), data)


@contextlib.contextmanager
def reporting_disk_errors(path: Path, needed: int) -> Iterator[None]:
    """Turn the disk's errors into a CheckpointError that says what was being saved and how much room there is."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = error.errno if isinstance(error, OSError) else _os_error_number(error)
        reason = os.strerror(number) if number else str(error)
        full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        room = f"{path}{f' needs about {readable_size(needed)}' if needed else ''}; {_free_space(path)}"
        raise CheckpointError(
            f"saving failed: {reason}",
            given=room,
            expected="room for it on this disk" if full else "a folder that this user may write to",
            mend=("free some space or keep fewer checkpoints" if full else "check the disk and its permissions")
            + ", then go on; what was saved before is intact",
        ) from error


@contextlib.contextmanager
def replaced_files(folder: str | Path, *, needed: int = 0, owned: Collection[str] = ()) -> Iterator[Path]:
    """An empty folder to fill with files, which replace those of the same names in folder when the block ends well.

    owned: names of files that go from folder when they are not among the new ones. Other files in it are not touched.
    When anything fails, folder has its former files. Raises CheckpointError for every error of the disk.
    """
    folder = Path(folder)
    with reporting_disk_errors(folder, needed):
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in hidden(folder, "files", "draft"):
            remove_folder(leftover)
        draft = _beside(folder / "files", "draft")
        draft.mkdir()
        try:
            yield draft
            _sync_tree(draft)
            _swap_in(draft, folder, owned)
        finally:
            remove_folder(draft)


def write_manifest(folder: Path) -> None:
    """List the files of a folder with their sizes and checksums, for `damage`. Raises OSError."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": digest(path)} for path in files
    }
    write_json(folder / MANIFEST, {"tripel_format": 1, "files": entries})


def damage(folder: Path) -> str | None:
    """Why a folder is not what its manifest lists, or None when every size and checksum is right."""
    try:
        files = read_json(folder / MANIFEST)["files"]
        if not isinstance(files, dict) or not files:
            return f"{folder.name}: its {MANIFEST} lists no files"
        for name, entry in files.items():
            file = folder / name
            if not file.is_file():
                return f"{folder.name}: {name} is missing"
            if file.stat().st_size != entry["size"]:
                return f"{folder.name}: {name} has {file.stat().st_size} bytes instead of {entry['size']}"
            if digest(file) != entry["sha256"]:
                return f"{folder.name}: {name} has changed since it was written"
    except CheckpointError as error:
        return f"{folder.name}: {error.what}"
    except (KeyError, TypeError):
        return f"{folder.name}: its {MANIFEST} is damaged"
    except OSError as error:
        return f"{folder.name}: it cannot be read ({error.strerror})"
    return None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One safetensors file. Raises OSError or SafetensorError; meant for use inside atomic_folder."""
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(contiguous, path, metadata={"format": "pt"})
    path.chmod(0o666 & ~umask())  # the library lets nobody but this user read it


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, in memory of their own. Raises CheckpointError when it is absent or damaged.

    The library checks every size in the header against the length of the file before it is used.
    """
    try:
        # Cloned, because the library maps the file: who truncates it later would end this process.
        return {name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()}
    except FileNotFoundError:
        raise CheckpointError(
            "a file of weights is missing",
            given=path,
            expected="the file that was saved with the rest of this folder",
            mend="copy the whole folder again from where the model was trained",
        ) from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise CheckpointError(
            f"a file of weights is damaged or cut off: {error}",
            given=path,
            expected="a whole safetensors file",
            mend="copy it again from where the model was trained, or use an earlier checkpoint",
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of at most JSON_LIMIT bytes. Raises CheckpointError."""
    try:
        with path.open("rb") as file:
            data = file.read(JSON_LIMIT + 1)
    except OSError as error:
        raise CheckpointError(
            f"{path.name} cannot be read: {error.strerror}",
            given=path,
            expected="a file that this user may read",
            mend="check the path; copy the whole folder again if the file is missing",
        ) from None
    try:
        if len(data) > JSON_LIMIT:
            raise ValueError(f"longer than {readable_size(JSON_LIMIT)}")
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path.name} is damaged: {error}",
            given=path,
            expected="a JSON object",
            mend="copy the file again from where the model was trained",
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path.name} is damaged: it has no JSON object",
            given=path,
            expected="a JSON object",
            mend="copy the file again from where the model was trained",
        )
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON file as people like to read it. Raises OSError; meant for use inside atomic_folder."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hidden(folder: Path, name: str, kind: str) -> list[Path]:
    """The draft, replaced or removed folders (kind) in folder whose final name matches the pattern name."""
    if not folder.is_dir():
        return []
    pattern = re.compile(rf"\.{name}\.[0-9a-f]{{8}}\.{kind}")
    return [entry for entry in folder.iterdir() if pattern.fullmatch(entry.name)]


def remove_folder(folder: Path) -> None:
    """Delete a folder that nobody reads by this name. What cannot be deleted stays, and is tried again next time."""
    shutil.rmtree(folder, ignore_errors=True)


def retire_folder(folder: Path) -> None:
    """Delete a folder that others may be reading: it vanishes whole, never file by file. Raises OSError."""
    removed = _beside(folder, "removed")
    os.replace(folder, removed)
    remove_folder(removed)


def sync_file(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows has no handle for a folder; it writes the list of files through
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def readable_size(n_bytes: float) -> str:
    """1536 as `1.5 kB`-like text, in powers of 1000 as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        sync_file(path)
    sync_file(folder)


def _take_place(draft: Path, path: Path) -> None:
    replaced = _beside(path, "replaced")
    had_former = path.exists()
    if had_former:
        os.replace(path, replaced)
    try:
        os.replace(draft, path)
    except BaseException:
        if had_former:
            os.replace(replaced, path)
        raise
    sync_file(path.parent)
    for leftover in hidden(path.parent, re.escape(path.name), "replaced"):
        remove_folder(leftover)


def _swap_in(draft: Path, folder: Path, owned: Collection[str]) -> None:
    """Move the drafted files into folder; when one cannot be moved, put back the former ones."""
    names = sorted(path.name for path in draft.iterdir())
    former, touched = draft / "former", []
    former.mkdir()
    try:
        for name in (*names, *sorted(set(owned) - set(names))):
            target = folder / name
            if target.exists():
                _keep(target, former / name)
            touched.append(name)
            if name in names:
                os.replace(draft / name, target)
            else:
                target.unlink(missing_ok=True)
    except BaseException:
        for name in reversed(touched):
            if (former / name).exists():
                os.replace(former / name, folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
        raise
    sync_file(folder)


def _keep(file: Path, former: Path) -> None:
    """Give a file a second name, or a copy where the file system knows no second names."""
    try:
        os.link(file, former)
    except OSError:
        shutil.copyfile(file, former)


def _beside(path: Path, kind: str) -> Path:
    return path.parent / f".{path.name}.{secrets.token_hex(4)}.{kind}"


def _os_error_number(error: SafetensorError) -> int:
    """safetensors gives the system's error as text only."""
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match[1]) if match else 0


def _free_space(path: Path) -> str:
    folder = next((parent for parent in path.parents if parent.is_dir()), None)
    try:
        return f"{readable_size(shutil.disk_usage(folder or '.').free)} are free there"
    except OSError:
        return "the free space there is unknown"

"""The recorder: collects what a model says of itself while it runs, by scoped names such as `decoder.3.self.weights`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor


class Recorder(Mapping[str, Tensor]):
    """A mapping from tap names to tensors, to be passed as `taps`; implements `tripel.nn.mixer.Taps`.

        recorder = Recorder(only=["*.weights"])
        model(source_BS, target_BT, taps=recorder)
        recorder["decoder.3.self.weights"]              # (B, H, T, S)

    only: shell patterns of the names to keep; everything by default. What is kept is a copy outside the autograd graph,
    on the device where it arose. A name can be recorded once: several passes, such as the steps of a search, each take a
    scope of their own, `recorder.scope("7")` for names such as `7.decoder.3.self.weights`. Raises ValueError otherwise.
    """

    def __init__(self, only: Sequence[str] = ("*",)) -> None:
        self._only, self._prefix = tuple(only), ""
        self._tensors: dict[str, Tensor] = {}

    def __call__(self, name: str, value: Tensor) -> None:
        """Record value under the scope's names and this one."""
        name = self._prefix + name
        if not any(fnmatchcase(name, pattern) for pattern in self._only):
            return
        if name in self._tensors:
            raise ValueError(f"{name} was recorded before; give each pass a scope or a recorder of its own")
        self._tensors[name] = value.detach().clone()

    def scope(self, name: str) -> Recorder:
        """The same record, seen from below name: what is recorded through it lands here under `name.`, and it holds
        the names without that prefix."""
        inner = Recorder(self._only)
        inner._prefix, inner._tensors = f"{self._prefix}{name}.", self._tensors
        return inner

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        """Names in the order of recording."""
        start = len(self._prefix)
        return (name[start:] for name in self._tensors if name.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)

"""What several tests of commands share."""

import io
import sys

import pytest

from tripel.cli import main


@pytest.fixture
def tripel_(monkeypatch, capsys):
    """Type a command: its exit status, standard output and standard error."""

    def typed(*words, stdin=None):
        monkeypatch.setattr(sys, "argv", ["tripel", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((stdin or "").encode())))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return typed

"""What a person sees of a training: a bar in a terminal of any width, plain lines anywhere else."""

import io
import os
import re

import pytest
from rich.console import Console

from tripel.errors import CheckpointError
from tripel.training.log import RunLog

RECORD = {"step": 5120, "train_loss": 1.3784, "lr": 1e-3, "grad_norm": 0.3, "tokens_per_second": 12345.6}


def seen(folder, *, width, terminal):
    """What one record and one sample leave, without control sequences."""
    file = io.StringIO()
    log = RunLog(folder, 7000, console=Console(file=file, width=width, force_terminal=terminal, color_system=None))
    log.training(RECORD, 100.0)
    log.sample("A dog sleeps.", "Ein Hund schläft.")
    log.close()
    text = file.getvalue()
    return text if not terminal else re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_the_bar_fits_the_terminal_and_keeps_what_matters(tmp_path, width):
    lines = [line for line in seen(tmp_path, width=width, terminal=True).splitlines() if "5120/7000" in line]
    assert lines and all(len(line) <= width for line in lines)
    assert "loss 1.378" in lines[-1] and "12,346 tok/s" in lines[-1]


def test_a_pipe_gets_plain_lines(tmp_path):
    text = seen(tmp_path, width=40, terminal=False)
    assert "\x1b" not in text and "\r" not in text
    assert text.splitlines()[0] == ("step   5120/7000  loss 1.378  lr 1.00e-03  grad 0.30  12,346 tok/s  left 1:40")


def test_a_sample_shows_the_source_and_what_the_model_makes_of_it(tmp_path):
    assert "for example  A dog sleeps.  ->  Ein Hund schläft." in seen(tmp_path, width=80, terminal=False)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full: /dev/full of Linux")
def test_a_full_disk_is_explained_by_the_log_too(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    log = RunLog(tmp_path, 7000, console=Console(file=io.StringIO()))
    with pytest.raises(CheckpointError, match=r"saving failed: No space left on device[\s\S]*metrics\.jsonl"):
        log.write(RECORD)
    with pytest.raises(CheckpointError, match="saving failed"):
        log.close()

"""The commands, keys and code that README and docs show exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from tripel.checkpoint import save_run
from tripel.cli import app
from tripel.models.build import build
from tripel.models.config import EncoderConfig
from tripel.recipe import Recipe, read_recipe, recipe_names
from tripel.tasks.masked_token import encoder_vocabulary
from tripel.text.pair import TokenizerPair
from tripel.text.tokenizer import Tokenizer, TokenizerConfig

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted(
    {
        line.split(" #")[0].strip()
        for page in PAGES
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
        for line in block.replace("\\\n", " ").splitlines()
        if "tripel " in line and not line.startswith(("#", "pip"))
    }
)
PYTHON = [
    (page.name, block)
    for page in PAGES
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
]


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 5


@pytest.mark.parametrize("line", COMMANDS)
def test_a_shown_command_parses(line):
    line = re.split(r"[<>|]", line)[0]
    words = shlex.split(line)
    arguments = words[words.index("tripel") + 1 :]
    command = typer.main.get_command(app)
    context = command.make_context("tripel", arguments)
    while (name := getattr(context, "_protected_args", [])[:1]) and hasattr(context.command, "commands"):
        assert name[0] in context.command.commands, f"no command {name[0]}"
        command = context.command.commands[name[0]]
        context = command.make_context(name[0], context.args, parent=context)
    if arguments[0] == "train":
        assert arguments[1] in recipe_names()


@pytest.mark.parametrize(("page", "block"), PYTHON)
def test_a_shown_python_block_compiles(page, block):
    compile(block, page, "exec")


@pytest.fixture(scope="module")
def encoder_run(tmp_path_factory):
    """A run folder for recipes that begin with another run's weights."""
    folder = tmp_path_factory.mktemp("runs") / "encoder"
    tokenizer = Tokenizer.train(TokenizerConfig(kind="word", vocab_size=20), ["a few words"], mask=True)
    config = EncoderConfig(n_layers=1, d_model=8, d_ff=8, mixer={"kind": "attention", "n_heads": 2}, max_len=16)
    model = build(config, encoder_vocabulary(tokenizer))
    save_run(folder, model, TokenizerPair(tokenizer, tokenizer), recipe_yaml=None, card="# an encoder\n")
    return folder


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_survives_a_round_trip_and_its_header_names_its_command(name, encoder_run):
    text = read_recipe(name)
    recipe = Recipe.load(name, [f"init_from={encoder_run}"] if "\ninit_from:" in text else [])
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert any(f"tripel train {name} " in line for line in header)

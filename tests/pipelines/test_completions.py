"""What `tripel complete` and `tripel score` print: for a reader, for a program, and when something is wrong."""

import gzip
import json
import sys

import pytest
from test_completer import TEXT, completer, saying
from typer.testing import CliRunner

import tripel
from tripel.checkpoint import save_run
from tripel.cli import app, main
from tripel.errors import InputError, TripelError
from tripel.models.build import build
from tripel.models.config import EncoderDecoderConfig, StackConfig, Vocabulary
from tripel.nn import AttentionConfig
from tripel.pipelines import completions
from tripel.pipelines.load import load_completer
from tripel.pipelines.stops import first_stop
from tripel.text.pair import TokenizerPair
from tripel.text.tokenizer import TokenizerConfig

SAID = " be,\nor not\\to be"


@pytest.fixture
def run(monkeypatch):
    """Runs a command with a model that says SAID after one token; what it printed, and to whom."""
    chosen = [saying("char", SAID.replace("\\", " "))]
    monkeypatch.setattr("tripel.pipelines.load.load_completer", lambda folder: chosen[0])

    def invoke(*arguments, input=None, model=None):
        chosen[0] = model or chosen[0]
        result = CliRunner().invoke(app, list(arguments), input=input, env={"COLUMNS": "100"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


ANSWER = SAID.replace("\\", " ")


def test_a_prompt_and_what_follows_it_read_as_one_text(run):
    assert run("complete", "r", "T").stdout == f"T{ANSWER}\n"
    assert run("complete", "r", "T", "--no-stream").stdout == f"T{ANSWER}\n"
    assert run("complete", "r", "T", "--no-echo").stdout == f"{ANSWER}\n"


def test_several_answers_have_a_line_between_them(run):
    assert run("complete", "r", "T", "o").stdout == f"T{ANSWER}\n---\no{ANSWER}\n"
    assert run("complete", "r", "T", "--samples", "2", "--no-echo").stdout == f"{ANSWER}\n---\n{ANSWER}\n"


def test_every_line_of_input_gets_one_line_that_can_be_read_back(run):
    given = run("complete", "r", input="T\no\r\nb\n").stdout
    assert given == (ANSWER.replace("\n", "\\n") + "\n") * 3
    assert [completions.unescaped(line) for line in given.splitlines()] == [ANSWER] * 3
    assert run("complete", "r", "--echo", input="T\n").stdout == "T" + ANSWER.replace("\n", "\\n") + "\n"
    assert run("complete", "r", "--samples", "2", input="T\no\n").stdout.count("\n") == 4
    assert run("complete", "r", input="").stdout == ""


def test_a_backslash_in_an_answer_is_not_taken_for_a_line_break(run):
    said = "a\\nb\n\\\rc"
    given = run("complete", "r", input="T\n", model=saying("byte", said)).stdout
    assert given == "a\\\\nb\\n\\\\\\rc\n"
    assert completions.unescaped(given.removesuffix("\n")) == said


def test_files_are_read_and_written(run, tmp_path):
    with gzip.open(tmp_path / "in.gz", "wt") as file:
        file.write("T\no\n")
    result = run("complete", "r", "-i", str(tmp_path / "in.gz"), "-o", str(tmp_path / "out"), "--stop", "\\n")
    assert result.stdout == ""
    assert (tmp_path / "out").read_text() == " be,\n be,\n"


def test_options_reach_the_search(run):
    model = completer()
    options = [
        "--max-tokens", "9", "--temperature", "1.5", "--top-k", "20", "--top-p", "0.9", "--min-p", "0.02",
        "--repetition-penalty", "1.2", "--seed", "5", "--set", "no_repeat_ngram=3", "--no-echo",
    ]  # fmt: skip
    expected = model.complete(
        "To be", max_new_tokens=9, temperature=1.5, top_k=20, top_p=0.9, min_p=0.02, repetition_penalty=1.2, seed=5,
        no_repeat_ngram=3,
    )  # fmt: skip
    assert run("complete", "r", "To be", *options, model=model).stdout == expected.text + "\n"
    greedy = model.complete("To be", sample=False, max_new_tokens=9).text
    assert run("complete", "r", "To be", "--greedy", "--max-tokens", "9", "--no-echo").stdout == greedy + "\n"
    whole = model.complete("To be").text
    stops = [whole[3:5], whole[8:10]]
    given = run("complete", "r", "To be", "--no-echo", *(f"--stop={stop}" for stop in stops)).stdout
    assert given == whole[: first_stop(whole, stops)] + "\n"


def test_json_is_one_object_a_prompt(run):
    result = run("complete", "r", "T", "o", "--json", "--top", "2", "--samples", "2")
    for line, prompt in zip(result.stdout.splitlines(), "To", strict=True):
        value = json.loads(line)
        assert value["prompt"] == prompt and [sample["text"] for sample in value["samples"]] == [ANSWER] * 2
        assert len(value["samples"][0]["tokens"][0]["top"]) == 2
    assert json.loads(run("complete", "r", "--json", input="T\n").stdout)["samples"][0]["text"] == ANSWER


def test_a_text_that_outgrew_the_context_is_told_apart_from_the_answer(run):
    result = run("complete", "r", TEXT[:30], "--no-stream", "--no-echo", model=completer(max_len=16))
    assert "outgrew the model's context" in result.stderr and "outgrew" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["complete", "r", "T", "--temperature", "-1"], "temperature cannot be used"),
        (["complete", "r", "T", "--set", "temprature=1"], "did you mean temperature"),
        (["complete", "r", "T", "--stop", ""], "empty stop string"),
        (["complete", "r", "T", "--top", "3"], "--top needs --json"),
        (["complete", "r", "T", "-i", "file"], "exclude each other"),
        (["complete", "r", "T", "--greedy", "--samples", "2"], "n 2 is more than beam 1"),
        (["complete", "r", "Χ"], "does not know"),
        (["complete", "r", "-i", "nowhere"], "there is no such file"),
        (["score", "r", "T", "-i", "file"], "exclude each other"),
        (["score", "r", "T", "--top", "3"], "--top needs --json"),
        (["score", "r", ""], "text 1 is empty"),
    ],
)
def test_what_cannot_be_is_said(arguments, message, run):
    with pytest.raises(TripelError, match=message):
        run(*arguments)


def test_a_bad_line_is_named(run):
    with pytest.raises(InputError, match="in lines 1 to 3: prompt 2 has characters"):
        run("complete", "r", input="T\nΧ\nT\n")
    with pytest.raises(InputError, match="temperature cannot be used"):
        run("complete", "r", "--temperature", "-1", input="")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("\\n", "\n"), ("a\\tb", "a\tb"), ("\\\\n", "\\n"), ("\\", "\\"), ("\\x", "\\x"), ("\\\\", "\\"), ("a\\", "a\\")],
)
def test_a_line_break_can_be_typed_in_a_shell(typed, meant):
    assert completions.unescaped(typed) == meant


def test_a_score_is_a_table_with_the_totals(run):
    model = completer()
    shown = run("score", "r", "To be, T", "not", model=model).stdout
    assert shown.count("bits per byte") == 2 and "8 tokens, 8 bytes" in shown
    assert f"perplexity {model.score('not').perplexity:,.3f}" in shown
    assert len(shown.splitlines()) == 2 * 2 + 8 + 3 + 1


def test_of_a_long_text_the_least_likely_tokens_are_shown(run, tmp_path):
    (tmp_path / "text").write_text(TEXT * 3)
    shown = run("score", "r", "-i", str(tmp_path / "text"), model=completer()).stdout
    assert f"the 20 least likely of {3 * len(TEXT)} tokens" in shown and len(shown.splitlines()) == 23
    assert run("score", "r", input=TEXT * 3).stdout == shown


def test_scores_as_json_and_what_was_not_known(run):
    model = completer()
    result = run("score", "r", "To", "Z", "--json", "--top", "2", model=model)
    first, second = map(json.loads, result.stdout.splitlines())
    assert first["log_prob"] == pytest.approx(model.score("To").log_prob) and len(first["tokens"][0]["top"]) == 2
    assert second["unknown"] == ["Z"]
    assert "note: scored as the unknown token" in run("score", "r", "Z").stderr


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    tokenizers = TokenizerPair.train(TokenizerConfig(kind="char", vocab_size=100), [TEXT], [TEXT])
    size, target = tokenizers.target.vocab_size, tokenizers.target
    stack = StackConfig(n_layers=1, mixer=AttentionConfig(n_heads=2))
    config = EncoderDecoderConfig(d_model=8, d_ff=8, encoder=stack, decoder=stack, max_len=16)
    vocabulary = Vocabulary(
        source_size=size, target_size=size, pad_id=target.pad_id, eos_id=target.eos_id, start_id=target.bos_id
    )
    save_run(folder, build(config, vocabulary), tokenizers, recipe_yaml=None, card="a card")
    return folder


@pytest.mark.parametrize("command", [["complete", "T"], ["score", "T"]])
def test_a_translator_is_not_taken_for_a_language_model(translator, command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tripel", command[0], str(translator), command[1]])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "this run is a translator" in message and f"use `tripel translate {translator} ...`" in message
    with pytest.raises(InputError, match="a language model"):
        load_completer(translator)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("run"), completer()
    save_run(folder, model.model, TokenizerPair(model.tokenizer, model.tokenizer), recipe_yaml=None, card="a card")
    return folder


def test_a_run_of_a_language_model_opens_as_a_completer(language_model):
    model = tripel.load(language_model)
    assert isinstance(model, tripel.Completer)
    assert model.complete("To be", seed=3).text == completer().complete("To be", seed=3).text
    result = CliRunner().invoke(app, ["complete", str(language_model), "To be", "--seed", "3", "--no-echo"])
    assert result.stdout == model.complete("To be", seed=3).text + "\n"


def test_a_language_model_is_not_taken_for_a_translator(language_model, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tripel", "translate", str(language_model), "To be"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "this run is a language model" in message and f"use `tripel complete {language_model} ...`" in message

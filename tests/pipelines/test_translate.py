import errno
import gzip
import itertools
import json
import os
import subprocess
import sys

import pytest
import torch

from tripel.checkpoint import save_run
from tripel.decode import DecodeConfig
from tripel.errors import InputError
from tripel.models.build import build
from tripel.models.config import EncoderDecoderConfig, StackConfig, Vocabulary
from tripel.nn import AttentionConfig
from tripel.pipelines.records import JsonLines, TsvLines
from tripel.pipelines.translate import Translator
from tripel.text.pair import TokenizerPair
from tripel.text.tokenizer import TokenizerConfig

SOURCES = ["Two dogs play in the snow.", "A man reads a book.", "Children run!", "The cat sleeps on a chair.", "Snow."]
TARGETS = [
    "Zwei Hunde spielen im Schnee.",
    "Ein Mann liest ein Buch.",
    "Kinder rennen!",
    "Die Katze schläft.",
    "Schnee.",
]


@pytest.fixture(scope="module")
def translator():
    torch.manual_seed(3)
    tokenizers = TokenizerPair.train(TokenizerConfig(vocab_size=340), SOURCES * 3, TARGETS * 3)
    target = tokenizers.target
    stack = StackConfig(n_layers=2, mixer=AttentionConfig(n_heads=2))
    config = EncoderDecoderConfig(d_model=32, d_ff=32, encoder=stack, decoder=stack, tie="none", max_len=48)
    vocabulary = Vocabulary(
        source_size=target.vocab_size, target_size=target.vocab_size,
        pad_id=target.pad_id, eos_id=target.eos_id, start_id=target.bos_id,
    )  # fmt: skip
    model = build(config, vocabulary).eval()
    with torch.no_grad():
        model.head.weight.mul_(4)
        for block in model.decoder.blocks:
            block.cross.key_value.weight.mul_(4)
    return Translator(model, tokenizers, DecodeConfig(beam=3, max_length_ratio=1.0, max_length_extra=5))


def test_one_text_gives_one_translation_and_many_give_as_many_in_order(translator):
    together = translator.translate(SOURCES)
    alone = [translator.translate(source) for source in SOURCES]
    assert [str(t) for t in together] == [t.text for t in alone]
    assert [t.source for t in together] == SOURCES
    assert len({t.text for t in together}) > 1
    assert all(t.parts == (source,) and not t.split for t, source in zip(together, SOURCES, strict=True))


@pytest.mark.parametrize("blank", ["", "   ", "\t", "\u200b", "\x00"])
def test_a_blank_text_gives_a_blank_translation(translator, blank):
    answer = translator.translate(["Snow.", blank, "Children run!"])
    assert answer[1].text == ""
    assert answer[1].score is None
    assert answer[1].parts == ()
    assert answer[0].text == translator.translate("Snow.").text


def test_settings_of_a_call_override_those_of_the_translator(translator):
    answer = translator.translate("A man reads a book.", beam=4, n_best=4)
    assert len(answer.alternatives) == 4
    assert answer.alternatives[0].text == answer.text
    scores = [a.score for a in answer.alternatives]
    assert scores == sorted(scores, reverse=True)
    assert translator.decode.beam == 3


def test_a_translation_begins_with_its_prefix(translator):
    answers = translator.translate(SOURCES[:3], prefix=["Zwei", "", "Die Katze"])
    assert answers[0].text.startswith("Zwei")
    assert answers[1].text == translator.translate(SOURCES[1]).text
    assert answers[2].text.startswith("Die Katze")
    assert translator.translate("Snow.", prefix="Schnee").text.startswith("Schnee")
    with pytest.raises(InputError, match="number of prefixes"):
        translator.translate(SOURCES, prefix=["Zwei"])


def test_control_characters_are_cleaned_and_counted(translator):
    answer = translator.translate("A man\x07reads\u200b a book.")
    assert answer.text == translator.translate("A man reads a book.").text
    assert answer.n_cleaned == 2


def test_a_line_longer_than_the_model_reads_is_split_into_sentences_and_says_so(translator):
    long = " ".join(SOURCES * 3)
    answer = translator.translate(long)
    assert answer.split
    assert answer.parts == tuple(SOURCES * 3)
    assert answer.text == " ".join(translator.translate(source).text for source in SOURCES * 3)


def test_a_text_of_several_lines_is_translated_line_by_line(translator):
    answer = translator.translate("Snow.\n\nChildren run!\n")
    expected = [translator.translate(line).text for line in ("Snow.", "Children run!")]
    assert answer.text == f"{expected[0]}\n\n{expected[1]}\n"
    assert answer.parts == ("Snow.", "Children run!")


def test_one_sentence_that_is_too_long_is_refused_not_cut(translator):
    with pytest.raises(InputError, match="text 2 has a sentence that is longer") as caught:
        translator.translate(["Snow.", "Snow. " + "dogs play " * 60])
    assert "at most 48 tokens" in str(caught.value)


@pytest.mark.parametrize("unit", ["x", "dog ", "."])
def test_a_megabyte_without_a_sentence_end_is_refused(translator, unit):
    with pytest.raises(InputError, match="longer than this model can read"):
        translator.translate(unit * (1_000_000 // len(unit)))


def test_a_megabyte_of_short_lines_is_read(translator):
    text = "\n".join(["", " " * 18] * 50_000)
    assert translator.translate(text).text == "\n" * 99_999


def test_a_text_beyond_all_measure_is_refused(translator):
    with pytest.raises(InputError, match="text 1 is too long"):
        translator.translate("a" * 10_000_001)


@pytest.mark.parametrize("wrong", [b"bytes", None, 3])
def test_what_is_not_text_is_refused(translator, wrong):
    with pytest.raises(InputError, match="text 1 is not text"):
        translator.translate([wrong])


def test_an_unknown_setting_names_the_nearest(translator):
    with pytest.raises(InputError, match="did you mean length_penalty"):
        translator.translate("Snow.", length_penality=1.0)
    with pytest.raises(InputError, match="beam cannot be used"):
        translator.translate("Snow.", beam=0)
    with pytest.raises(InputError, match="n_best 9 is more than beam 3"):
        translator.translate("Snow.", n_best=9)


@pytest.mark.parametrize("settings", [{"beam": 1}, {"beam": 3}, {"sample": True, "seed": 4}])
def test_the_words_of_a_stream_join_to_the_translation(translator, settings):
    for text in [*SOURCES, "", "Snow.\n\nChildren run!", " ".join(SOURCES * 3)]:
        words = list(translator.stream(text, **settings))
        assert "".join(words) == translator.translate(text, **settings).text
        assert all(word[:1].isspace() or i == 0 for i, word in enumerate(words))


def test_the_first_words_of_a_stream_come_before_the_last_token_is_chosen(translator, monkeypatch):
    steps = []
    plain = Translator(translator.model, translator.tokenizers, engine="plain")
    step = plain.model.step
    monkeypatch.setattr(plain.model, "step", lambda *args: (steps.append(1), step(*args))[1])
    words = plain.stream(SOURCES[0], beam=1, prefix="Zwei Hunde")
    assert next(words) == "Zwei"
    assert len(steps) <= 1


def test_lines_come_out_in_order_one_for_one(translator):
    source = ["Snow.\n", "\n", "Children run!\r\n", "Two dogs. A man.\n"]
    out = list(translator.translate_lines(source, lookahead=2))
    assert out == [translator.translate(line.strip()).text for line in source]


def test_lines_are_read_no_further_than_the_lookahead(translator):
    taken = []

    def endless():
        for i in itertools.count():
            taken.append(i)
            yield "Snow."

    next(translator.translate_lines(endless(), lookahead=3))
    assert len(taken) == 3


def test_a_bad_line_stops_or_becomes_an_empty_line_as_asked(translator):
    source = ["Snow.", "dogs " * 100, "Children run!"]
    with pytest.raises(InputError, match="line 2"):
        list(translator.translate_lines(source))
    errors = []
    out = list(translator.translate_lines(source, on_error=errors.append))
    assert out[1] == ""
    assert out[2] == translator.translate("Children run!").text
    assert "line 2" in str(errors[0])


def test_tsv_lines_get_a_new_last_column(translator):
    out = list(translator.translate_lines(["1\tSnow.", "", "2\tChildren run!"], line_format=TsvLines(column=2)))
    snow, run = translator.translate(["Snow.", "Children run!"])
    assert out == [f"1\tSnow.\t{snow}", "", f"2\tChildren run!\t{run}"]
    with pytest.raises(InputError, match="line 1 has no column 3"):
        list(translator.translate_lines(["a\tb"], line_format=TsvLines(column=3)))


def test_json_lines_get_a_new_field(translator):
    line = json.dumps({"id": 7, "source": "Snow."})
    (out,) = translator.translate_lines([line], line_format=JsonLines())
    assert json.loads(out) == {"id": 7, "source": "Snow.", "translation": translator.translate("Snow.").text}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{bad", "line 1 is not JSON"),
        ("[1]", "JSON but not an object"),
        ('{"sorce": "x"}', "did you mean the field 'sorce'"),
        ('{"source": 3}', "int in 'source'"),
        ("[" * 100_000, "line 1 is not JSON"),
    ],
)
def test_a_line_that_is_not_what_json_lines_need_is_explained(translator, line, message):
    with pytest.raises(InputError, match=message):
        list(translator.translate_lines([line], line_format=JsonLines()))


# The command


@pytest.fixture(scope="module")
def run(translator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    save_run(folder, translator.model, translator.tokenizers, recipe_yaml=None, card="# a translator\n")
    return folder


def test_a_file_gives_a_file_and_what_befell_its_lines_is_told(run, tripel_, tmp_path):
    lines = ["Snow.", "", "Two\x01 dogs.", "A man reads a book. " * 20, "Two\x02 dogs."]
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    status, out, err = tripel_("translate", run, "-i", tmp_path / "in.txt", "-o", tmp_path / "out" / "out.txt")
    answers = (tmp_path / "out" / "out.txt").read_text(encoding="utf-8").splitlines()
    assert (status, out, len(answers), answers[1]) == (0, "", 5, "")
    assert "control or invisible characters were replaced: 2 lines, the first line 3" in err
    assert "the text was translated in several parts: line 4" in err


def test_an_empty_input_gives_an_empty_output(run, tripel_, tmp_path):
    (tmp_path / "in.txt").write_bytes(b"")
    status, out, err = tripel_("translate", run, "-i", tmp_path / "in.txt")
    assert (status, out, err) == (0, "", "")


WHOLE = gzip.compress(b"Two dogs play in the snow.\n" * 2000)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.txt", None, "there is no such file"),
        ("folder", "folder", "this is a folder, not a file"),
        ("latin.txt", b"Snow.\nM\xfcnchen.\n", "is not UTF-8 text at line 2"),
        ("binary.txt", bytes(range(256)), "is not UTF-8 text at line"),
        ("short.gz", WHOLE[:-20], "the gzip file is damaged or cut short"),
        ("changed.gz", WHOLE[:60] + bytes(20) + WHOLE[80:], "the gzip file is damaged or cut short"),
        ("plain.gz", b"Snow.\n", "the gzip file is damaged or cut short"),
    ],
)
def test_an_input_that_cannot_be_read_is_explained_and_no_output_is_left(
    run, tripel_, tmp_path, name, content, message
):
    if content == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    status, out, err = tripel_("translate", run, "-i", tmp_path / name, "-o", tmp_path / "out.txt")
    assert (status, out) == (2, "") and message in err and "Traceback" not in err
    assert not (tmp_path / "out.txt").exists()


def test_a_megabyte_in_one_line_is_refused_whole(run, tripel_, tmp_path):
    (tmp_path / "in.txt").write_text("snow " * 200_000 + "\n", encoding="utf-8")
    status, out, err = tripel_("translate", run, "-i", tmp_path / "in.txt")
    assert (status, out) == (2, "") and "line 1 has a sentence that is longer than this model can read" in err


def test_an_output_that_cannot_be_written_is_explained(run, tripel_, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    status, _, err = tripel_("translate", run, "Snow.", "-o", tmp_path / "file" / "out.txt")
    assert status == 2 and "saving failed" in err

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    status, _, err = tripel_("translate", run, "Snow.", "-o", tmp_path / "out.txt")
    assert status == 2 and "saving failed: No space left on device" in err and "0 B" not in err
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full: /dev/full of Linux")
def test_a_full_standard_output_is_an_error_without_a_traceback(run):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "tripel", "translate", str(run), "Snow."]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "the system refused: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--prefix", "Zwei"], "--prefix"),
        (["--n-best", "3", "--beam", "3"], "n_best"),
        (["Snow.", "--n-best", "2", "--stream"], "n_best"),
        (["Snow.", "--format", "jsonl"], "--format jsonl"),
    ],
)
def test_options_that_would_do_nothing_are_refused(run, tripel_, words, named):
    status, out, err = tripel_("translate", run, *words, stdin="Snow.\n")
    assert (status, out) == (2, "") and f"{named}" in err and "has no effect here" in err

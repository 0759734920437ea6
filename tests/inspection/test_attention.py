"""The attention of a translation in words: what the numbers are, and how they are drawn."""

import io

import pytest
import torch
from PIL import Image
from rich.console import Console

from tripel.decode.search import DecodeConfig
from tripel.errors import InputError
from tripel.inspection.attention import END, CrossAttention, cross_attention
from tripel.inspection.taps import Recorder
from tripel.models.build import build
from tripel.models.config import EncoderDecoderConfig, StackConfig
from tripel.nn import AttentionConfig
from tripel.pipelines.translate import Translator
from tripel.tasks.translation import vocabulary_of
from tripel.text.pair import TokenizerPair
from tripel.text.tokenizer import TokenizerConfig

SOURCES = ["the old bicycle belongs to them.", "she has closed the windows."]
TARGETS = ["das alte Fahrrad gehört ihnen.", "sie hat die Fenster geschlossen."]


def make_translator(vocab_size=60):
    """An untrained model on pieces: its attention is some attention."""
    tokenizers = TokenizerPair.train(
        TokenizerConfig(kind="bpe", vocab_size=vocab_size, byte_fallback=False), SOURCES, TARGETS
    )
    stack = StackConfig(n_layers=2, mixer=AttentionConfig(n_heads=2))
    config = EncoderDecoderConfig(d_model=16, d_ff=32, encoder=stack, decoder=stack, max_len=40)
    torch.manual_seed(0)
    decode = DecodeConfig(max_length_ratio=0, max_length_extra=8)
    return Translator(build(config, vocabulary_of(tokenizers)).eval(), tokenizers, decode)


@pytest.fixture(scope="module")
def translator():
    return make_translator()


def drawn(view, width, **options):
    console = Console(file=io.StringIO(), width=width, **options)
    console.print(view)
    return console.file.getvalue()


def test_a_word_has_the_mean_of_its_pieces_rows_and_the_sum_of_their_columns(translator):
    view = cross_attention(translator, SOURCES[0], TARGETS[0], layer=1)
    model, (source, target) = translator.model, (translator.tokenizers.source, translator.tokenizers.target)
    source_ids, target_ids = source.encode(SOURCES[0]), target.encode(TARGETS[0])
    recorder = Recorder()
    with torch.inference_mode():
        model(
            torch.tensor([[*source_ids, model.vocabulary.eos_id]]),
            torch.tensor([[model.vocabulary.start_id, *target_ids]]),
            taps=recorder,
        )
    pieces = recorder["decoder.1.cross.weights"][0].mean(0)
    (_, source_words), (_, target_words) = source.encode_words([SOURCES[0]])[0], target.encode_words([TARGETS[0]])[0]
    assert len(set(source_words)) < len(source_ids), "the test needs words of several pieces"
    for row, target_word in enumerate([*dict.fromkeys(target_words), None]):
        positions = [i for i, w in enumerate([*target_words, None]) if w == target_word]
        for column, source_word in enumerate([*dict.fromkeys(source_words), None]):
            columns = [i for i, w in enumerate([*source_words, None]) if w == source_word]
            expected = sum(pieces[i, j] for i in positions for j in columns) / len(positions)
            assert view.weights_TS[row, column] == pytest.approx(float(expected), abs=1e-6)
    torch.testing.assert_close(view.weights_TS.sum(1), torch.ones(len(view.target)))


def test_words_are_those_of_the_text_and_the_end_of_the_sentence(translator):
    view = cross_attention(translator, SOURCES[0], TARGETS[0])
    assert view.source == ("the", "old", "bicycle", "belongs", "to", "them", ".", END)
    assert view.target == ("das", "alte", "Fahrrad", "gehört", "ihnen", ".", END)
    assert view.layer == 1


def test_without_a_translation_the_models_own_is_shown(translator):
    own = translator.translate(SOURCES[0]).text
    view = cross_attention(translator, SOURCES[0])
    torch.testing.assert_close(view.weights_TS, cross_attention(translator, SOURCES[0], own).weights_TS)


@pytest.mark.parametrize(
    ("text", "layer", "message"),
    [("  ", None, "a blank text"), ("the " * 50, None, "at most 40 tokens"), ("the", 2, "0 to 1")],
)
def test_what_cannot_be_shown_is_said(translator, text, layer, message):
    with pytest.raises(InputError, match=message):
        cross_attention(translator, text, "das", layer=layer)


VIEW = CrossAttention(
    ("the", "house", END), ("das", "Haus", END), torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.5, 0.5], [0.2, 0.3, 0.5]]), 0
)


def test_a_wide_terminal_gets_a_grid_under_the_words():
    lines = drawn(VIEW, 80).splitlines()
    assert lines[0].split() == ["the", "house", END] and len(lines) == 4
    assert lines[1].rstrip() == " das  ███  ░░░░░"
    assert lines[2].rstrip() == "Haus       ▓▓▓▓▓  ▓▓▓▓"


def test_a_narrower_one_gets_upright_words_and_a_very_narrow_one_the_best_word_of_each():
    upright = drawn(VIEW, 18).splitlines()
    assert len(upright) == 8 and upright[4].rstrip() == "      e  e  >" and upright[5].rstrip() == " das  █  ░"
    narrow = drawn(VIEW, 12).splitlines()
    assert narrow == ["das   the 0…", "Haus  house…", "</s>  </s> …"]


@pytest.mark.parametrize("width", [8, 12, 18, 30, 40, 80])
def test_no_line_is_wider_than_the_terminal(width):
    assert all(len(line) <= width for line in drawn(VIEW, width).splitlines())


def test_a_terminal_without_unicode_or_colour_gets_plain_characters():
    class Latin(io.StringIO):
        encoding = "ascii"

    console = Console(file=Latin(), width=80, no_color=True)
    console.print(VIEW)
    assert console.file.getvalue().isascii() and "###" in console.file.getvalue()
    assert "\x1b" not in drawn(VIEW, 80)


def test_the_picture_is_a_png_and_an_unwritable_place_is_an_error(tmp_path):
    path = VIEW.save_png(tmp_path / "new" / "attention.png")
    with Image.open(path) as picture:
        assert picture.format == "PNG" and min(picture.size) > 200
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        VIEW.save_png(tmp_path / "file" / "attention.png")

"""vocab.json and merges.txt of GPT-2 give the ids that transformers gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import tokenizers as library
import torch
from test_language_models import write_theirs

from tripel.checkpoint import load_run
from tripel.errors import CheckpointError, TokenizerError
from tripel.hf.convert import import_folder
from tripel.models.decoder import Decoder
from tripel.pipelines.complete import Completer
from tripel.text.pair import TokenizerPair
from tripel.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers", reason="the other side of the comparison is transformers")

LINES = ["Two dogs play in the snow, don't they?", "# a line # of #version marks", "naïve 東京 x = f(1);\n\n  new"]
TRICKY = [*LINES, "", " ", "  two   spaces ", "I'LL we've", "\x00\u00a0\u2028", "<|endoftext|>", "🙂 e\u0301", "a\r\nb"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As GPT-2's first release: a vocabulary whose last piece is the end of a text, and its merges."""
    bpe = library.ByteLevelBPETokenizer()
    bpe.train_from_iterator(LINES * 3, vocab_size=319, min_frequency=1)
    bpe.add_special_tokens(["<|endoftext|>"])
    size = bpe.get_vocab_size()
    ids = {"vocab_size": size, "bos_token_id": size - 1, "eos_token_id": size - 1, "pad_token_id": None}
    write_theirs(tmp_path / "theirs", "gpt2", **ids)
    bpe.save_model(str(tmp_path / "theirs"))
    file = tmp_path / "theirs" / "vocab.json"
    file.write_text(file.read_text()[:-1] + f', "<|endoftext|>": {size - 1}}}')
    return tmp_path / "theirs"


def imported(folder: Path) -> Tokenizer:
    report = import_folder(folder, folder.parent / "run")
    assert report.notes == ()
    return load_run(folder.parent / "run").tokenizers.source


def test_ids_and_texts_are_those_of_transformers(folder: Path) -> None:
    ours = imported(folder)
    theirs = transformers.GPT2Tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    end = ours.vocab_size - 1
    assert len(ours.merges or []) > 20
    for text in TRICKY:
        ids = theirs(text, split_special_tokens=True).input_ids
        assert ours.encode(text) == ids, text
        assert ours.decode(ids) == text == theirs.decode(ids, clean_up_tokenization_spaces=False)
    assert (ours.eos_id, ours.pad_id, ours.bos_id) == (end, end, end)
    assert ours.keeps_text_divisible
    again = transformers.AutoTokenizer.from_pretrained(folder.parent / "run")
    for text in TRICKY:
        assert again(text, split_special_tokens=True).input_ids == ours.encode(text)
    assert (again.eos_token, again.bos_token, again.pad_token_id) == ("<|endoftext|>", "<|endoftext|>", end)


def test_tokenizer_json_of_transformers_is_taken_over_as_it_is(folder: Path) -> None:
    theirs = transformers.GPT2Tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    theirs.save_pretrained(folder)
    ours = imported(folder)
    assert ours.to_json() == Tokenizer.load(folder / "tokenizer.json").to_json()
    for text in TRICKY:
        assert ours.encode(text) == theirs(text, split_special_tokens=True).input_ids


def test_tokens_that_the_file_puts_in_front_of_a_text_are_told(folder: Path) -> None:
    """Llama's <s>: what follows </s> behind a text is not a part of a prompt."""
    plain = imported(folder)
    assert plain.opening_ids == ()
    backend = library.Tokenizer.from_str(plain.to_json())
    backend.post_processor = library.processors.TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", plain.eos_id)]
    )
    opened = Tokenizer(backend)
    assert opened.opening_ids == (plain.eos_id,)
    assert opened.encode("dogs") == plain.encode("dogs")


def test_prompts_begin_with_those_tokens_so_that_answers_are_those_of_transformers(folder: Path) -> None:
    backend = library.Tokenizer.from_str(imported(folder).to_json())
    backend.add_special_tokens(["<s>"])
    start = backend.token_to_id("<s>")
    backend.post_processor = library.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", start)])
    tokenizer, chat = Tokenizer(backend), folder.parent / "chat"
    ids = {"vocab_size": start + 1, "bos_token_id": start, "eos_token_id": tokenizer.eos_id, "pad_token_id": None}
    theirs = write_theirs(chat, "llama", **ids)
    TokenizerPair(tokenizer, tokenizer).save(chat)
    import_folder(chat, folder.parent / "chat-run")
    run = load_run(folder.parent / "chat-run")
    completer = Completer(cast(Decoder, run.model), run.tokenizers.source, engine="plain")
    encode = transformers.AutoTokenizer.from_pretrained(folder.parent / "chat-run")
    for prompt in ("Two dogs", "play in", ""):
        prompt_T = torch.tensor([encode(prompt).input_ids])
        mask = torch.ones_like(prompt_T)
        answer = theirs.generate(prompt_T, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0)
        found = completer.complete(prompt, sample=False, max_new_tokens=8, loop_guard=0)
        assert list(found.samples[0].ids) == answer[0, prompt_T.shape[1] :].tolist()


def test_a_language_model_may_end_its_texts_with_another_special_token_than_its_tokenizer_is_known_for(
    folder: Path,
) -> None:
    """As models that were tuned to chat do."""
    backend = library.Tokenizer.from_str(imported(folder).to_json())
    backend.add_special_tokens(["<|im_end|>"])
    tokenizer = Tokenizer(backend)
    end = tokenizer.vocab_size - 1
    write_theirs(folder.parent / "chat", "llama", vocab_size=end + 1, eos_token_id=end, pad_token_id=end)
    TokenizerPair(tokenizer, tokenizer).save(folder.parent / "chat")
    import_folder(folder.parent / "chat", folder.parent / "chat-run")
    run = load_run(folder.parent / "chat-run")
    assert (run.vocabulary.eos_id, run.vocabulary.padding_id) == (end, None)
    assert transformers.AutoTokenizer.from_pretrained(folder.parent / "chat-run").eos_token == "<|im_end|>"


def test_a_tokenizer_whose_end_is_text_is_refused(folder: Path) -> None:
    tokenizer = imported(folder)
    write_theirs(folder.parent / "other", "llama", vocab_size=320, eos_token_id=7)
    TokenizerPair(tokenizer, tokenizer).save(folder.parent / "other")
    with pytest.raises(CheckpointError, match="does not fit the model"):
        import_folder(folder.parent / "other", folder.parent / "other-run")


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("merges.txt", "a bcd", CheckpointError),
        ("merges.txt", "\ud800", CheckpointError),
        ("vocab.json", "[1, 2", CheckpointError),
        ("vocab.json", '["a"]', CheckpointError),
        ("vocab.json", '{"a": -1}', CheckpointError),
    ],
)
def test_damaged_files_are_refused(folder: Path, name: str, content: str, kind: Any) -> None:
    (folder / name).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(kind, match=r"vocab\.json and merges\.txt cannot be read"):
        import_folder(folder, folder.parent / "run")


def test_a_vocabulary_without_an_end_is_refused(folder: Path) -> None:
    file = folder / "vocab.json"
    file.write_text(file.read_text().replace("<|endoftext|>", "<|the-end|>"))
    with pytest.raises(TokenizerError, match="no token that ends a text"):
        import_folder(folder, folder.parent / "run")

"""Texts become the tokens that the folder of a sentence-transformers model asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from appliance.errors import WeightsError
from appliance.knowledge.tokenizing import COLUMNS, TextTokenizer

WORDS = ("<pad>", "<unk>", "<s>", "</s>", "reset", "my", "password", "Reset", "please")
LONGEST = 6


def make_folder(
    folder: Path,
    *,
    sentence: dict[str, Any] | None = None,
    named: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    normalizer: normalizers.Normalizer | None = None,
) -> Path:
    """A folder with a tokenizer that knows ``WORDS``; the file itself cuts at 3 and pads to 50."""
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=50, pad_id=0, pad_token="<pad>")
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    files = {
        "sentence_bert_config.json": {"max_seq_length": LONGEST} if sentence is None else sentence,
        "tokenizer_config.json": {"pad_token": "<pad>"} if named is None else named,
        "config.json": config or {},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def words(tokenizer: TextTokenizer, text: str) -> list[str]:
    return [WORDS[number] for number in tokenizer.encode([text])[0].ids]


def test_a_text_is_neither_padded_nor_cut_as_the_file_says(tmp_path: Path) -> None:
    """The file's own figures are those of some training; the model's are beside it."""
    tokenizer = TextTokenizer(make_folder(tmp_path))
    assert words(tokenizer, "reset my password") == ["<s>", "reset", "my", "password", "</s>"]


def test_a_long_text_is_cut_at_the_models_length_and_keeps_its_end_sign(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(make_folder(tmp_path))
    assert words(tokenizer, "my " * 100) == ["<s>", "my", "my", "my", "my", "</s>"]


@pytest.mark.parametrize(
    ("named", "config", "longest"),
    [
        ({"model_max_length": 9}, {"max_position_embeddings": 5}, 5),
        ({"model_max_length": 5}, {"max_position_embeddings": 9}, 5),
        ({"model_max_length": int(1e30)}, {"max_position_embeddings": 7}, 7),
        ({}, {"max_position_embeddings": 7}, 7),
        ({"model_max_length": 8}, {"max_position_embeddings": -1}, 8),
    ],
)
def test_without_a_length_of_its_own_the_smaller_limit_holds(
    tmp_path: Path, named: dict[str, Any], config: dict[str, Any], longest: int
) -> None:
    folder = make_folder(tmp_path, sentence={}, named={"pad_token": "<pad>"} | named, config=config)
    tokenizer = TextTokenizer(folder)
    assert len(tokenizer.encode(["my " * 100])[0]) == longest


def test_a_batch_is_padded_to_its_longest_text_and_masked(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(make_folder(tmp_path))
    batch = tokenizer.batch(tokenizer.encode(["my", "reset my password"]), list(COLUMNS))
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids"}
    np.testing.assert_array_equal(batch["input_ids"], [[2, 5, 3, 0, 0], [2, 4, 5, 6, 3]])
    np.testing.assert_array_equal(batch["attention_mask"], [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    assert not batch["token_type_ids"].any()
    assert {column.dtype for column in batch.values()} == {np.dtype(np.int64)}


def test_a_model_is_given_only_what_it_takes(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(make_folder(tmp_path))
    assert set(tokenizer.batch(tokenizer.encode(["my"]), ["input_ids"])) == {"input_ids"}


@pytest.mark.parametrize("token", ["<unk>", {"content": "<unk>", "lstrip": False}])
def test_the_named_sign_pads_on_the_named_side(tmp_path: Path, token: Any) -> None:
    folder = make_folder(tmp_path, named={"pad_token": token, "padding_side": "left"})
    tokenizer = TextTokenizer(folder)
    batch = tokenizer.batch(tokenizer.encode(["my", "reset my"]), ["input_ids", "attention_mask"])
    np.testing.assert_array_equal(batch["input_ids"], [[1, 2, 5, 3], [2, 4, 5, 3]])
    np.testing.assert_array_equal(batch["attention_mask"], [[0, 1, 1, 1], [1, 1, 1, 1]])


@pytest.mark.parametrize("normalizer", [None, normalizers.Strip()])
@pytest.mark.parametrize("lower", [False, True])
def test_it_lowers_where_the_folder_says_so(
    tmp_path: Path, normalizer: normalizers.Normalizer | None, lower: bool
) -> None:
    sentence = {"max_seq_length": LONGEST, "do_lower_case": lower}
    tokenizer = TextTokenizer(make_folder(tmp_path, sentence=sentence, normalizer=normalizer))
    assert words(tokenizer, "Reset")[1] == ("reset" if lower else "Reset")


def test_the_file_of_another_architecture_counts_too(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    (folder / "sentence_bert_config.json").rename(folder / "sentence_roberta_config.json")
    assert len(TextTokenizer(folder).encode(["my " * 100])[0]) == LONGEST


def test_a_folder_that_says_too_little_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="how long"):
        TextTokenizer(make_folder(tmp_path, sentence={}))
    with pytest.raises(WeightsError, match="does not know"):
        TextTokenizer(make_folder(tmp_path, named={"pad_token": "[NONE]"}))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match=r"tokenizer\.json"):
        TextTokenizer(tmp_path)

"""Knowledge files to articles. Everything is checked before anything is imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from appliance.domain.passage import Article
from appliance.domain.policy import CATEGORIES, ID_MAX_CHARS
from appliance.domain.screening import hidden_sentences
from appliance.domain.text import clean, is_hidden
from appliance.errors import KnowledgeFileError

FILE_MAX_BYTES = 64 * 1024 * 1024
QUESTION_MAX_CHARS = 500
ANSWER_MAX_CHARS = 20_000


class Loaded(NamedTuple):
    """A file's articles. ``hidden`` has an entry for each that held invisible characters, with the
    sentences in which no honest text has such."""

    articles: list[Article]
    hidden: dict[str, tuple[str, ...]]


def read_faqs(path: Path) -> list[Article]:
    """The articles of ``load_faqs``."""
    return load_faqs(path).articles


def load_faqs(path: Path) -> Loaded:
    """Read ``{"faqs": [{"id", "question", "answer", "category"}]}``.

    :raises KnowledgeFileError: naming the file and the first entry that is wrong.
    """
    try:
        if path.stat().st_size > FILE_MAX_BYTES:
            raise KnowledgeFileError(f"{path} is larger than {FILE_MAX_BYTES // 2**20} MiB.")
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise KnowledgeFileError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise KnowledgeFileError(f"{path} is not UTF-8 text.") from error
    except json.JSONDecodeError as error:
        raise KnowledgeFileError(f"{path}, line {error.lineno}: {error.msg}.") from error
    except ValueError as error:
        raise KnowledgeFileError(f"{path} holds a number that is too long.") from error
    except RecursionError as error:
        raise KnowledgeFileError(f"{path} is nested too deeply.") from error
    entries = document.get("faqs") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise KnowledgeFileError(f'{path} has no list "faqs".')
    articles: dict[str, Article] = {}
    hidden: dict[str, tuple[str, ...]] = {}
    for number, entry in enumerate(entries, start=1):
        article = _article(entry, where=f"{path}, entry {number}")
        if article.id in articles:
            raise KnowledgeFileError(f"{path}, entry {number}: the id {article.id} is used twice.")
        articles[article.id] = article
        texts = (entry["question"], entry["answer"])
        if any(is_hidden(character) for text in texts for character in text):
            hidden[article.id] = tuple(found for text in texts for found in hidden_sentences(text))
    return Loaded(list(articles.values()), hidden)


def _article(entry: Any, *, where: str) -> Article:
    if not isinstance(entry, dict):
        raise KnowledgeFileError(f"{where}: expected an object.")
    identifier = entry.get("id")
    if isinstance(identifier, bool) or not isinstance(identifier, str | int):
        raise KnowledgeFileError(f'{where}: "id" must be a number or a text.')
    identifier = str(identifier).strip()
    if not 1 <= len(identifier) <= ID_MAX_CHARS or not _visible(identifier):
        raise KnowledgeFileError(f'{where}: "id" must have 1 to {ID_MAX_CHARS} visible characters.')
    category = entry.get("category")
    if category not in CATEGORIES:
        raise KnowledgeFileError(f'{where}: "category" must be one of {", ".join(CATEGORIES)}.')
    return Article(
        id=identifier,
        question=_text(entry, "question", QUESTION_MAX_CHARS, where),
        answer=_text(entry, "answer", ANSWER_MAX_CHARS, where),
        category=category,
    )


def _text(entry: dict[str, Any], key: str, longest: int, where: str) -> str:
    value = entry.get(key)
    if isinstance(value, str) and any(c == "\x00" or "\ud800" <= c <= "\udfff" for c in value):
        raise KnowledgeFileError(f'{where}: "{key}" holds a NUL or half a character.')
    # Cleaned first: invisible characters hide instructions, and must not count as text.
    text = clean(value) if isinstance(value, str) else ""
    if not 1 <= len(text) <= longest:
        raise KnowledgeFileError(f'{where}: "{key}" must be a text of 1 to {longest} characters.')
    return text


def _visible(identifier: str) -> bool:
    """Whether an id shows all it holds, on one line."""
    return clean(identifier) == identifier and not set(identifier) & {"\n", "\t"}

"""The judge's own figures: what it makes of sentences of which people know whether their passage
supports them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from appliance.answering.judge import judge
from appliance.errors import InvalidInput


class JudgePair(msgspec.Struct, frozen=True):
    """A sentence beside the passage that it is to be judged by.

    ``kind`` tells how the sentence was made: which corruption, or which way to reword.
    """

    passage: str
    sentence: str
    supported: bool
    kind: str = "unnamed"


def read_pairs(path: Path) -> list[JudgePair]:
    """The pairs of a JSONL file.

    :raises InvalidInput: the file cannot be read, or a line is not a pair.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}.") from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                pairs.append(msgspec.json.decode(line, type=JudgePair))
            except msgspec.MsgspecError as error:
                raise InvalidInput(f"{path}, line {number}: {error}.") from error
    if not pairs:
        raise InvalidInput(f"{path} holds no pairs.")
    return pairs


def judge_report(pairs: Sequence[JudgePair]) -> dict[str, Any]:
    """``rejected`` and ``kept``: of the corrupted and of the true sentences the share judged right,
    None where there are none, by kind as well; ``mistakes``: each pair judged wrong, with the
    judge's reason."""
    right: dict[bool, dict[str, list[bool]]] = {
        True: defaultdict(list),
        False: defaultdict(list),
    }
    mistakes = []
    for pair in pairs:
        verdict = judge(pair.sentence, pair.passage)
        hit = verdict.supported is pair.supported
        right[pair.supported][pair.kind].append(hit)
        if not hit:
            mistakes.append(
                {
                    "sentence": pair.sentence,
                    "passage": pair.passage,
                    "kind": pair.kind,
                    "supported": pair.supported,
                    "reason": verdict.reason,
                }
            )
    return {
        "n": len(pairs),
        "rejected": _share(right[False]),
        "kept": _share(right[True]),
        "mistakes": mistakes,
    }


def _share(by_kind: dict[str, list[bool]]) -> dict[str, Any]:
    every = [hit for hits in by_kind.values() for hit in hits]
    return {
        "share": round(sum(every) / len(every), 4) if every else None,
        "n": len(every),
        "by_kind": {
            kind: {"share": round(sum(hits) / len(hits), 4), "n": len(hits)}
            for kind, hits in sorted(by_kind.items())
        },
    }

"""What is kept out of the articles until an administrator has read it.

An import screens every article; held sentences leave it, and an article whose question or whole
answer is held waits as a whole. A release is of a sentence of an article, by its content: importing
the same text again holds it no more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from appliance.domain.passage import Article
from appliance.domain.policy import QuarantineState
from appliance.domain.screening import Finding, screen, without
from appliance.errors import NotFound
from appliance.services.access import Principal
from appliance.storage.database import Database, Records
from appliance.storage.records import KnowledgeChange, Quarantined

Known = Mapping[str, Quarantined]
"""An article's sentences that something was found in before, by digest."""

ACTIONS: Final[dict[QuarantineState, str]] = {"released": "kb.release", "removed": "kb.remove"}


@dataclass(frozen=True, slots=True)
class Screened:
    """An article, what was found in it, and what of it may be seen: None while it waits whole."""

    original: Article
    findings: tuple[Finding, ...]
    kept_out: frozenset[str]
    shown: Article | None


class Quarantine:
    """Reads and decides, for administrators."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self, principal: Principal, state: QuarantineState | None = None
    ) -> Sequence[Quarantined]:
        """Sentences, oldest first.

        :raises Forbidden: the principal is no administrator.
        """
        principal.require("admin")
        return await self._database.read(lambda records: records.quarantine.list(state))

    async def decide(
        self, principal: Principal, quarantine_id: str, state: Literal["released", "removed"]
    ) -> Quarantined:
        """Show a sentence in its old place, or keep it out for good; the next query sees it.

        :raises Forbidden: the principal is no administrator.
        :raises NotFound: there is no such sentence.
        """
        principal.require("admin")
        return await self._database.answer(
            lambda records: _decide(records, principal.owner, quarantine_id, state)
        )


def save_screened(
    records: Records,
    articles: Sequence[Article],
    hidden: Mapping[str, Collection[str]],
    *,
    replace_all: bool,
) -> KnowledgeChange:
    """Store articles without what has to wait. See ``KnowledgeRepository.save``.

    :param hidden: by article id, sentences that held invisible characters.
    """
    records.knowledge.lock()
    known = _known(records)
    screened = [
        screened_as(article, screen(article, hidden.get(article.id, ())), known[article.id])
        for article in articles
    ]
    for each in screened:
        if each.kept_out:
            records.quarantine.keep_original(each.original)
    withheld = tuple(each.original.id for each in screened if each.shown is None)
    change = records.knowledge.save(
        [each.shown or each.original for each in screened], replace=replace_all, withheld=withheld
    )
    for each in screened:
        article_id = each.original.id
        found = {finding.digest: finding for finding in each.findings}
        records.quarantine.drop(_in_vain(known[article_id], but=found))
        new = found.keys() - known[article_id].keys()
        records.quarantine.hold(article_id, [found[key] for key in found if key in new])
        if not each.kept_out:
            records.quarantine.drop_original(article_id)
    given = {article.id for article in articles}
    if replace_all:
        for article_id in records.quarantine.originals() - given:
            records.quarantine.drop_original(article_id)
        gone = known.keys() - given
        records.quarantine.drop(each for key in gone for each in _in_vain(known[key], but=()))
    held = [each for each in records.quarantine.list("held") if each.article_id in given]
    return replace(change, quarantined=tuple(held), withheld=withheld)


def screened_as(article: Article, findings: tuple[Finding, ...], known: Known) -> Screened:
    """What of an article may be seen, as things were decided."""
    states = {digest: each.state for digest, each in known.items()}
    kept_out = frozenset(
        [finding.digest for finding in findings if states.get(finding.digest) != "released"]
        + [digest for digest, state in states.items() if state == "removed"]
    )
    answer = without(article.answer, kept_out)
    if without(article.question, kept_out) == article.question and answer:
        if answer == article.answer:
            return Screened(article, findings, frozenset(), article)
        return Screened(article, findings, kept_out, replace(article, answer=answer))
    return Screened(article, findings, kept_out, None)


def _decide(
    records: Records, actor: str, quarantine_id: str, state: Literal["released", "removed"]
) -> Quarantined:
    records.knowledge.lock()
    found = records.quarantine.get(quarantine_id)
    if found is None:
        raise NotFound("There is no such sentence in quarantine.")
    if found.state == state:
        return found
    decided = records.quarantine.decide(quarantine_id, state, actor)
    original = records.quarantine.original(found.article_id)
    if original is not None:
        _show(records, original)
    records.audit.add(
        actor,
        ACTIONS[state],
        found.article_id,
        {"quarantine": found.id, "reason": found.reason, "digest": found.digest},
    )
    return decided


def _show(records: Records, original: Article) -> None:
    """Show of an article what may be seen of it now."""
    known = _known(records)[original.id]
    findings = tuple(
        Finding(each.part, each.sentence, each.reason, each.digest)
        for each in known.values()
        if each.state == "held"
    )
    screened = screened_as(original, findings, known)
    before = records.knowledge.version()
    withheld = () if screened.shown else (original.id,)
    change = records.knowledge.save([screened.shown or original], replace=False, withheld=withheld)
    if not screened.kept_out:
        records.quarantine.drop_original(original.id)
    if change.version != before:
        records.events.add(
            "kb.updated", conversation_id=None, user_id=None, data={"version": change.version}
        )


def _known(records: Records) -> dict[str, dict[str, Quarantined]]:
    known: dict[str, dict[str, Quarantined]] = defaultdict(dict)
    for each in records.quarantine.list():
        known[each.article_id][each.digest] = each
    return known


def _in_vain(known: Known, *, but: Collection[str]) -> list[str]:
    """Ids of sentences that wait though no text has them any more. What was decided stays, for the
    case that they return."""
    return [each.id for key, each in known.items() if each.state == "held" and key not in but]

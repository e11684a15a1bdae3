"""The knowledge base as it is stored: articles in order, and a version that says when they changed.

Whoever holds something made from the articles (an index, a cache) compares versions to know that it
is stale.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import bindparam, delete, func, select, union_all, update

from appliance.domain.passage import Article
from appliance.errors import InvalidInput
from appliance.storage.records import KnowledgeChange
from appliance.storage.repository import Repository, columns_for
from appliance.storage.tables import UNPLACED
from appliance.storage.tables import kb_originals as originals
from appliance.storage.tables import knowledge_entries as entries
from appliance.storage.tables import knowledge_state as state
from appliance.storage.types import to_json, utc_now

_COLUMNS = columns_for(Article, entries)


def digest_of(articles: Iterable[Article]) -> str:
    """SHA-256, in hexadecimal, of the articles in order: equal content, equal digest, on any
    machine."""
    documents = [
        [article.id, article.question, article.answer, article.category] for article in articles
    ]
    return hashlib.sha256(to_json(documents).encode()).hexdigest()


class KnowledgeRepository(Repository):
    """Articles by id and in order."""

    def articles(self) -> list[Article]:
        """All articles, in their order."""
        return self._all(Article, select(*_COLUMNS).order_by(entries.c.position))

    def get(self, article_id: str) -> Article | None:
        return self._first(Article, select(*_COLUMNS).where(entries.c.id == article_id))

    def count(self) -> int:
        return self._connection.scalar(select(func.count()).select_from(entries)) or 0

    def version(self) -> int:
        """Counts the changes so far; 0 for a knowledge base that was never filled."""
        version, _ = self.stand()
        return version

    def digest(self) -> str:
        """``digest_of`` the stored articles, as computed when they last changed."""
        _, digest = self.stand()
        return digest

    def stand(self) -> tuple[int, str]:
        """Version and digest in one look."""
        return self._state(lock=False)

    def lock(self) -> None:
        """Wait until nobody else changes the knowledge base, and keep it so until the commit."""
        self._state(lock=True)

    def places(self) -> list[str]:
        """Ids of all articles in order, with those that are withheld as a whole in their places."""
        shown = select(entries.c.id, entries.c.position)
        kept = select(originals.c.article_id, originals.c.position)
        kept = kept.where(
            originals.c.position != UNPLACED,
            originals.c.article_id.not_in(select(entries.c.id)),
        )
        placed = union_all(shown, kept)
        rows = self._connection.execute(placed).all()
        return [row[0] for row in sorted(rows, key=lambda row: row[1])]

    def save(
        self, articles: Sequence[Article], *, replace: bool, withheld: Collection[str] = ()
    ) -> KnowledgeChange:
        """Store the articles by id: known ones keep their place, new ones go to the end.

        The version moves exactly when the digest does: with words, membership or order.

        :param replace: the given articles, in the given order, become the whole knowledge base.
        :param withheld: ids of given articles that are not to be seen; their places are kept.
        :raises InvalidInput: an id occurs twice; nothing is stored.
        """
        counted = Counter(article.id for article in articles).most_common(1)
        if counted and counted[0][1] > 1:
            raise InvalidInput(f"The article id {counted[0][0]!r} occurs more than once.")
        # The state's row is the lock of the whole knowledge base, so that two imports cannot
        # interleave.
        version, digest = self._state(lock=True)
        before = {article.id: article for article in self.articles()}
        given = {article.id: article for article in articles}
        known = before | given
        order = list(given) if replace else list(dict.fromkeys([*self.places(), *given]))
        after = {key: known[key] for key in order if key in known and key not in withheld}
        new_digest = digest_of(after.values())
        if new_digest != digest:
            now = utc_now()
            version += 1
            self._store(before, after, now)
            self._connection.execute(
                update(state).values(version=version, digest=new_digest, updated_at=now)
            )
        self._place(order)
        shown = given.keys() - set(withheld)
        added = shown - before.keys()
        unchanged = sum(before.get(key) == given[key] for key in shown)
        return KnowledgeChange(
            added=len(added),
            changed=len(shown) - len(added) - unchanged,
            removed=len(before.keys() - after.keys()),
            unchanged=unchanged,
            version=version,
        )

    def _state(self, *, lock: bool) -> tuple[int, str]:
        statement = select(state.c.version, state.c.digest)
        version, digest = self._connection.execute(
            statement.with_for_update() if lock else statement
        ).one()
        return version, digest

    def _store(self, before: dict[str, Article], after: dict[str, Article], now: datetime) -> None:
        """Write what differs: an article whose words stay keeps its ``updated_at`` even when it
        moves."""
        removed = [{"gone": key} for key in before.keys() - after.keys()]
        if removed:
            self._connection.execute(
                delete(entries).where(entries.c.id == bindparam("gone")), removed
            )
        written = [
            {**asdict(article), "position": position, "created_at": now, "updated_at": now}
            for position, article in enumerate(after.values())
            if before.get(article.id) != article
        ]
        if written:
            insert = self._insert(entries)
            replaced = {
                name: insert.excluded[name]
                for name in ("question", "answer", "category", "updated_at")
            }
            self._connection.execute(
                insert.on_conflict_do_update(index_elements=["id"], set_=replaced), written
            )

    def _place(self, order: Sequence[str]) -> None:
        """Number the articles, the withheld ones among them."""
        places = [{"key": key, "place": position} for position, key in enumerate(order)]
        for table, column in ((entries, entries.c.id), (originals, originals.c.article_id)):
            if places:
                self._connection.execute(
                    update(table)
                    .where(column == bindparam("key"), table.c.position != bindparam("place"))
                    .values(position=bindparam("place")),
                    places,
                )

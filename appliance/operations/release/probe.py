"""Does a release do what the one before did? It is asked questions of the desk's own articles, in
rehearsal: nothing that is asked here is ever stored."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from appliance.errors import ApplianceError
from appliance.operations.release import units
from appliance.operations.release.layout import Layout
from appliance.operations.release.services import LOOK_SECONDS, Services
from appliance.operations.release.serving import START_SECONDS, call, version_serving
from appliance.settings import Settings
from appliance.storage import migrate, whole

CANDIDATES: Final = 8
"""Articles tried until enough of them are answered."""
QUESTIONS: Final = 2
"""Questions that the release in charge answers and the next one has to answer as well."""
ANSWER_SECONDS: Final = 120.0
USER: Final = "upgrade-probe"
OUTCOMES: Final = ("answered", "abstained", "smalltalk", "handoff")


class ProbeFailed(ApplianceError):
    """The release runs and does not do its work."""

    code = "probe"
    title = "The release does not answer as it should"
    default_hint = "See its log; it was tried out before any customer reached it."


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the release in charge managed: articles, by id and question, that it cites when it is
    asked their own question; whether its model ran. ``asked`` is False where it did not run."""

    asked: bool = False
    engine: bool = False
    answered: list[tuple[str, str]] = field(default_factory=list)

    def as_facts(self) -> dict[str, Any]:
        """For the journal."""
        return asdict(self)


def measure(settings: Settings) -> Baseline:
    """Ask the release that serves."""
    ready = call(settings, "GET", "/ready")
    if ready is None:
        return Baseline()
    answered = []
    for article, question in whole.questions(settings.resolved_database_url, CANDIDATES):
        if _cites(settings, article, question):
            answered.append((article, question))
            if len(answered) == QUESTIONS:
                break
    return Baseline(True, ready.body.get("engine") == "ok", answered)


def probe(
    layout: Layout,
    settings: Settings,
    services: Services,
    *,
    version: str,
    schema: str | None,
    baseline: Baseline,
) -> None:
    """Hold the release that runs against what it is meant to be and against the one before.

    :param schema: the form that the database has to have.
    :raises ProbeFailed: with what it does not do.
    """
    found = version_serving(settings)
    if found != version:
        raise ProbeFailed(f"Version {found or 'none'} answers instead of {version}.")
    if units.installed(layout) != units.shipped(layout, version):
        raise ProbeFailed(f"The units in {layout.units} are not those of {version}.")
    form = migrate.current(settings.resolved_database_url)
    if form != schema:
        raise ProbeFailed(f"The database has the form {form}, not {schema}.")
    if baseline.engine:
        _wait_for_engine(settings, services)
    _ask(settings, baseline)


def _ask(settings: Settings, baseline: Baseline) -> None:
    for article, question in baseline.answered:
        if not _cites(settings, article, question):
            raise ProbeFailed(
                f"The question of article {article} is not answered from it, as it was before."
            )
    if baseline.answered:
        return
    # Nothing to compare with: no article could be answered, or nobody was there to ask.
    articles = whole.questions(settings.resolved_database_url, CANDIDATES)
    if not baseline.asked and articles:
        if any(_cites(settings, article, question) for article, question in articles):
            return
        raise ProbeFailed(f"None of {len(articles)} articles' own questions is answered from it.")
    result = _rehearse(settings, "Hello")
    if isinstance(result, str) or result["metadata"]["outcome"] not in OUTCOMES:
        raise ProbeFailed(f"A greeting is not answered: {result}")


def _cites(settings: Settings, article: str, question: str) -> bool:
    result = _rehearse(settings, question)
    if isinstance(result, str):
        return False
    metadata = result["metadata"]
    return metadata["outcome"] == "answered" and any(
        str(citation["id"]) == article for citation in metadata["citations"]
    )


def _rehearse(settings: Settings, message: str) -> dict[str, Any] | str:
    """The answer; or what came instead of one."""
    body = {"user_id": USER, "message": message}
    answer = call(settings, "POST", "/query/rehearse", seconds=ANSWER_SECONDS, json=body)
    if answer is None:
        return "no answer"
    if answer.status != 200:
        return f"{answer.status} {answer.body.get('detail', '')}"
    found: dict[str, Any] = answer.body
    return found


def _wait_for_engine(settings: Settings, services: Services) -> None:
    deadline = time.monotonic() + START_SECONDS
    state: Literal["ok"] | str = ""
    while state != "ok":
        if time.monotonic() > deadline:
            raise ProbeFailed(
                f"The model, which ran before, is {state or 'not seen'}.",
                hint=f"See the log: {services.log}",
            )
        ready = call(settings, "GET", "/ready")
        state = str(ready.body.get("engine")) if ready else ""
        time.sleep(LOOK_SECONDS)

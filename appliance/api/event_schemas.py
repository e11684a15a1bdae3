"""The JSON schemas of what webhooks deliver, made from the very classes that bodies are made of."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import Controller, MediaType, Response, get
from litestar.params import FromPath

from appliance.domain.events import DATA, VERSION
from appliance.errors import NotFound

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
PATH: Final = "/docs/events"


class EventSchemaController(Controller):
    """Schemas of events, open like the API's own description."""

    path = PATH
    include_in_schema = False

    @get("/", sync_to_thread=False)
    def index(self) -> dict[str, Any]:
        """Where the schema of each event is."""
        return {
            "version": VERSION,
            "events": {event_type: f"{PATH}/{event_type}.json" for event_type in DATA},
        }

    @get("/{name:str}", sync_to_thread=False)
    def show(self, name: FromPath[str]) -> Response[dict[str, Any]]:
        """The schema of one event's body."""
        event_type = name.removesuffix(".json")
        if event_type not in DATA:
            raise NotFound("There is no such event.", hint=f"{PATH} lists them.")
        return Response(schema(event_type), media_type=MediaType.JSON)


def schema(event_type: str) -> dict[str, Any]:
    """What a body of that type looks like. Fields may be added to it within a version."""
    made = msgspec.json.schema(body_type(event_type))
    # The body itself at the top, so that readers need not look for it among its own parts.
    name = str(made.pop("$ref")).rpartition("/")[2]
    definitions = made["$defs"]
    for definition in definitions.values():
        definition["description"] = " ".join(definition["description"].split())
    return {
        "$schema": DIALECT,
        "$id": f"{PATH}/{event_type}.json",
        **definitions.pop(name),
        "$defs": definitions,
    }


def body_type(event_type: str) -> type[msgspec.Struct]:
    """A body of that type, as something that JSON can be decoded to."""
    data = DATA[event_type]
    return msgspec.defstruct(
        event_type,
        [
            ("id", str),
            ("type", Literal[event_type]),
            ("version", Literal[VERSION]),
            ("timestamp", Annotated[datetime, msgspec.Meta(tz=True)]),
            ("data", data),
        ],
        namespace={"__doc__": data.__doc__},
    )

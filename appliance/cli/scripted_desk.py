"""A whole desk on the scripted twin of the model, in a process of its own: what load and schema
tests are aimed at. ``python -m appliance.cli.scripted_desk FOLDER PORT [hashed]``.

Everything but the model is the real thing; with ``hashed`` the embedding model is a twin, too. It
prints one line of JSON, ``{"url", "key", "pid"}``, once it can answer, with the key of an
administrator.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path


async def serve(folder: Path, port: int, *, hashed: bool) -> None:
    """Make the desk where there is none yet, and serve it until SIGTERM."""
    from appliance.api.server import serve as serve_api
    from appliance.bootstrap import Appliance
    from appliance.knowledge.embedding import HashedEmbedder
    from appliance.knowledge.importers import read_faqs
    from appliance.llm.scripted import ScriptedModel
    from appliance.logs import configure_logs
    from appliance.services.knowledge import save_articles
    from appliance.settings import HOME, load_settings
    from appliance.storage.migrate import upgrade

    # Whatever this machine's own appliance is set to: nothing of it is touched.
    settings = load_settings(
        data_dir=folder,
        runtime_dir=None,
        database_url="",
        host="127.0.0.1",
        port=port,
        remote_enabled=False,
    )
    configure_logs(settings.log_level, process="api")
    folder.mkdir(parents=True, exist_ok=True)
    upgrade(settings.resolved_database_url)
    # What it remembers would look like memory that the appliance never gives back.
    model = ScriptedModel(remembers=0)
    appliance = Appliance(settings, model=model, embedder=HashedEmbedder() if hashed else None)
    faqs = read_faqs(HOME / "kb" / "faqs.json")
    await save_articles(appliance.database, faqs, replace=True)
    made = await appliance.access.create_key("admin")
    told = {"url": f"http://127.0.0.1:{port}", "key": made.key, "pid": os.getpid()}

    async def tell() -> None:
        while not appliance.is_ready:
            await asyncio.sleep(0.05)
        await appliance.monitor.look()
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()

    telling = asyncio.create_task(tell())
    try:
        await serve_api(appliance)
    finally:
        telling.cancel()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), hashed="hashed" in sys.argv[3:]))

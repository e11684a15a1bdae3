"""Every library's own switch for network use, off."""

from __future__ import annotations

import os

OFFLINE_ENVIRONMENT = {
    # Libraries that would reach for a hub, a tracer or a version check when asked nothing.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    # The version that is pinned has no telemetry; the ones after it do.
    "ORT_DISABLE_TELEMETRY": "1",
    "LANGSMITH_TRACING": "false",
    "LANGSMITH_TRACING_V2": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "TOKENIZERS_PARALLELISM": "false",
}


def enforce_offline() -> None:
    """Force every library's own switch for network use to off, whatever the shell exported.

    Called first thing by each process, before the libraries are imported, because they read these
    once.
    """
    os.environ.update(OFFLINE_ENVIRONMENT)

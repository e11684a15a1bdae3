"""llama.cpp behind a Unix socket, as a process of its own: untrusted weights, no network, no state.

``python -m appliance.llm.engine --model NAME --socket PATH`` or :func:`serve` in a child process.
"""

from appliance.llm.engine.process import serve

__all__ = ["serve"]

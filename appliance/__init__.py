"""SmartSupport Appliance: a support desk that answers with a model on the customer's own server.

The path of a query: api/queries.py -> services/answer_query.py -> graph/build.py -> agents/* -> llm
| knowledge, then storage commits.
"""

__version__ = "0.1.0"

"""What is remembered: SQLite by default, PostgreSQL where a desk has one, behind the same
repositories.

``Database`` is the way in. Only this package writes queries, and only its unit of work commits.
"""

from appliance.storage.database import Database, Records
from appliance.storage.types import new_id, utc_now
from appliance.storage.users import UNCHANGED

__all__ = ["UNCHANGED", "Database", "Records", "new_id", "utc_now"]

"""What an administrator asks at 3 a.m.: each finding with what to do about it. Changes nothing.

``examine`` asks everything at once; each module looks at one thing and answers in ``Finding``s,
also where what it looks at is broken. ``silence`` proves that nothing leaves,
``archive`` packs what support needs to know.
"""

from appliance.operations.doctor.examination import examine, examine_without_settings
from appliance.operations.doctor.finding import GROUPS, Finding, grouped

__all__ = ["GROUPS", "Finding", "examine", "examine_without_settings", "grouped"]

"""One ``Settings`` object: TOML file, then ``APPLIANCE_*`` environment. Nothing else reads the
environment.

Every field is a setting, its upper-case name after ``APPLIANCE_`` is its variable, and its default
is safe with no network. README's table is checked against the fields.
"""

from appliance.settings.environment import (
    cache_folder,
    closed_credentials,
    compiler_environment,
    config_file,
    handed_over,
    notify_socket,
    torch_index,
)
from appliance.settings.fields import CREDENTIALS, Settings
from appliance.settings.folders import SOCKET_PATH_MAX, ensure_folders
from appliance.settings.home import HOME, ROOT, installed_under
from appliance.settings.loading import load_settings, unknown_variables
from appliance.settings.offline import OFFLINE_ENVIRONMENT, enforce_offline

__all__ = [
    "CREDENTIALS",
    "HOME",
    "OFFLINE_ENVIRONMENT",
    "ROOT",
    "SOCKET_PATH_MAX",
    "Settings",
    "cache_folder",
    "closed_credentials",
    "compiler_environment",
    "config_file",
    "enforce_offline",
    "ensure_folders",
    "handed_over",
    "installed_under",
    "load_settings",
    "notify_socket",
    "torch_index",
    "unknown_variables",
]

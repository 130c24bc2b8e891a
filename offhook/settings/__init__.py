"""The configuration: read once when a process starts, from a file and the environment."""

from offhook.settings.config_file import DEFAULT_FILE, config_folder, config_path
from offhook.settings.console_table import (
    ConsoleSettings,
    ConsoleToken,
    ConsoleUser,
    OidcSettings,
    Role,
    Scope,
)
from offhook.settings.installation import Settings
from offhook.settings.loading import configuration_files, load_settings, sound_tables
from offhook.settings.setting_tables import HandlerSettings, LookupSettings, PbxSettings
from offhook.settings.tenants import (
    TenantLimits,
    TenantSettings,
    is_own_code,
    table_of,
    tenant_files,
    tenant_of_plugin,
    tenants_folder,
)

__all__ = [
    "DEFAULT_FILE",
    "ConsoleSettings",
    "ConsoleToken",
    "ConsoleUser",
    "HandlerSettings",
    "LookupSettings",
    "OidcSettings",
    "PbxSettings",
    "Role",
    "Scope",
    "Settings",
    "TenantLimits",
    "TenantSettings",
    "config_folder",
    "config_path",
    "configuration_files",
    "is_own_code",
    "load_settings",
    "sound_tables",
    "table_of",
    "tenant_files",
    "tenant_of_plugin",
    "tenants_folder",
]

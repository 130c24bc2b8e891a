"""Plugins: finds, configures and calls the handlers and lookups that `offhook.toml` names."""

from offhook.plugins.checking import Plugins, check_all, faults, load_checked, plug_all
from offhook.plugins.finding import (
    event_types,
    installed,
    load_handler,
    load_lookup,
    plug_handler,
    plug_lookup,
    plugin_modules,
    wanted_types,
    with_options,
)
from offhook.plugins.plugged import Function, PluggedHandler, PluggedLookup

__all__ = [
    "Function",
    "PluggedHandler",
    "PluggedLookup",
    "Plugins",
    "check_all",
    "event_types",
    "faults",
    "installed",
    "load_checked",
    "load_handler",
    "load_lookup",
    "plug_all",
    "plug_handler",
    "plug_lookup",
    "plugin_modules",
    "wanted_types",
    "with_options",
]

"""The web process: takes callbacks, answers fast, does no work."""

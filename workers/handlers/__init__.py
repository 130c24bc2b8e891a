"""The built-in handlers, one a file. Each uses only what any plugin may import."""
